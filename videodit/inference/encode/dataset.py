"""A data set coded once, clips as latents and captions as embeddings, so that training does neither again.

Processes share out the shards, never a batch, and each shard is the same whoever makes it, on machines of one kind
(XLA for CPU rounds otherwise with other numbers of devices): what one that died left, any number of them go on with.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from videodit_data.formats import format_name, open_dataset
from videodit_data.storage import embeddings, manifest
from videodit_data.storage.dataset import Dataset
from videodit_data.storage.records import RecordSource, even_ranges, shard_name, write_shard
from videodit_data.tokenizer import clean_caption

from videodit.checkpoint.identity import vae_identity
from videodit.checkpoint.restore import load_vae
from videodit.inference.encode.embeddings import CaptionEncoder, TextSource
from videodit.inference.encode.latents import LatentEncoder, Shapes, takes
from videodit.inference.encode.work_sharing import each_its_share
from videodit.parallel.distributed import barrier, on_main_process

Make = Callable[[Path], None]
T = TypeVar("T")


def encode_dataset(
    dataset: str | Path,
    out: Path,
    *,
    vae: Path | None = None,
    text: TextSource | None = None,
    shapes: Shapes | None = None,
    dtype: str = "bfloat16",
    progress: manifest.Progress | None = None,
) -> manifest.Manifest:
    """Writes the latents of a data set's clips, the embeddings of their captions, or both.

    Interrupted, it goes on shard by shard; done already, it does nothing. Of several processes each makes its share.

    Args:
        vae: workdir of the autoencoder; None keeps the clips as they are, be they videos or latents.
        text: the text encoder; None embeds no captions, but keeps embeddings that the data set carries.
        shapes: what is taken of every clip.
        dtype: to store, bfloat16 or float16.

    Raises:
        ValueError: when there is no such data set or encoder, what is asked for does not fit, or `out` holds something
            else.
    """
    if vae is None and (text is None or shapes not in (None, Shapes())):
        raise ValueError("name an autoencoder, a text encoder or both: shapes and crops are those of an autoencoder")
    data, shapes = open_dataset(dataset), shapes or Shapes()
    if vae is not None and data.manifest.content == "latent":
        raise ValueError(f"{dataset} holds latents already: an autoencoder codes videos")
    progress = progress or (lambda *step: None)
    captions = None if text is None else text.open()
    described = data.manifest
    info: dict[str, Any] = {
        "encoded": {"shards": [shard.sha256 for shard in described.shards], "info": described.info},
        "vae": described.info.get("vae"),
        "text": described.info.get("text") if captions is None else captions.identity,
        "stored": dtype,
        "world": described.info.get("world"),
    }
    if vae is None:
        clips, left_out = _kept(data, described.shards), []
    else:
        clips, told, left_out = _coded(data, vae, shapes, dtype, progress)
        info |= told
    info = json.loads(json.dumps(info))
    finished = manifest.already_built(out, info)
    barrier("looked for what is there")  # before one makes what another looks for
    if finished is not None:
        return finished
    on_main_process(lambda: manifest.start(out, info))
    notes = Notes(manifest.partial_directory(out), info)
    told_of = notes.shards(clips, functools.partial(_told, captions is not None))
    made = [manifest.Described.from_json(told["described"]) for told in told_of]
    if captions is None:
        texts = _carried(notes, data)
    else:
        found = itertools.chain.from_iterable(told["captions"] for told in told_of)
        texts = _texts(notes, found, captions, dtype, progress)
    on_main_process(
        lambda: manifest.finish(out, made, info=info, left_out=[*described.left_out, *left_out], texts=texts)
    )
    return manifest.load(out)


class Notes:
    """What has been found out about each shard of a partial data set, in a file a shard; of one `info` alone."""

    def __init__(self, partial: Path, info: dict[str, Any]):
        self.partial = partial
        self._folder = partial / f"notes-{hashlib.sha256(json.dumps(info, sort_keys=True).encode()).hexdigest()[:16]}"
        on_main_process(lambda: self._folder.mkdir(exist_ok=True))

    def shards(self, make: Mapping[str, Make], describe: Callable[[Path], dict[str, Any]]) -> list[Any]:
        """Makes the shards that are not there, and says of all what `describe` does, plain JSON."""

        def there(name: str) -> bool:
            return self._note(name).exists() and (self.partial / name).exists()

        def one(name: str) -> None:
            path = self.partial / name
            if not path.exists():
                make[name](path)
            manifest.write_whole(self._note(name), json.dumps(describe(path)))

        each_its_share(list(make), there, one)
        return [json.loads(self._note(name).read_text(encoding="utf-8")) for name in make]

    def _note(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _kept(data: Dataset, shards: Iterable[manifest.Shard | manifest.TextShard]) -> dict[str, Make]:
    """Shards of a data set as they are: other names of the same files, where the disc is the same.

    Raises:
        ValueError: when it has no shards of its own.
    """
    if format_name(data.path):
        raise ValueError(f"{data.path} has no shards to keep: name an autoencoder to code its clips with")

    def make(shard: str, path: Path) -> None:
        source, scratch = Path(data.path) / shard, path.with_name(path.name + ".tmp")
        scratch.unlink(missing_ok=True)
        try:
            os.link(source.resolve(), scratch)  # of a link, what it is to
        except OSError:
            shutil.copyfile(source, scratch)
        scratch.replace(path)

    return {shard.name: functools.partial(make, shard.name) for shard in shards}


def _coded(
    data: Dataset, vae_dir: Path, shapes: Shapes, dtype: str, progress: manifest.Progress
) -> tuple[dict[str, Make], dict[str, Any], list[manifest.LeftOut]]:
    """The shards of latents to be made, what the manifest says of them, and the clips that are not among them."""
    vae, run, step = load_vae(vae_dir)
    fps = (shapes.buckets or {}).get("fps", run.data.fps)
    some, without = takes(data, run, shapes, vae_dir)
    coder = LatentEncoder(vae, fps, dtype)

    def make(part: range, path: Path) -> None:
        counted = _counted(coder(data.records, some[part.start : part.stop]), part, len(some), "clips", progress)
        write_shard(path, counted)

    # As many records a shard as the clips have, however many are taken of each.
    count = -(-len(data.manifest.shards) * len(some) // data.manifest.clips)
    parts = even_ranges(len(some), count)
    one = None if shapes.buckets else f"{run.data.frames} x {run.data.height} x {run.data.width}"
    told = {"vae": vae_identity(vae_dir, vae, step), "shape": shapes.to_json() | {"fps": fps, "one": one}}
    left_out = [manifest.LeftOut(data.records[n].id, f"{reason} for the buckets") for n, reason in without.items()]
    named = {shard_name("latents", i, len(parts)): functools.partial(make, part) for i, part in enumerate(parts)}
    return named, told, left_out


def _carried(notes: Notes, data: Dataset) -> Sequence[manifest.TextShard]:
    """The embeddings that a data set carries, as they are."""
    kept = _kept(data, data.manifest.texts) if data.manifest.texts else {}
    places = {name: notes.partial / name for name in kept}
    each_its_share(list(kept), lambda name: places[name].exists(), lambda name: kept[name](places[name]))
    return data.manifest.texts


def _told(captions: bool, path: Path) -> dict[str, Any]:
    """What the manifest says of a shard, and its `captions` if wanted, which are read while the file is in memory."""
    some = RecordSource([path]) if captions else []
    distinct = sorted({clean_caption(caption) for record in some for caption in record.captions})
    return {"described": dataclasses.asdict(manifest.describe(path)), "captions": distinct}


def _texts(
    notes: Notes, found: Iterable[str], coder: CaptionEncoder, dtype: str, progress: manifest.Progress
) -> list[manifest.TextShard]:
    """Makes the shards of embeddings: each distinct caption once, whatever clips it is of."""
    keys = embeddings.Keys(coder.identity)
    captions = embeddings.distinct(found, keys)

    def make(part: range, path: Path) -> None:
        some = captions[part.start : part.stop]
        counted = _counted(coder(some), part, len(captions), "captions", progress)
        embeddings.write(path, some, counted, keys, dtype)

    shards = {name: functools.partial(make, part) for name, part in embeddings.shards_of(captions).items()}
    told_of = notes.shards(shards, lambda path: dataclasses.asdict(embeddings.describe(path)))
    return [manifest.TextShard(**told) for told in told_of]


def _counted(items: Iterable[T], part: range, total: int, what: str, progress: manifest.Progress) -> Iterator[T]:
    for done, item in enumerate(items, part.start + 1):
        yield item
        progress(what, done, total)
