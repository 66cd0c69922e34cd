"""`videodit data ingest`: a folder of captioned videos to a data set."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from videodit.cli.data.progress import Bar


def add_action(add: Callable[..., argparse.ArgumentParser]) -> None:
    action = add("ingest", help="convert a folder of captioned videos to a data set")
    action.add_argument("folder", type=Path, help="folder of videos, with caption files")
    action.add_argument("--out", type=Path, required=True, help="directory of the new data set")
    action.add_argument("--captions", type=Path, help="captions.jsonl, .csv or .tsv, if it is not in the folder")
    action.add_argument("--source", help="source of the videos, if the caption files have none")
    action.add_argument("--licence", default="unknown", help="their licence, if the caption files have none")
    action.add_argument("--follow-links", action="store_true", help="read what links lead to outside of the folder")
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.ingest import ingest as ingest_folder
    from videodit_data.inspect import print_summary

    with Bar(console) as bar:
        ingest_folder(
            args.folder,
            args.out,
            captions=args.captions,
            source=args.source,
            licence=args.licence,
            follow_links=args.follow_links,
            progress=bar,
        )
    print_summary(args.out, console)
    return 0
