"""`videodit data inspect`: the contents of a data set, as a table and a contact sheet."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console


def add_action(add: Callable[..., argparse.ArgumentParser]) -> None:
    action = add("inspect", help="show the contents of a data set, and dropped clips")
    action.add_argument("dataset", type=Path)
    action.add_argument("--sheet", type=Path, help="contact sheet (default: DATASET/contact_sheet.png)")
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.boundary.terminal import SafeConsole
    from videodit_data.formats import open_dataset
    from videodit_data.inspect import check_sheet, contact_sheet, print_summary

    if args.sheet is not None:
        check_sheet(args.sheet)
    print_summary(args.dataset, SafeConsole())
    if open_dataset(args.dataset).manifest.content == "video":
        sheet = args.sheet or (args.dataset if args.dataset.is_dir() else Path()) / "contact_sheet.png"
        contact_sheet(args.dataset, sheet)
        console.print(f"contact sheet: {sheet}")
    return 0
