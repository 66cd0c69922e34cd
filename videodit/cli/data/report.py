"""`videodit data report`: what a build kept and dropped, and why, as one page."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from videodit.cli.data.extra import needed
from videodit.cli.data.overwrite import check_out


def add_action(add: Callable[..., argparse.ArgumentParser]) -> None:
    action = add("report", help="what a build kept and dropped, and why, as one HTML page")
    action.add_argument("dataset", type=Path)
    action.add_argument("--out", type=Path, help="the page; DATASET/report.html if not given")
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    if args.out is not None:
        check_out(args.out, "a report of ours", lambda head: b": what was kept and dropped</title>" in head)
    out = args.out or args.dataset / "report.html"
    needed("videodit_data.footage.quality_report").write_report(args.dataset, out)
    console.print(f"report: {out}", highlight=False, markup=False)
    return 0
