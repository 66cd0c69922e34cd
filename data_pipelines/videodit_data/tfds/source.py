"""Video data sets of TensorFlow Datasets as sources of the loader, without TensorFlow.

    tfds:NAME_OR_DIRECTORY/SPLIT?fps=25&caption=label&template=a video of {label}

They must be prepared as array_record: `builder.download_and_prepare(file_format="array_record")`. The frames go to the
batch as TFDS stores them; only those that are served are decoded, with Pillow, so that the same files give the same
bytes everywhere. The size of every clip, which is needed before any is served, comes from reading the split once, and
is stored (`index`).
"""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from videodit_data.storage.dataset import Dataset
from videodit_data.storage.manifest import LeftOut, Manifest, Origin, Progress, Shard, versions
from videodit_data.storage.records import Record
from videodit_data.tfds import fields as tfds_fields
from videodit_data.tfds.fields import ServedFields
from videodit_data.tfds.index import Index, read_or_scan
from videodit_data.tfds.paths import DatasetFiles, TfdsOptions, find_directory, parse
from videodit_data.tfds.reader import Reader


def open_tfds(path: str, *, progress: Progress | None = None) -> Dataset:
    """Open a split of a TFDS data set like one of ours, with a manifest derived from its index.

    A shard's hash is over its bytes, the rows that the split takes, and all options that decide what is served.
    ValueError when it is not there, not prepared as array_record, or the options do not fit it.
    """
    location, split, options = parse(path)
    directory = find_directory(location, options)
    dataset_files = DatasetFiles.read(directory, split, path)
    try:
        fields = tfds_fields.fields(dataset_files.features)
        served_fields = tfds_fields.choose(fields, options.video, options.caption, options.id)
        if (
            options.template
            and served_fields.captions
            and all(field.kind != "label" for field in served_fields.captions)
        ):
            raise ValueError("the template is for labels, and its captions are texts")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    read = Reader(dataset_files.parts, dataset_files.features, str(directory), served_fields, options)
    key = {"features": dataset_files.features, "options": [options.video, options.caption, options.id]}
    key["labels"] = dataset_files.labels
    folder = Path(options.index).expanduser() if options.index else directory
    index = read_or_scan(folder, dataset_files.parts, key, read.facts, progress=progress)
    if all(isinstance(entry.result, str) for entry in index.entries):
        raise ValueError(f"{path}: no clip can be used; the first: {index.entries[0].result}.")
    manifest = _manifest(dataset_files, index, served_fields, options, split)
    indices = np.array([n for n, entry in enumerate(index.entries) if not isinstance(entry.result, str)], np.int64)
    log = logging.getLogger(__name__)
    for reason, count in Counter(item.reason for item in manifest.left_out).items():
        log.warning("%s: %d of %d clips are not served: %s.", path, count, len(index.entries), reason)
    if not served_fields.captions and not options.template:
        log.warning("%s: has neither texts nor labels; its clips are served with an empty caption.", path)
    hashes = {part.file: digest for part, digest in zip(dataset_files.parts, index.hashes, strict=True)}
    return Dataset(path, manifest, TfdsRecords(read, indices, manifest), hashes)


class TfdsRecords(Sequence[Record]):
    """The clips of a split by number, as records whose videos are pictures; to share between threads and to pickle."""

    def __init__(self, read: Reader, indices: Int64[np.ndarray, " N"], described: Manifest):
        self._read, self._indices, self._origin = read, indices, described.origins[0]
        shards = described.shards
        self._sizes = [size for s in shards for size in zip(s.frames, s.heights, s.widths, strict=True)]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, number: int) -> Record:  # type: ignore[override]
        if not -len(self) <= number < len(self):
            raise IndexError(f"Record {number} of {len(self)}.")
        index = int(self._indices[number])
        data, example = self._read.example(index)
        id, (frames, height, width) = self._read.id(index, example), self._sizes[number]
        return Record(
            id=id,
            video=b"",
            captions=self._read.captions(example),
            fps=self._read.options.fps,
            height=height,
            width=width,
            frames=frames,
            source=self._origin.source,
            licence=self._origin.licence,
            sha256=hashlib.sha256(data).hexdigest(),
            pictures=self._read.pictures(id, example),
        )


def _manifest(
    dataset_files: DatasetFiles, index: Index, served_fields: ServedFields, options: TfdsOptions, split: str
) -> Manifest:
    entries, hashes = index.entries, index.hashes
    captions, id = [field.name for field in served_fields.captions], served_fields.id and served_fields.id.name
    served_info = {"video": served_fields.video.name, "captions": captions, "id": id, "template": options.template}
    served_info["fps"] = options.fps
    shards, start = [], 0
    for part, digest in zip(dataset_files.parts, hashes, strict=True):
        sizes = [e.result for e in entries[start : start + part.take] if not isinstance(e.result, str)]
        start += part.take
        if not sizes:
            continue
        identity = json.dumps([digest, part.skip, part.take, served_info, dataset_files.labels], sort_keys=True)
        frames, heights, widths = zip(*sizes, strict=True)
        shards.append(
            Shard(
                name=Path(part.file).name,
                sha256=hashlib.sha256(identity.encode()).hexdigest(),
                bytes=os.path.getsize(part.file),
                frames=frames,
                fps=(options.fps,) * len(sizes),
                heights=heights,
                widths=widths,
            )
        )
    clips = sum(len(shard.frames) for shard in shards)
    licence = dataset_files.licence or options.licence or "unknown"
    origin = Origin(f"tensorflow_datasets {dataset_files.name}", licence, clips)
    left_out = [LeftOut(entry.id, entry.result) for entry in entries if isinstance(entry.result, str)]
    files = {Path(part.file).name: digest for part, digest in zip(dataset_files.parts, hashes, strict=True)}
    info = {"made_by": "tensorflow_datasets", "name": dataset_files.name, "split": split}
    info |= {"served": served_info, "files": files}
    return Manifest("video", tuple(shards), (origin,), tuple(left_out), json.loads(json.dumps(info)), versions())
