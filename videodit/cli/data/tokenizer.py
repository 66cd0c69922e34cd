"""`videodit data tokenizer`: train a sentencepiece model on captions."""

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from videodit.cli.data.overwrite import check_out
from videodit.cli.number_options import Number
from videodit.ranges import Range

PIECES = Number(int, Range(4, 2**31 - 1))


def add_action(add: Callable[..., argparse.ArgumentParser]) -> None:
    action = add("tokenizer", help="train a sentencepiece model on the captions")
    action.add_argument("dataset", type=Path)
    action.add_argument("--out", type=Path, required=True, help="file of the model")
    action.add_argument("--vocabulary", type=PIECES, default=1024, help="pieces at most")
    action.set_defaults(command=run)


def run(args: argparse.Namespace, console: Console) -> int:
    train_tokenizer(args.dataset, args.out, args.vocabulary)
    return 0


def train_tokenizer(dataset: Path, out: Path, vocabulary: int) -> None:
    """Train a sentencepiece model on the captions of a data set; ValueError if `out` is another file."""
    from videodit_data.formats import open_dataset
    from videodit_data.storage.whole_file import replace_whole
    from videodit_data.tokenizer import is_model, train

    check_out(out, "a tokenizer", is_model)
    model = train((caption for record in open_dataset(dataset).records for caption in record.captions), vocabulary)
    if out.exists():
        if out.read_bytes() != model:
            raise ValueError(
                f"{out} is another tokenizer, which runs and data sets may depend on; choose another place or remove "
                "it, nothing was written."
            )
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with replace_whole(out) as partial:
        partial.write_bytes(model)
