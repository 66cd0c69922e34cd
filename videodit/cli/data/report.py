"""`videodit data report`: the clips that a build kept and dropped, and why, as a page."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from videodit.cli.data.extra import import_footage
from videodit.cli.data.overwrite import check_out


def add_action(add: Callable[..., argparse.ArgumentParser]) -> None:
    action = add("report", help="show clips that a build kept and dropped, and why, as an HTML page")
    action.add_argument("dataset", type=Path)
    action.add_argument("--out", type=Path, help="the page (default: DATASET/report.html)")
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.storage.manifest import load

    load(args.dataset)
    out = args.out or args.dataset / "report.html"
    check_out(out, "a report of ours", lambda head: b": what was kept and dropped</title>" in head)
    import_footage("videodit_data.footage.quality_report").write_report(args.dataset, out)
    console.print(f"report: {out}", highlight=False, markup=False)
    return 0
