"""`videodit data ACTION`: build, ingest, inspect, caption and encode captioned video data sets; a file per action."""

import argparse
import functools
from typing import Any

from videodit.cli.data import buckets, build, caption, encode, ingest, inspect, report, tfds, tokenizer, toyworld

ACTIONS = (build, report, ingest, toyworld, inspect, caption, buckets, tokenizer, encode, tfds)
EXAMPLES = """examples:
  videodit data build --input footage/ --out data/clips --config configs/data/default.py    raw footage to clips
  videodit data report data/clips                         clips kept and dropped by a build, and why, as a page
  videodit data ingest footage/ --out data/footage        mp4, webm, mov, avi, gif with caption files
  videodit data toyworld --out data/toy --clips 2000 --level easy
  videodit data inspect data/footage --sheet sheet.png    a table, and a picture of some clips
  videodit data inspect 'tfds:ucf101/train?fps=25'        TFDS data sets can be inspected, encoded and trained on
  videodit data caption data/clips --out data/captioned --endpoint http://localhost:8000 --model NAME
  videodit data buckets data/clips --resolutions 256,512 --frames 17,49,81
  videodit data buckets data/clips-latents --length 16384                 packed sequences
  videodit data tokenizer data/toy --out tokenizer.model  a sentencepiece model of the captions
  videodit data encode data/toy --vae runs/vae --out data/toy-latents
  videodit data encode data/big --vae ckpt/wan/vae --text ckpt/wan/text --out data/big-cached
  videodit data tfds data/toy                             TensorFlow Datasets can open it then
"""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    summary = "build, ingest, inspect, caption and encode data sets"
    parser = commands.add_parser("data", help=summary, epilog=EXAMPLES, formatter_class=raw, parents=[common])
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for module in ACTIONS:
        module.add_action(functools.partial(actions.add_parser, formatter_class=raw, parents=[common]))
    for name, action in actions.choices.items():
        action.epilog = action.epilog or _examples(name)


def _examples(action: str) -> str:
    first, *lines = EXAMPLES.splitlines(keepends=True)
    return first + "".join(line for line in lines if line.split()[2] == action)
