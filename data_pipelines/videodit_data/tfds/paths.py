"""Paths that name TFDS data sets, and the contents of their files: locations of examples, and features.

tfds:NAME_OR_DIRECTORY/SPLIT?fps=25&caption=label&template=a video of {label}
"""

import difflib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from array_record.python.array_record_data_source import ArrayRecordDataSource

from videodit_data.boundary.typed_json import convert, parse_json, shorten
from videodit_data.tfds.index import Part

PREFIX = "tfds:"
INFO = "dataset_info.json"


@dataclass(frozen=True)
class TfdsOptions:
    """The options after the question mark; a comma in them is %2C where several data sets are named at once.

    Attributes:
        fps: frames a second of the videos; TFDS stores none.
        video: the feature that is the video. caption: those that are captions, with + between them: texts, or a label.
            id: one that names clips. Each may be left out where the choice is clear, id always.
        template: the caption of a label: {label} in words, {name} as it is written. Without texts and labels, the
            caption of every clip.
        licence: where TFDS has none. data_dir: the folder of named data sets, ~/tensorflow_datasets if not given.
        index: a folder for the index; that of the data set if not given.
    """

    fps: float
    video: str = ""
    caption: tuple[str, ...] = ()
    id: str = ""
    template: str = ""
    licence: str = ""
    data_dir: str = ""
    index: str = ""


def parse(path: str) -> tuple[str, str, TfdsOptions]:
    """Parse a path to (name or directory, split, options). ValueError says what is missing or unknown."""
    where, _, query = path.removeprefix(PREFIX).partition("?")
    location, _, split = where.rpartition("/")
    if not location or not split:
        raise ValueError(f"'{path}' names no split: TFDS data sets are named like tfds:ucf101/train?fps=25.")
    values = dict(parse_qsl(query, keep_blank_values=True))
    names = [field.name for field in fields(TfdsOptions)]
    for name in values:
        if name not in names:
            matches = difflib.get_close_matches(name, names, 1)
            hint = f"; is {matches[0]} meant?" if matches else ""
            raise ValueError(f"'{path}': {name} is no option, those are {', '.join(names)}{hint}")
    if "fps" not in values:
        raise ValueError(f"'{path}': TFDS stores no frame rate; say how many frames a second the videos have: ?fps=25.")
    rate = values.pop("fps")
    try:
        fps = float(rate)
    except ValueError:
        fps = math.nan
    if not 0 < fps < math.inf:
        raise ValueError(f"'{path}': fps is frames a second, a number above 0 like ?fps=25, not '{rate}'.")
    options = TfdsOptions(fps, caption=tuple(values.pop("caption", "").split()), **values)
    try:
        options.template.format(label="", name="")
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(f"'{path}': the template may hold {{label}} and {{name}}, nothing else in braces.") from error
    return location, split, options


@dataclass(frozen=True)
class DatasetFiles:
    """The description of a data set in TFDS's files: name, licence, features, and the files of a split's examples."""

    name: str
    licence: str
    features: Mapping[str, object]
    labels: Mapping[str, str]
    parts: tuple[Part, ...]

    @classmethod
    def read(cls, directory: Path, split: str, path: str) -> "DatasetFiles":
        tfds = tensorflow_datasets()
        features, described = (read_description(directory / name) for name in ("features.json", INFO))
        if str(features.get("pythonClassName")).startswith("videodit_data."):
            raise ValueError(f"{path} is a data set of ours: name {_own(directory, described, split)} without 'tfds:'.")
        if "featuresDict" not in features:
            raise ValueError(f"{directory}: its features.json was written by TFDS 4.3 or older; prepare it again.")
        info = _parse_info(described, directory / INFO)
        if "array_record" not in (info.file_format, *info.alternative_file_formats):
            raise ValueError(
                f"{directory} is prepared as {info.file_format or 'tfrecord'}, which cannot be read at random: prepare "
                'it with builder.download_and_prepare(file_format="array_record").'
            )
        template = tfds.core.ShardedFileTemplate(
            data_dir=directory, dataset_name=info.name, filetype_suffix="array_record"
        )
        try:
            splits = tfds.core.SplitDict.from_proto(repeated_split_infos=info.splits, filename_template=template)
        except Exception as error:  # TFDS raises many kinds
            raise ValueError(f"{directory / INFO}: its splits cannot be read ({error!s:.200}).") from error
        try:
            instructions = splits[split].file_instructions
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}: no split '{split}'; there are {', '.join(sorted(splits))}.") from error
        parts = tuple(Part(str(each.filename), each.skip, each.take) for each in instructions)
        if not parts:
            raise ValueError(f"{path}: the split is empty.")
        for part in parts:
            _check_part(part, path)
        name = "/".join(filter(None, (info.name, info.config_name, info.version)))
        labels = {file.name: _read_text(file) for file in sorted(directory.glob("*.labels.txt"))}
        return cls(name, info.redistribution_info.license.strip(), features, labels, parts)


def read_description(file: Path) -> dict[str, Any]:
    """Read features.json or dataset_info.json. ValueError when it is no JSON object."""
    try:
        return parse_json(file.read_bytes(), dict[str, object], str(file))
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}): is {file.parent} a TFDS data set?") from error


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 (byte {error.start}).") from error


def _parse_info(described: Mapping[str, Any], file: Path) -> Any:
    """Return dataset_info.json as TFDS's message. ValueError when it is none."""
    from google.protobuf import json_format
    from tensorflow_datasets.core.proto import dataset_info_pb2

    try:
        return json_format.ParseDict(described, dataset_info_pb2.DatasetInfo(), ignore_unknown_fields=True)
    except Exception as error:  # protobuf raises many kinds
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is not the description of a TFDS data set ({reason:.200}).") from error


def _check_part(part: Part, path: str) -> None:
    """Check that a file has the examples that a split takes. ValueError if not."""
    file = part.file if part.file.isprintable() and len(part.file) < 500 else shorten(part.file)
    if not os.path.isfile(part.file):
        raise ValueError(f"{path}: {file} is missing.")
    try:
        length = len(ArrayRecordDataSource([part.file]))
    except (RuntimeError, OSError, ValueError) as error:
        raise ValueError(f"{path}: {file} is damaged ({str(error).splitlines()[0]:.200}).") from error
    if not 0 <= part.skip <= part.skip + part.take <= length:
        raise ValueError(
            f"{path}: {INFO} has examples {part.skip} to {part.skip + part.take} of {file}, which holds {length}."
        )


def read_splits(described: Mapping[str, Any], file: Path) -> dict[str, dict[str, Any]]:
    """Return the splits of a dataset_info.json by name. ValueError when they are no objects with names and paths."""
    splits = convert(described.get("splits", []), list[dict[str, object]], f"{file}, splits")
    for number, split in enumerate(splits):
        for key in ("name", "filepathTemplate"):
            if not isinstance(split.get(key, ""), str):
                raise ValueError(f"{file}: splits[{number}].{key} is {shorten(split[key])}; expected a text.")
    return {split.get("name", ""): split for split in splits}


def _own(directory: Path, described: Mapping[str, Any], split: str) -> str:
    """Return the directory of one of our data sets, which `export` may have described elsewhere."""
    splits = read_splits(described, directory / INFO)
    split_name = re.split(r"[\[+]", split)[0]
    if split_name not in splits:
        return "its directory"
    return os.path.normpath((directory.resolve() / splits[split_name].get("filepathTemplate", "")).parent)


def find_directory(location: str, options: TfdsOptions) -> Path:
    """Return the directory of a data set from a path or a name: NAME, NAME/CONFIG, NAME:VERSION."""
    root = Path(options.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    for directory in (Path(location).expanduser(), root / location.replace(":", "/")):
        if (directory / "features.json").is_file():
            return directory
        if versions := _versions_in(directory):
            return versions[-1]
        if configs := sorted(each.name for each in directory.glob("*") if _versions_in(each)):
            if len(configs) > 1:
                raise ValueError(
                    f"{directory} has the configurations {', '.join(configs)}: name one, {location}/CONFIG."
                )
            return _versions_in(directory / configs[0])[-1]
    raise ValueError(f"No TFDS data set at {location}, nor one of that name in {root}; data_dir= says where else.")


def _versions_in(directory: Path) -> list[Path]:
    """Return the directories of versions, ascending."""
    directories = [
        each.parent for each in directory.glob("*/features.json") if re.fullmatch(r"\d+\.\d+\.\d+", each.parent.name)
    ]
    return sorted(directories, key=lambda each: tuple(map(int, each.name.split("."))))


def tensorflow_datasets() -> Any:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ValueError("Data sets of TFDS need a further package: pip install 'videodit[tfds]'.") from error
    return tensorflow_datasets
