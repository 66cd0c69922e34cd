"""`videodit data`: captioned video data sets built, ingested, looked at, and coded as latents."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from videodit.cli import captioning, footage, processes

EXAMPLES = """examples:
  videodit data build --input footage/ --out data/clips --config configs/data/default.py    raw footage to clips
  videodit data report data/clips                         what a build kept and dropped, and why, as one page
  videodit data ingest footage/ --out data/footage        mp4, webm, mov, avi, gif with captions beside them
  videodit data toyworld --out data/toy --clips 2000 --level easy
  videodit data inspect data/footage --sheet sheet.png    a table, and a picture of some clips
  videodit data inspect 'tfds:ucf101/train?fps=25'        data sets of TFDS are inspected, encoded, trained on alike
  videodit data caption data/clips --out data/captioned --endpoint http://localhost:8000 --model NAME
  videodit data buckets data/clips --sides 256,512 --frames 17,49,81      what shapes make of it, before training
  videodit data buckets data/clips-latents --length 16384                 rows that several clips share
  videodit data tokenizer data/toy --out tokenizer.model  a sentencepiece model of the captions
  videodit data encode data/toy --vae runs/vae --out data/toy-latents
  videodit data encode data/big --vae ckpt/wan/vae --text ckpt/wan/text --out data/big-cached
  videodit data tfds data/toy                             TensorFlow Datasets opens it then, as it is
"""


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    shape = {"formatter_class": argparse.RawDescriptionHelpFormatter, "parents": [common]}
    what = "build, ingest, inspect, caption and encode data sets"
    parser = commands.add_parser("data", help=what, epilog=EXAMPLES, **shape)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    action = actions.add_parser("ingest", help="a folder of captioned videos to a data set", **shape)
    action.add_argument("folder", type=Path, help="folder of videos, with captions beside them")
    action.add_argument("--out", type=Path, required=True, help="directory of the new data set")
    action.add_argument("--captions", type=Path, help="captions.jsonl or .csv, where it is not in the folder")
    action.add_argument("--source", help="where the videos come from, where the captions do not say")
    action.add_argument("--licence", default="unknown", help="their licence, where the captions do not say")
    action.set_defaults(command=ingest)

    action = actions.add_parser("inspect", help="what a data set holds, and what was left out", **shape)
    action.add_argument("dataset", type=Path)
    action.add_argument("--sheet", type=Path, help="contact sheet; DATASET/contact_sheet.png if not given")
    action.set_defaults(command=inspect)

    captioning.add_action(actions, common)

    action = actions.add_parser("toyworld", help="generate captioned clips with ground truth", **shape)
    action.add_argument("--out", type=Path, required=True, help="directory of the new data set")
    action.add_argument("--clips", type=int, default=1000)
    action.add_argument("--level", default="easy", help="easy, medium or hard")
    action.add_argument("--seed", type=int, default=0)
    action.add_argument("--height", type=int, default=64)
    action.add_argument("--width", type=int, default=64)
    action.add_argument("--frames", type=int, default=9)
    action.add_argument("--fps", type=float, default=8.0)
    action.add_argument("--processes", type=int, default=2)
    action.set_defaults(command=toyworld)

    action = actions.add_parser("tokenizer", help="train a sentencepiece model on the captions", **shape)
    action.add_argument("dataset", type=Path)
    action.add_argument("--out", type=Path, required=True, help="file of the model")
    action.add_argument("--vocabulary", type=int, default=1024, help="pieces at most")
    action.set_defaults(command=tokenizer)

    action = actions.add_parser("encode", help="code clips as latents and captions as embeddings, once", **shape)
    action.add_argument("dataset", type=Path)
    action.add_argument("--out", type=Path, required=True, help="directory of the new data set")
    action.add_argument("--vae", type=Path, help="workdir of the autoencoder; clips stay as they are if not given")
    action.add_argument("--text", type=Path, help="directory of a text encoder, which training will not need then")
    action.add_argument("--tokenizer", type=Path, help="its sentencepiece model, if not in that directory or above")
    action.add_argument("--text-length", type=int, default=512, help="tokens of a caption, as data.text_length")
    action.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16", help="to store")
    action.add_argument("--crops", type=int, default=1, help="different windows of each clip, each a clip of its own")
    action.add_argument("--every-side", action="store_true", help="clips at each of --sides that they fill, not one")
    _shape_options(
        action,
        "code clips in the best of many shapes, not all in the one that the VAE was trained at",
        "the VAE's",
        ", if any of these is given",
    )
    processes.add_options(action)
    action.set_defaults(command=encode)

    action = actions.add_parser("buckets", help="what shapes and packing make of data sets, before training", **shape)
    action.add_argument("dataset", type=Path, nargs="+")
    _shape_options(action, "shapes that clips are served in; latents have their own", "16")
    action.add_argument("--tokens", type=int, default=32768, help="of a batch at most (default: %(default)s)")
    stride = "of the VAE: frames, pixels (default: that of latents, 4 8 for videos)"
    action.add_argument("--stride", type=int, nargs=2, metavar=("T", "S"), help=stride)
    packing = action.add_argument_group("packing", "rows of one length that several clips share")
    packing.add_argument("--length", type=int, help="tokens of a row; not packed if not given")
    packing.add_argument("--clips", type=int, help="of a row at most (default: 16)")
    packing.add_argument("--rows", type=int, help="of a batch (default: 8)")
    packing.add_argument("--look-ahead", type=int, help="clips that a batch is filled from (default: 512)")
    action.set_defaults(command=buckets)

    action = actions.add_parser("tfds", help="let TensorFlow Datasets open a data set, as it is", **shape)
    action.add_argument("dataset", type=Path)
    action.add_argument("--name", help="of the TFDS data set; made from the directory's if not given")
    action.add_argument("--split", default="train", help="that the directory is (default: train)")
    action.add_argument("--root", type=Path, help="write to ROOT/NAME/1.0.0, where several directories can be splits")
    action.set_defaults(command=tfds)

    footage.add_actions(actions, common)
    actions.choices["report"].set_defaults(command=report)
    for name, action in actions.choices.items():
        action.epilog = action.epilog or _examples(name)


def _examples(action: str) -> str:
    first, *lines = EXAMPLES.splitlines(keepends=True)
    return first + "".join(line for line in lines if line.split()[2] == action)


def _shape_options(action: argparse.ArgumentParser, what: str, fps: str, else_: str = "") -> None:
    """Fields of `Buckets`, as tuples; None where they are not given."""

    def some(default: str) -> str:
        return f" (default: {default}{else_})"

    group = action.add_argument_group("buckets", what)
    several = {"type": _integers, "metavar": "N,..."}
    group.add_argument(
        "--sides", **several, help=f"resolutions, as sides of squares of as many pixels{some('256,512')}"
    )
    ratios = f"width to height, like 16:9,1:1{some('9:16,3:4,1:1,4:3,16:9')}"
    group.add_argument("--aspects", type=_ratios, metavar="X:Y,...", help=ratios)
    lengths = f"lengths, each 1 + 4k; 1 is that of images{some('1,17,33,49,81')}"
    group.add_argument("--frames", **several, help=lengths)
    group.add_argument("--fps", type=float, help=f"frames a second that clips are served at (default: {fps})")
    group.add_argument("--upsample", type=float, help="how far a clip may be enlarged (default: 1, not at all)")


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not whole numbers with commas between, like 17,33") from None


def _ratios(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(_ratio, text.split(",")))
    except (ValueError, ZeroDivisionError):
        sentence = f"'{text}' is not ratios of width to height with commas between, like 16:9,1:1"
        raise argparse.ArgumentTypeError(sentence) from None


def _ratio(text: str) -> float:
    width, colon, height = text.partition(":")
    return float(width) / (float(height) if colon else 1)


def _shapes(args: argparse.Namespace) -> dict[str, Any]:
    names = ("sides", "aspects", "frames", "fps", "upsample")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def ingest(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.ingest import ingest as ingest_folder
    from videodit_data.inspect import print_summary

    with Bar(console) as bar:
        ingest_folder(
            args.folder, args.out, captions=args.captions, source=args.source, licence=args.licence, progress=bar
        )
    print_summary(args.out, console)
    return 0


def inspect(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.inspect import contact_sheet, print_summary
    from videodit_data.sequence import open_data_set

    print_summary(args.dataset, Console())
    if open_data_set(args.dataset).manifest.content == "video":
        sheet = args.sheet or (args.dataset if args.dataset.is_dir() else Path()) / "contact_sheet.png"
        contact_sheet(args.dataset, sheet)
        console.print(f"contact sheet: {sheet}", highlight=False)
    return 0


def toyworld(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.toyworld import build

    names = ("clips", "level", "seed", "height", "width", "frames", "fps", "processes")
    with Bar(console) as bar:
        build(args.out, shards=-(-args.clips // 1024), progress=bar, **{name: getattr(args, name) for name in names})
    return 0


def tokenizer(args: argparse.Namespace, console: Console) -> int:
    train_tokenizer(args.dataset, args.out, args.vocabulary)
    return 0


def train_tokenizer(dataset: Path, out: Path, vocabulary: int) -> None:
    """Writes a sentencepiece model of a data set's captions. ValueError when `out` is any other file."""
    from videodit_data.sequence import open_data_set
    from videodit_data.tokenize import is_model, train

    _check_out(out, "a tokenizer", is_model)
    model = train((caption for record in open_data_set(dataset).records for caption in record.captions), vocabulary)
    if out.exists():
        if out.read_bytes() != model:
            raise ValueError(
                f"{out} is another tokenizer, which runs and data sets may depend on; choose another place or remove "
                "it, nothing was written."
            )
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".part")
    partial.write_bytes(model)
    partial.replace(out)


def report(args: argparse.Namespace, console: Console) -> int:
    if args.out is not None:
        _check_out(args.out, "a report of ours", lambda head: b": what was kept and dropped</title>" in head)
    return footage.report(args, console)


def _check_out(out: Path, what: str, ours: Callable[[bytes], bool]) -> None:
    """ValueError when something else than `ours` is at `out` already."""
    if not out.exists():
        return
    head = b""
    if out.is_file():
        with out.open("rb") as file:
            head = file.read(2**26)  # shards may be larger than memory
    if not ours(head):
        raise ValueError(f"{out} exists and is not {what}; choose another place, nothing was written.")


def encode(args: argparse.Namespace, console: Console) -> int:
    processes.join_if_asked(args)

    from videodit.cli.embeddings import TextSource
    from videodit.cli.encode import encode_dataset
    from videodit.cli.latents import Shapes
    from videodit.parallel.distributed import together

    text = args.text and TextSource(args.text, args.tokenizer, args.text_length)
    shapes = Shapes(_shapes(args) or None, args.every_side, args.crops)
    with Bar(console) as bar, together():
        asked = {"vae": args.vae, "text": text, "shapes": shapes, "dtype": args.dtype}
        encode_dataset(args.dataset, args.out, **asked, progress=bar)
    return 0


def buckets(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.bucketing import Buckets, Token
    from videodit_data.forecast import latent_stride, print_forecast
    from videodit_data.packing import Packing
    from videodit_data.sequence import Part
    from videodit_data.serving import LoaderConfig

    paths = [str(path) for path in args.dataset]
    coded = latent_stride(paths)
    time, space = _stride(args.stride, coded)
    own = {"frames": (1,)} if coded else {}  # latents have their shapes, and their VAE may not take the usual lengths
    shapes = Buckets(**own | _shapes(args), tokens=args.tokens, token=Token(time, 2 * space))
    how = {name: getattr(args, name) for name in ("clips", "look_ahead") if getattr(args, name) is not None}
    if args.length is not None:
        shapes = Packing(args.length, **how, stride=(time, space), buckets=shapes)
    elif how or args.rows is not None:
        raise ValueError("--rows, --clips and --look-ahead go with --length, the tokens of a row; without it, no rows.")
    rows = 8 if args.rows is None else args.rows
    print_forecast(LoaderConfig(tuple(map(Part, paths)), shapes, rows), Console())
    return 0


def _stride(given: Sequence[int] | None, coded: tuple[int | None, int] | None) -> tuple[int, int]:
    """Frames and pixels of a latent position. ValueError when those given are not those of the latents."""
    time, space = coded or (None, 8)
    own = 4 if time is None else time, space
    if given is None:
        return own
    if min(given) < 1:
        raise ValueError(f"--stride is at least 1 frame and 1 pixel, not {given[0]} {given[1]}.")
    if coded is not None and (given[1] != space or time not in (None, given[0])):
        raise ValueError(f"These latents are of a VAE of --stride {own[0]} {own[1]}, not {given[0]} {given[1]}.")
    return given[0], given[1]


def tfds(args: argparse.Namespace, console: Console) -> int:
    from videodit_data.tfds.export import export

    place = export(args.dataset, name=args.name, split=args.split, root=args.root)
    print(f"tfds.builder_from_directory({str(place)!r}).as_data_source({args.split!r})")
    if args.root is not None:
        print(f"tfds.data_source({place.parent.name!r}, split={args.split!r}, data_dir={str(args.root)!r})")
    return 0


class Bar:
    """A progress bar that `videodit_data` can call: what is being done, how many are done, of how many."""

    def __init__(self, console: Console):
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=console)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._tasks:  # stopping a bar that never started would leave an empty line
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._bar.start()
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done, total=total)
