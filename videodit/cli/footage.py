"""`videodit data build` and `report`: raw footage to a data set, and a page of what became of it."""

import argparse
import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

EXAMPLES = """examples:
  videodit data build --input 'footage/**/*.mp4' --out data/clips --config configs/data/default.py
  videodit data build --input footage/ --out data/clips --config configs/data/default.py:strict \\
      --config.filters.motion.least=0.05 --cache analyses/       other thresholds, without decoding again
  videodit data build --input gs://b/raw --out gs://b/clips --config configs/data/default.py -- \\
      --runner=DataflowRunner --project=P --region=R --temp_location=gs://b/tmp
  videodit data report data/clips                                what was kept and dropped, and why, as one page
  the same command goes on with an interrupted build and ends with the same bytes
"""
EXTRA = "Footage is built with packages that reading needs not: pip install 'videodit[beam]' ({error})."


def add_actions(actions: Any, common: argparse.ArgumentParser) -> None:
    shape = {"epilog": EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter, "parents": [common]}
    action = actions.add_parser("build", help="raw footage to shots, filtered clips and shards (Beam)", **shape)
    action.add_argument(
        "--input", required=True, nargs="+", action="extend", metavar="GLOB", help="footage: globs, folders, files"
    )
    action.add_argument("--out", required=True, help="directory of the new data set")
    action.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]", help="configs/data/default.py, say")
    action.add_argument("--cache", help="folder that keeps what was found out about sources for other builds")
    action.set_defaults(command=build, takes_overrides=True, overrides=[])

    action = actions.add_parser("report", help="what a build kept and dropped, and why, as one HTML page", **shape)
    action.add_argument("dataset", type=Path)
    action.add_argument("--out", type=Path, help="the page; DATASET/report.html if not given")
    action.set_defaults(command=report)


def build(args: argparse.Namespace, console: Console) -> int:
    from videodit.cli.data import Bar
    from videodit.train.config_file import load

    overrides, options = _split(args.overrides)
    config = load(args.config, overrides, among=(_needed("videodit_data.footage.config").BuildConfig,))
    made = _needed("videodit_data.footage.build")
    with Bar(console) as bar:
        made.build(args.input, args.out, config, cache=args.cache, beam_options=options, progress=bar)
    if "://" not in args.out:
        from videodit_data.inspect import print_summary

        print_summary(args.out, console)
    console.print(f"what was left out: videodit data report {args.out}", highlight=False, markup=False)
    return 0


def report(args: argparse.Namespace, console: Console) -> int:
    out = args.out or args.dataset / "report.html"
    _needed("videodit_data.footage.report").write_report(args.dataset, out)
    console.print(f"report: {out}", highlight=False, markup=False)
    return 0


def _split(rest: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of the configuration, and Beam's options: --beam.KEY=VALUE, and all that comes after --."""
    at = rest.index("--") if "--" in rest else len(rest)
    beam = [flag.replace("--beam.", "--", 1) for flag in rest[:at] if flag.startswith("--beam.")]
    return [flag for flag in rest[:at] if not flag.startswith("--beam.")], [*beam, *rest[at + 1 :]]


def _needed(module: str) -> ModuleType:
    """A module that needs the extra. ValueError says how to install it."""
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    logging.disable(logging.WARNING)  # Beam tells of clouds that are not installed
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("videodit"):
            raise
        raise ValueError(EXTRA.format(error=error)) from error
    finally:
        logging.disable(logging.NOTSET)
