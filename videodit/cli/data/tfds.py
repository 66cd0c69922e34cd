"""`videodit data tfds`: TensorFlow Datasets opens a data set, as it is."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console


def add_action(add: Callable[..., argparse.ArgumentParser]) -> None:
    action = add("tfds", help="let TensorFlow Datasets open a data set, as it is")
    action.add_argument("dataset", type=Path)
    action.add_argument("--name", help="of the TFDS data set; made from the directory's if not given")
    action.add_argument("--split", default="train", help="that the directory is (default: train)")
    action.add_argument("--root", type=Path, help="write to ROOT/NAME/1.0.0, where several directories can be splits")
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.tfds.export import export

    place = export(args.dataset, name=args.name, split=args.split, root=args.root)
    print(f"tfds.builder_from_directory({str(place)!r}).as_data_source({args.split!r})")
    if args.root is not None:
        print(f"tfds.data_source({place.parent.name!r}, split={args.split!r}, data_dir={str(args.root)!r})")
    return 0
