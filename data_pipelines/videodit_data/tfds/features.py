"""Features with which TensorFlow Datasets reads our records unchanged: `features.json` names the class `Clips`.

Nothing here needs TensorFlow. Import only where tensorflow_datasets is installed: `pip install 'videodit[tfds]'`.
"""

import functools
import json
from typing import Any

import ml_dtypes
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from videodit_data.storage.records import LatentArray, unpack
from videodit_data.video import decode


class EncodedVideo(tfds.features.FeatureConnector):
    """A video file, given as its frames; with `tfds.decode.SkipDecoding()` as its bytes."""

    def get_tensor_info(self) -> tfds.features.TensorInfo:
        """Return the tensor info of the frames, uint8 [T, Y, X, 3]."""
        return tfds.features.TensorInfo(shape=(None, None, None, 3), dtype=np.uint8)

    def get_serialized_info(self) -> tfds.features.TensorInfo:
        """Return the tensor info of the file's bytes."""
        return tfds.features.TensorInfo(shape=(), dtype=np.object_)

    def encode_example(self, data: bytes) -> bytes:
        """Return the file as it is."""
        return data

    def decode_example_np(self, data: bytes) -> UInt8[np.ndarray, "T Y X 3"]:
        """Return all frames. VideoError when the file is damaged."""
        return decode(data)


class StoredLatents(tfds.features.FeatureConnector):
    """Means or log-variances of a VAE, [t, y, x, C], in the type that they are stored in."""

    def __init__(self, dtype: str):
        super().__init__()
        self._dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)

    def get_tensor_info(self) -> tfds.features.TensorInfo:
        """Return the tensor info: float16 or bfloat16 of any size."""
        return tfds.features.TensorInfo(shape=(None, None, None, None), dtype=self._dtype)

    def encode_example(self, values: LatentArray) -> LatentArray:
        """Return the values as they are."""
        return values

    def decode_example_np(self, values: LatentArray) -> LatentArray:
        """Return the values as they are: a view of the record."""
        return values


class Clips(tfds.features.FeaturesDict):
    """The fields of a `Record` as TFDS has them: texts as bytes, `truth` as JSON (`null` where nothing is known).

    content: "video" or "latent", as in the manifest; dtype: of latents.
    """

    def __init__(self, content: str = "video", dtype: str = "float16"):
        texts = dict.fromkeys(("id", "source", "licence", "sha256", "truth"), tfds.features.Text())
        numbers = dict.fromkeys(("height", "width", "frames"), tfds.features.Scalar(np.int64))
        posterior = {"mean": StoredLatents(dtype), "logvar": StoredLatents(dtype)}
        payload = {"latent": posterior} if content == "latent" else {"video": EncodedVideo()}
        captions = tfds.features.Sequence(tfds.features.Text())
        super().__init__({**texts, **numbers, "fps": tfds.features.Scalar(np.float64), "captions": captions, **payload})
        self._content = {"content": content, "dtype": dtype}

    @classmethod
    def from_json_content(cls, value: dict[str, Any]) -> "Clips":
        """Invert `to_json_content`."""
        return cls(**value)

    def to_json_content(self) -> dict[str, Any]:
        """Return the arguments of `__init__`."""
        return dict(self._content)

    @functools.cached_property
    def _example_parser_np(self) -> "_Parser":
        return _Parser()


class _Parser:
    """A parser of packed records to the fields of `Clips`, not decoded yet; it replaces that of tf.train.Example."""

    def parse_example(self, packed: bytes | memoryview) -> dict[str, Any]:
        """Parse a packed record. ValueError when the bytes are no record."""
        record = unpack(bytes(packed))
        texts = {"id": record.id, "source": record.source, "licence": record.licence, "sha256": record.sha256}
        texts["truth"] = json.dumps(record.truth, ensure_ascii=False)
        numbers = {name: getattr(record, name) for name in ("height", "width", "frames", "fps")}
        if record.latent is None:
            payload = {"video": record.video}
        else:
            payload = {"latent": dict(zip(("mean", "logvar"), record.latent.arrays(), strict=True))}
        captions = [_utf8(caption) for caption in record.captions]
        return {name: _utf8(text) for name, text in texts.items()} | numbers | {"captions": captions} | payload


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
