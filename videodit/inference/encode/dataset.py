"""Encode a data set once, clips as latents and captions as embeddings, so that training need not encode them.

Processes share the shards, never a batch. A shard has the same bytes whichever process writes it, on machines of one
kind (XLA for CPU rounds differently with other numbers of devices), so any number of processes can resume.
"""

import functools
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
from videodit_data.formats import format_name, open_dataset
from videodit_data.storage import embeddings, manifest
from videodit_data.storage.dataset import Dataset
from videodit_data.storage.records import RecordSource, even_ranges, shard_name, write_shard
from videodit_data.storage.shard_check import ChangedShard, ShardCheck
from videodit_data.storage.whole_file import check_creatable, replace_whole
from videodit_data.tokenizer import clean_caption

from videodit.checkpoint.identity import vae_identity
from videodit.checkpoint.restore import load_vae
from videodit.inference.directory_lock import hold_in_main_process
from videodit.inference.encode.clip_crops import CropConfig, select_crops
from videodit.inference.encode.embeddings import CaptionEncoder, TextSource
from videodit.inference.encode.latents import LatentEncoder
from videodit.inference.encode.shard_notes import ShardNotes
from videodit.inference.encode.work_sharing import share_work
from videodit.parallel.distributed import barrier, broadcast_from_main, is_main_process, on_main_process
from videodit.provenance import JSON

WriteShard = Callable[[Path], None]
T = TypeVar("T")


def encode_dataset(
    dataset: str | Path,
    out: Path,
    *,
    vae: Path | None = None,
    text: TextSource | None = None,
    crops: CropConfig | None = None,
    dtype: str = "bfloat16",
    progress: manifest.Progress | None = None,
) -> manifest.Manifest:
    """Write the latents of a data set's clips, the embeddings of their captions, or both; resumes where it stopped.

    Args:
        vae: workdir of the autoencoder; None copies the clips, whether they are videos or latents.
        text: the text encoder; None encodes no captions, but copies the embeddings that the data set has.
        crops: the parts of every clip that are encoded.
        dtype: the type that is stored, bfloat16 or float16.

    Raises:
        ValueError: if the data set or an encoder does not exist, options do not fit together, `out` is something
            else or is written by another run, or a shard of the data set has changed since it was written.
    """
    if vae is None and (text is None or crops not in (None, CropConfig())):
        raise ValueError("pass an autoencoder, a text encoder or both: buckets and crops need an autoencoder")
    data = open_dataset(dataset)
    if vae is not None and data.manifest.content == "latent":
        raise ValueError(f"{dataset} holds latents already: an autoencoder encodes videos")
    on_main_process(lambda: out.exists() or check_creatable(out))
    try:
        with ShardCheck([data], jax.process_index(), jax.process_count()) as check:
            return _encode(data, out, vae, text, crops or CropConfig(), dtype, check, progress)
    except ChangedShard:
        manifest.distrust(out)
        raise


def _encode(
    data: Dataset,
    out: Path,
    vae: Path | None,
    text: TextSource | None,
    crops: CropConfig,
    dtype: str,
    check: ShardCheck,
    progress: manifest.Progress | None,
) -> manifest.Manifest:
    """Encode a data set while its shards are checked."""

    def report(stage: str, done: int, total: int) -> None:
        check.poll()
        if progress is not None:
            progress(stage, done, total)

    captions = None if text is None else text.open()
    if vae is None:
        clips = ClipShards(_copy_shards(data, data.manifest.shards), {}, [])
    else:
        clips = _encode_clips(data, vae, crops, dtype, report)
    info = _build_info(data.manifest, captions, dtype, clips.info)
    finished = manifest.already_built(out, info)
    barrier("looked for a finished data set")  # before another process creates it
    if finished is not None:
        return finished
    with hold_in_main_process(manifest.lock(out)):
        if broadcast_from_main([is_main_process() and manifest.already_built(out, info) is not None])[0]:
            return manifest.load(out)  # written by another run, in the meantime
        on_main_process(lambda: manifest.start(out, info))
        notes = ShardNotes(manifest.partial_directory(out), info)
        shards = notes.write(clips.write, functools.partial(_describe_shard, captions is not None), ShardDescription)
        if captions is None:
            texts = _copy_texts(notes, data)
        else:
            texts = _encode_captions(notes, (shard.captions for shard in shards), captions, dtype, report)
        check.check_rest()
        described = [shard.described for shard in shards]
        dropped = [*data.manifest.left_out, *clips.dropped]
        barrier("read the notes of all shards")  # before they are removed
        on_main_process(lambda: manifest.finish(out, described, info=info, left_out=dropped, texts=texts))
        return manifest.load(out)


def _build_info(
    source: manifest.Manifest, captions: CaptionEncoder | None, dtype: str, clip_info: dict[str, JSON]
) -> dict[str, JSON]:
    """Return what the manifest records of the encoding."""
    info = {
        "encoded": {"shards": [shard.sha256 for shard in source.shards], "info": source.info},
        "vae": source.info.get("vae"),
        "text": source.info.get("text") if captions is None else captions.identity,
        "stored": dtype,
        "world": source.info.get("world"),
    }
    return json.loads(json.dumps(info | clip_info))


class ClipShards(NamedTuple):
    """The shards of clips of an encoded data set.

    Attributes:
        write: functions that write them, by name.
        info: what the manifest records of them.
        dropped: the clips that are in no shard.
    """

    write: dict[str, WriteShard]
    info: dict[str, JSON]
    dropped: list[manifest.LeftOut]


def _copy_shards(data: Dataset, shards: Iterable[manifest.Shard | manifest.TextShard]) -> dict[str, WriteShard]:
    """Return functions that copy shards of a data set, by hard links on the same file system.

    Raises:
        ValueError: if the data set has no shards.
    """
    if format_name(data.path):
        raise ValueError(f"{data.path} has no shards to copy: pass an autoencoder to encode its clips")

    def copy(shard: str, path: Path) -> None:
        source = Path(data.path) / shard
        with replace_whole(path) as partial:
            partial.unlink(missing_ok=True)
            try:
                os.link(source.resolve(), partial)
            except OSError:
                shutil.copyfile(source, partial)

    return {shard.name: functools.partial(copy, shard.name) for shard in shards}


def _encode_clips(
    data: Dataset, vae_dir: Path, config: CropConfig, dtype: str, progress: manifest.Progress
) -> ClipShards:
    """Return the shards of latents."""
    vae, run, step = load_vae(vae_dir)
    fps = config.choose_fps(run)
    crops, dropped = select_crops(data, run, config, vae_dir)
    encoder = LatentEncoder(vae, fps, dtype)

    def write(part: range, path: Path) -> None:
        records = encoder(data.records, crops[part.start : part.stop])
        write_shard(path, _report(records, part, len(crops), "clips", progress))

    # As many records per shard as the source has, however many crops a clip has.
    count = -(-len(data.manifest.shards) * len(crops) // data.manifest.clips)
    parts = even_ranges(len(crops), count)
    size = None if config.buckets else f"{run.data.frames} x {run.data.height} x {run.data.width}"
    return ClipShards(
        write={shard_name("latents", i, len(parts)): functools.partial(write, part) for i, part in enumerate(parts)},
        info={"vae": vae_identity(vae_dir, vae, step), "shape": config.to_json() | {"fps": fps, "one": size}},
        dropped=[
            manifest.LeftOut(data.records[index].id, f"{reason} for the buckets") for index, reason in dropped.items()
        ],
    )


def _copy_texts(notes: ShardNotes, data: Dataset) -> Sequence[manifest.TextShard]:
    """Copy the embeddings that a data set has."""
    copies = _copy_shards(data, data.manifest.texts) if data.manifest.texts else {}
    paths = {name: notes.partial / name for name in copies}
    share_work(list(copies), lambda name: paths[name].exists(), lambda name: copies[name](paths[name]))
    return data.manifest.texts


@dataclass(frozen=True)
class ShardDescription:
    """What the manifest records of a shard of clips, and its distinct captions."""

    described: manifest.Described
    captions: tuple[str, ...]


def _describe_shard(with_captions: bool, path: Path) -> ShardDescription:
    """Return the description of a shard, with captions if wanted, read while the file is in memory."""
    records = RecordSource([path]) if with_captions else []
    captions = sorted({clean_caption(caption) for record in records for caption in record.captions})
    return ShardDescription(manifest.describe(path), tuple(captions))


def _encode_captions(
    notes: ShardNotes,
    captions_of_shards: Iterable[Sequence[str]],
    encoder: CaptionEncoder,
    dtype: str,
    progress: manifest.Progress,
) -> list[manifest.TextShard]:
    """Write the shards of embeddings, with each distinct caption once."""
    keys = embeddings.Keys(encoder.identity)
    captions = embeddings.distinct_captions(itertools.chain.from_iterable(captions_of_shards), keys)

    def write(part: range, path: Path) -> None:
        chunk = captions[part.start : part.stop]
        encoded = _report(encoder(chunk), part, len(captions), "captions", progress)
        embeddings.write(path, chunk, encoded, keys, dtype)

    shards = {name: functools.partial(write, part) for name, part in embeddings.shards_of(captions).items()}
    return notes.write(shards, embeddings.describe, manifest.TextShard)


def _report(items: Iterable[T], part: range, total: int, what: str, progress: manifest.Progress) -> Iterator[T]:
    """Yield items and report each to a progress bar."""
    for done, item in enumerate(items, part.start + 1):
        yield item
        progress(what, done, total)
