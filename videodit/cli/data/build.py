"""`videodit data build`: raw footage to a data set."""

import argparse
from collections.abc import Callable, Sequence

from rich.console import Console

from videodit.cli.data.extra import import_footage
from videodit.cli.data.progress import Bar

EXAMPLES = """examples:
  videodit data build --input 'footage/**/*.mp4' --out data/clips --config configs/data/default.py
  videodit data build --input footage/ --out data/clips --config configs/data/default.py:strict \\
      --config.filters.motion.least=0.05 --cache analyses/       other thresholds, without decoding again
  videodit data build --input gs://b/raw --out gs://b/clips --config configs/data/default.py -- \\
      --runner=DataflowRunner --project=P --region=R --temp_location=gs://b/tmp
  videodit data report data/clips                                clips kept and dropped, and why, as a page
  the same command resumes an interrupted build and writes the same bytes
"""


def add_action(add: Callable[..., argparse.ArgumentParser]) -> None:
    action = add("build", help="raw footage to shots, filtered clips and shards (Beam)", epilog=EXAMPLES)
    action.add_argument(
        "--input", required=True, nargs="+", action="extend", metavar="GLOB", help="footage: globs, folders, files"
    )
    action.add_argument("--out", required=True, help="directory of the new data set")
    action.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]", help="configs/data/default.py, say")
    action.add_argument("--cache", help="folder that stores the analyses of sources for other builds")
    action.add_argument("--follow-links", action="store_true", help="read what links lead to outside of the input")
    action.set_defaults(command=run, takes_overrides=True, overrides=[])


def run(args: argparse.Namespace, console: Console) -> int:
    from videodit.config.files import load

    overrides, options = _split(args.overrides)
    config = load(args.config, overrides, among=(import_footage("videodit_data.footage.config").BuildConfig,))
    footage = import_footage("videodit_data.footage.build")
    with Bar(console) as bar:
        footage.build(
            args.input,
            args.out,
            config,
            cache=args.cache,
            beam_options=options,
            follow_links=args.follow_links,
            progress=bar,
        )
    if not import_footage("videodit_data.footage.file_system").is_remote(args.out):
        from videodit_data.inspect import print_summary

        print_summary(args.out, console)
    console.print(f"dropped clips: videodit data report {args.out}", highlight=False, markup=False)
    return 0


def _split(rest: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split into overrides of the configuration and options of Beam: --beam.KEY=VALUE, and all that follows --."""
    at = rest.index("--") if "--" in rest else len(rest)
    beam = [flag.replace("--beam.", "--", 1) for flag in rest[:at] if flag.startswith("--beam.")]
    return [flag for flag in rest[:at] if not flag.startswith("--beam.")], [*beam, *rest[at + 1 :]]
