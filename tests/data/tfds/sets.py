"""Small data sets written by TFDS's own tools, without TensorFlow."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def png(picture: np.ndarray) -> bytes:
    """Encode [Y, X, 3] or [Y, X, 1] as a PNG."""
    data = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(data, "png")
    return data.getvalue()


def video_feature(shape: Sequence[int | None]) -> tfds.features.Video:
    """Return a `tfds.features.Video` without its `__init__` and export, which need TensorFlow; the rest is TFDS's."""
    feature = object.__new__(tfds.features.Video)
    feature._encoding_format, feature._extra_ffmpeg_args = "png", []
    image = tfds.features.Image(shape=tuple(shape[1:]), encoding_format="png")
    tfds.features.Sequence.__init__(feature, image, length=shape[0])
    vars(feature)["dtype"] = np.uint8
    return feature


def write(
    root: Path,
    features: Mapping[str, Any],
    splits: Mapping[str, Sequence[Any]],
    *,
    name: str = "made",
    licence: str | None = None,
    file_format: str = "array_record",
) -> Path:
    """Write a data set with TFDS below `root`, in the given order; returns its directory."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            described = tfds.features.FeaturesDict(dict(features))
            return tfds.core.DatasetInfo(builder=self, features=described, license=licence, disable_shuffling=True)

        def _split_generators(self, downloads: Any) -> dict[str, Any]:
            return {split: self._generate_examples(examples) for split, examples in splits.items()}

        def _generate_examples(self, examples: Sequence[Any]) -> Any:
            yield from enumerate(examples)

    # A module name of one part: TFDS looks for the code of others, with a package that it lacks.
    Builder.name = Builder.__module__ = name
    builder = Builder(data_dir=str(root), file_format=file_format)
    builder.download_and_prepare()
    return Path(builder.data_dir)
