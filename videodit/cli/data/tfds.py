"""`videodit data tfds`: make a data set readable for TensorFlow Datasets."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console


def add_action(add: Callable[..., argparse.ArgumentParser]) -> None:
    action = add("tfds", help="make a data set readable for TensorFlow Datasets")
    action.add_argument("dataset", type=Path)
    action.add_argument("--name", help="of the TFDS data set (default: from the directory's)")
    action.add_argument("--split", default="train", help="name of the split (default: train)")
    action.add_argument("--root", type=Path, help="write to ROOT/NAME/1.0.0, where several directories can be splits")
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.tfds.export import export

    folder = export(args.dataset, name=args.name, split=args.split, root=args.root)
    print(f"tfds.builder_from_directory({str(folder)!r}).as_data_source({args.split!r})")
    if args.root is not None:
        print(f"tfds.data_source({folder.parent.name!r}, split={args.split!r}, data_dir={str(args.root)!r})")
    return 0
