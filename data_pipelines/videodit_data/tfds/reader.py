"""Examples of a TFDS data set by number: captions, ids and pictures, which are decoded only when needed."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from jaxtyping import Int64, UInt8

from videodit_data import caption_files as texts
from videodit_data.tfds import fields as tfds_fields
from videodit_data.tfds.fields import ServedFields
from videodit_data.tfds.index import Entry, Part
from videodit_data.tfds.paths import TfdsOptions, tensorflow_datasets
from videodit_data.video import VideoError
from videodit_data.video.pictures import displayed_picture, displayed_size, opened_picture


@dataclass(frozen=True)
class Reader:
    """A reader of examples by their index in the split; safe to share between threads and to pickle."""

    parts: tuple[Part, ...]
    features: Mapping[str, object]
    directory: str
    served_fields: ServedFields
    options: TfdsOptions

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @functools.cached_property
    def _connector(self) -> Any:
        connector = tensorflow_datasets().features.FeatureConnector.from_json(
            tfds_fields.reduce_features(self.features, self.served_fields)
        )
        connector.load_metadata(self.directory, feature_name=None)  # names of labels
        return connector

    @functools.cached_property
    def _data(self) -> ArrayRecordDataSource:
        return ArrayRecordDataSource([part.file for part in self.parts])

    @functools.cached_property
    def _starts(self) -> tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]]:
        """Return for each part the index of its first example in the split, and in the concatenated files."""
        takes = np.cumsum([0, *(part.take for part in self.parts)])[:-1]
        lengths = [len(ArrayRecordDataSource([part.file])) for part in self.parts]
        files = np.cumsum([0, *lengths])[:-1] + [part.skip for part in self.parts]
        return takes.astype(np.int64), files.astype(np.int64)

    def name(self, index: int) -> str:
        """Return the name of an example without an id: its file and its row there."""
        part = int(np.searchsorted(self._starts[0], index, side="right")) - 1
        row = self.parts[part].skip + index - int(self._starts[0][part])
        return f"{Path(self.parts[part].file).name}:{row}"

    def example(self, index: int) -> tuple[bytes, Mapping[str, Any]]:
        """Return an example's bytes and its fields, images still encoded. ValueError when they are damaged."""
        part = int(np.searchsorted(self._starts[0], index, side="right")) - 1
        try:
            data = self._data[int(self._starts[1][part]) + index - int(self._starts[0][part])]
            return data, self._connector.deserialize_example_np(data)
        except Exception as error:  # protobuf and TFDS raise many kinds
            raise ValueError(f"{self.name(index)} cannot be read ({str(error).strip():.200})") from error

    def facts(self, index: int) -> Entry:
        """Return an example's id and size, or why it cannot be served."""
        id = self.name(index)
        try:
            _, example = self.example(index)
            id = self.id(index, example)
            self.captions(example)
            return Entry(id, _size(self.pictures(id, example)))
        except ValueError as error:
            return Entry(id, str(error).removeprefix(f"clip {id}: ").rstrip("."))

    def id(self, index: int, example: Mapping[str, Any]) -> str:
        """Return the id of a clip."""
        if self.served_fields.id is None:
            return self.name(index)
        value = tfds_fields.value(example, self.served_fields.id)
        cleaned = texts.clean([value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)])
        if not cleaned:
            raise ValueError("the id is empty")
        return cleaned[0]

    def captions(self, example: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the captions of a clip: texts, and labels in the template. ValueError when all of them are empty."""
        raw_texts: list[str] = []
        for field in self.served_fields.captions:
            value = tfds_fields.value(example, field)
            if field.kind == "label":
                raw_texts += self._label(field, int(value))
                continue
            for text in value if field.kind == "texts" else [value]:
                try:
                    raw_texts.append(text.decode("utf-8"))
                except UnicodeDecodeError:
                    raise ValueError("a caption is not UTF-8") from None
        if not self.served_fields.captions:
            return (self.options.template,)
        cleaned = texts.clean(raw_texts)
        if not cleaned:
            raise ValueError("no caption")
        return cleaned

    def _label(self, field: tfds_fields.Field, number: int) -> list[str]:
        if number < 0:  # TFDS's value for no label
            return []
        name = functools.reduce(lambda connector, key: connector[key], field.path, self._connector).int2str(number)
        return [(self.options.template or "a video of {label}").format(label=in_words(name), name=name)]

    def pictures(self, id: str, example: Mapping[str, Any]) -> Sequence[Any] | np.ndarray:
        """Return the pictures of a clip, uint8 [Y, X, 3] by number; images are decoded on access."""
        value = tfds_fields.value(example, self.served_fields.video)
        if self.served_fields.video.kind == "array":
            return np.broadcast_to(value, (*value.shape[:3], 3))  # grey as RGB
        return Pictures(id, [value] if self.served_fields.video.kind == "image" else list(value))


class Pictures(Sequence[Any]):
    """A sequence of encoded images, each decoded on access."""

    def __init__(self, id: str, encoded: Sequence[bytes]):
        self._id, self._encoded = id, encoded

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "Y X 3"]:  # type: ignore[override]
        try:
            with opened_picture(self._encoded[index]) as image:
                return np.asarray(displayed_picture(image))
        except ValueError as error:
            raise VideoError(f"clip {self._id}: picture {index} cannot be decoded ({error}).") from error

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Yield (height, width) of each image, from the headers alone."""
        for index, data in enumerate(self._encoded):
            try:
                with opened_picture(data) as image:
                    yield displayed_size(image)
            except VideoError as error:
                raise ValueError(f"picture {index} cannot be decoded ({error})") from error


def _size(pictures: Sequence[Any] | np.ndarray) -> tuple[int, int, int]:
    """Return (frames, height, width). ValueError when there are no frames, or their sizes differ."""
    sizes = {pictures.shape[1:3]} if isinstance(pictures, np.ndarray) else set(pictures.sizes())
    if not len(pictures) or len(sizes) != 1:
        raise ValueError("frames of different sizes" if sizes and len(pictures) else "no frames")
    return len(pictures), *sizes.pop()


def in_words(label: str) -> str:
    """Return a label's name in words: `ApplyEyeMakeup` and `apply_eye_makeup` become `apply eye makeup`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_+", " ", label).strip().lower()
