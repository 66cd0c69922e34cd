"""Paths that name TFDS data sets, and the contents of their files: locations of examples, and features.

tfds:NAME_OR_DIRECTORY/SPLIT?fps=25&caption=label&template=a video of {label}
"""

import difflib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from videodit_data.tfds.index import Part

PREFIX = "tfds:"


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
        from google.protobuf import json_format
        from tensorflow_datasets.core.proto import dataset_info_pb2

        try:
            features = json.loads((directory / "features.json").read_text(encoding="utf-8"))
            described = json.loads((directory / "dataset_info.json").read_text(encoding="utf-8"))
            info = json_format.ParseDict(described, dataset_info_pb2.DatasetInfo(), ignore_unknown_fields=True)
        except (OSError, ValueError, json_format.ParseError) as error:
            raise ValueError(f"{directory} is not a TFDS data set that can be read: {error}.") from error
        if str(features.get("pythonClassName")).startswith("videodit_data."):
            raise ValueError(f"{path} is a data set of ours: name {_own(directory, described, split)} without 'tfds:'.")
        if "featuresDict" not in features:
            raise ValueError(f"{directory}: its features.json was written by TFDS 4.3 or older; prepare it again.")
        if "array_record" not in (info.file_format, *info.alternative_file_formats):
            raise ValueError(
                f"{directory} is prepared as {info.file_format or 'tfrecord'}, which cannot be read at random: prepare "
                'it with builder.download_and_prepare(file_format="array_record").'
            )
        template = tfds.core.ShardedFileTemplate(
            data_dir=directory, dataset_name=info.name, filetype_suffix="array_record"
        )
        splits = tfds.core.SplitDict.from_proto(repeated_split_infos=info.splits, filename_template=template)
        try:
            instructions = splits[split].file_instructions
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path}: no split '{split}'; there are {', '.join(sorted(splits))}.") from error
        parts = tuple(Part(str(each.filename), each.skip, each.take) for each in instructions)
        missing = [part.file for part in parts if not Path(part.file).is_file()]
        if missing or not parts:
            raise ValueError(f"{path}: {missing[0] + ' is missing' if missing else 'the split is empty'}.")
        name = "/".join(filter(None, (info.name, info.config_name, info.version)))
        labels = {file.name: file.read_text(encoding="utf-8") for file in sorted(directory.glob("*.labels.txt"))}
        return cls(name, info.redistribution_info.license.strip(), features, labels, parts)


def _own(directory: Path, described: Mapping[str, Any], split: str) -> str:
    """Return the directory of one of our data sets, which `export` may have described elsewhere."""
    splits = {each["name"]: each.get("filepathTemplate", "") for each in described.get("splits", [])}
    split_name = re.split(r"[\[+]", split)[0]
    if split_name not in splits:
        return "its directory"
    return os.path.normpath((directory.resolve() / splits[split_name]).parent)


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
