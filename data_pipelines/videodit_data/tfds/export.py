"""Export of data sets to TensorFlow Datasets: two small files next to the shards, which stay unchanged.

videodit data tfds DIR           tfds.builder_from_directory("DIR").as_data_source("train")
... --root ROOT --name toy       tfds.data_source("toy", split="train", data_dir="ROOT")
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videodit_data.storage import manifest
from videodit_data.storage.records import RecordSource, shard_name
from videodit_data.storage.whole_file import check_creatable
from videodit_data.tfds.paths import INFO, read_description, read_splits

VERSION = "1.0.0"
_INFO, _FEATURES = INFO, "features.json"
_CLASS = "videodit_data.tfds.features.Clips"  # in every data set written: keep the name


def export(
    directory: str | os.PathLike[str],
    *,
    name: str | None = None,
    split: str = "train",
    root: str | os.PathLike[str] | None = None,
) -> Path:
    """Describe the data set in `directory` to TFDS as one split; returns the directory that TFDS opens.

    That is `directory` itself, or with `root` ROOT/NAME/1.0.0, where data sets of one kind can be splits of one name.
    The name is made from that of the directory if not given. The same input leaves the same files. ValueError, before
    anything is written, when `directory` is not a data set of ours, another one is described there or is that split, or
    TFDS could not use the name, the split or the shards' names.
    """
    directory = Path(directory)
    described = manifest.load(directory)
    name = name or re.sub(r"[^a-z0-9]+", "_", directory.resolve().name.lower()).strip("_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(
            f"TFDS names data sets with small letters, digits and _, a letter first, not '{name}': set one."
        )
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", split) or split == "all":
        raise ValueError(f"A split is named by letters, digits and _, a letter first, and not 'all'; not '{split}'.")
    target = directory if root is None else Path(root) / name / VERSION
    features = _features(directory, described)
    others = _read_splits(target, features)  # a directory is one split, whatever its earlier name
    own_split = _split(directory, described, split, target)
    template = others.get(split, own_split).get("filepathTemplate", "")
    if root is not None and template != own_split["filepathTemplate"]:
        prefix = os.path.normpath(target.resolve() / template)
        raise ValueError(
            f"{target} has a split '{split}' of another data set, {os.path.dirname(prefix)}; choose another split or "
            f"name, or remove {_INFO} and {_FEATURES} there."
        )
    splits = (others if root is not None else {}) | {split: own_split}
    info = {
        "name": name,
        "version": VERSION,
        "fileFormat": "array_record",
        "moduleName": _CLASS.rpartition(".")[0],
        "description": "Captioned clips of a videodit data set; its manifest.json says where they come from.",
        "splits": [splits[key] for key in sorted(splits)],
    }
    if not target.is_dir():
        check_creatable(target)
    target.mkdir(parents=True, exist_ok=True)
    for file, value in ((_FEATURES, features), (_INFO, info)):
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        if not (target / file).is_file() or (target / file).read_text(encoding="utf-8") != text:
            check_creatable(target / file, is_file=True)
            manifest.write_whole(target / file, text)
    return target


def _features(directory: Path, described: manifest.Manifest) -> dict[str, Any]:
    """Return the contents of features.json, as `Clips.to_json_content` gives them."""
    content = {"content": described.content, "dtype": "float16"}
    if described.content == "latent":
        first = RecordSource([directory / described.shards[0].name])[0]
        content["dtype"] = first.latent.dtype
    return {"pythonClassName": _CLASS, "jsonFeature": {"json": json.dumps(content)}}


def _split(directory: Path, described: manifest.Manifest, split: str, target: Path) -> dict[str, Any]:
    """Return a split of dataset_info.json: its shards' paths relative to `target`, and their numbers of clips."""
    names = [shard.name for shard in described.shards]
    prefix = names[0].rpartition("-of-")[0].rpartition("-")[0]
    if names != [shard_name(prefix, number, len(names)) for number in range(len(names))]:
        raise ValueError(f"{directory}: TFDS finds shards named NAME-00000-of-00004.array_record, not {names[0]}.")
    below = Path(os.path.relpath(directory.resolve(), target.resolve()))
    template = (below / prefix).as_posix()
    if "{" in template or "}" in template:
        raise ValueError(f"TFDS finds no shards whose path has braces, as {template} has: rename or move them.")
    return {
        "name": split,
        "shardLengths": [str(len(shard.frames)) for shard in described.shards],
        "numBytes": str(described.bytes),
        "filepathTemplate": template + "-{SHARD_X_OF_Y}.{FILEFORMAT}",
    }


def _read_splits(target: Path, features: Mapping[str, Any]) -> dict[str, Any]:
    """Return the existing splits at `target`, by name. ValueError when their features differ."""
    files = {file: read_description(target / file) for file in (_FEATURES, _INFO) if (target / file).exists()}
    if files and files.get(_FEATURES) != features:
        raise ValueError(
            f"{target} already describes another TFDS data set; remove {_INFO} and {_FEATURES} there, or choose "
            "another name."
        )
    return read_splits(files.get(_INFO, {}), target / _INFO)
