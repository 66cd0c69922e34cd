"""One clip as one record: a msgpack map in an ArrayRecord shard. No pickle anywhere."""

import contextlib
import dataclasses
import hashlib
import marshal
import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import ml_dtypes
import msgpack
import msgspec
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter
from jaxtyping import Float, Shaped, UInt8

from videodit_data.boundary.typed_json import Rate, Size, Text, each_key_once, explain, like
from videodit_data.storage.whole_file import replace_whole

_OPTIONS = "group_size:1,uncompressed"  # every record readable alone; videos are compressed, latents hardly can be
_LARGEST = {"float16": 65504.0, "bfloat16": 3.3895e38}
_TYPES = {"float16": np.dtype("<f2"), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

FloatType = Annotated[str, like(r"^(float16|bfloat16)\Z", '"float16" or "bfloat16"')]
_Hash = Annotated[str, like(r"^([0-9a-f]{64})?\Z", "the 64 digits of a sha256, or nothing")]

LatentArray = Shaped[np.ndarray, "t y x C"]  # float16 or bfloat16


class Latent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A VAE's mean and log-variance [t, y, x, C] as little-endian float16 or bfloat16."""

    mean: bytes
    logvar: bytes
    shape: tuple[Size, Size, Size, Size]
    dtype: FloatType

    def __post_init__(self) -> None:
        for name in ("mean", "logvar"):
            check_floats(getattr(self, name), self.shape, self.dtype, name)

    def arrays(self) -> tuple[LatentArray, LatentArray]:
        """Return (mean, logvar) as they are stored: views, nothing is copied."""
        return tuple(unpack_floats(x, self.shape, self.dtype) for x in (self.mean, self.logvar))


@dataclass(frozen=True)
class Record:
    """A captioned clip. `height`, `width`, `frames` and `fps` describe the video, or the pixels that were encoded."""

    id: Text  # unique in its data set
    video: bytes  # the encoded file; empty once latents stand in for it
    captions: tuple[Text, ...]
    fps: Rate
    height: Size
    width: Size
    frames: Size
    source: Text  # where the clip comes from
    licence: Text
    sha256: _Hash  # of the encoded file
    truth: dict[str, object] | None = None  # plain numbers, strings, lists and maps: what is known to be in the clip
    latent: Latent | None = None
    pictures: Sequence[object] | UInt8[np.ndarray, "T Y X 3"] | None = (
        None  # uint8 [Y, X, 3] by number, where there is no file; not stored
    )
    caption_sources: tuple[str, ...] = ()  # what wrote each caption ("file", a model); empty when that is unknown
    window: dict[str, object] | None = (
        None  # what part of which clip was encoded (`clip_window.Window`), where it was one
    )

    def __post_init__(self) -> None:
        if not isinstance(self.video, bytes):  # a text would be opened as a path or an address
            raise ValueError(f"Record '{self.id}' has a video of type {type(self.video).__name__}, not bytes.")
        if not self.id or not self.captions or self.frames < 1 or not self.fps > 0:
            raise ValueError(
                f"Record '{self.id}' needs an id, a caption, frames and a positive rate; it has "
                f"{len(self.captions)} captions, {self.frames} frames, {self.fps} a second."
            )
        if self.caption_sources and len(self.caption_sources) != len(self.captions):
            raise ValueError(
                f"Record '{self.id}' has {len(self.captions)} captions and {len(self.caption_sources)} sources of "
                "captions; one each is due, or none."
            )

    @property
    def seconds(self) -> float:
        """Return the length of the clip in seconds."""
        return self.frames / self.fps

    def pack(self) -> bytes:
        """Pack the record as msgpack. ValueError when `truth` has other than plain values, or the video is no file."""
        if self.pictures is not None:
            raise ValueError(f"Record '{self.id}' is made of single pictures; encode them as a video to store it.")
        values = {name: value for name, value in vars(self).items() if name != "pictures"}
        try:
            return msgpack.packb(values | {"latent": self.latent and msgspec.structs.asdict(self.latent)})
        except TypeError as error:
            raise ValueError(
                f"Record '{self.id}' must hold only plain values and lists or maps of them: {error}."
            ) from error


_HINTS = get_type_hints(Record, include_extras=True)
# What is stored of a record: all but its pictures.
_Stored = msgspec.defstruct(
    "_Stored",
    [
        (f.name, _HINTS[f.name])
        if f.default is dataclasses.MISSING
        else (f.name, _HINTS[f.name] | msgspec.UnsetType, msgspec.UNSET)
        for f in dataclasses.fields(Record)
        if f.name != "pictures"
    ],
    forbid_unknown_fields=True,
)
_NO_RECORD = "Not a clip record of this format"
_DECODER = msgspec.msgpack.Decoder(_Stored)


def unpack(data: bytes) -> Record:
    """Invert `Record.pack`. ValueError when the bytes are no such record, of these types and within these bounds."""
    stored = decode_msgpack(data, _DECODER, _NO_RECORD)
    fields = _Stored.__struct_fields__
    values = {name: value for name in fields if (value := getattr(stored, name)) is not msgspec.UNSET}
    try:
        if len(values) != _map_size(data):
            msgpack.unpackb(data, strict_map_key=False, object_pairs_hook=each_key_once)
        for name in ("truth", "window"):
            _check_plain(name, values.get(name))
        record = Record(**values)
        if not record.video and record.latent is None:
            raise ValueError("it holds neither a video nor latents")
        return record
    except ValueError as error:
        raise ValueError(f"{_NO_RECORD}: {error}".removesuffix(".") + ".") from error


def _check_plain(name: str, value: dict[str, object] | None) -> None:
    try:
        marshal.dumps(value)  # at the speed of C: it refuses all but plain values and lists or maps of them
    except ValueError as error:
        raise ValueError(f"{name} holds what is neither a plain value nor a list or map of them") from error


def _map_size(data: bytes) -> int:
    """Return the number of pairs of a msgpack map."""
    return data[0] & 15 if data[0] < 0x90 else int.from_bytes(data[1 : 3 if data[0] == 0xDE else 5], "big")


def decode_msgpack(data: bytes, decoder: msgspec.msgpack.Decoder, name: str) -> Any:
    """Decode msgpack by a typed decoder; `name` begins errors. ValueError says which field does not fit."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        value = None
        with contextlib.suppress(ValueError, RecursionError, TypeError):
            value = msgspec.msgpack.decode(data)
        raise ValueError(f"{name}: {explain(error, value)}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {error}.") from error


def from_video(
    id: str,
    video: bytes,
    captions: Sequence[str],
    *,
    fps: float,
    height: int,
    width: int,
    frames: int,
    source: str,
    licence: str,
    truth: dict[str, Any] | None = None,
    caption_sources: Sequence[str] = (),
) -> Record:
    """Return a record of an encoded video, with its hash taken."""
    return Record(
        id,
        video,
        tuple(captions),
        fps,
        height,
        width,
        frames,
        source,
        licence,
        sha256=hashlib.sha256(video).hexdigest(),
        truth=truth,
        caption_sources=tuple(caption_sources),
    )


def with_latent(
    record: Record,
    mean: Float[np.ndarray, "t y x C"],
    logvar: Float[np.ndarray, "t y x C"],
    *,
    fps: float,
    frames: int,
    height: int,
    width: int,
    dtype: str = "float16",
) -> Record:
    """Return the record with latents instead of its video; the keywords describe the pixels that the VAE encoded.

    `dtype` is how the latents are stored, "float16" or "bfloat16". ValueError when a value does not fit it.
    """
    packed = Latent(pack_floats(mean, dtype), pack_floats(logvar, dtype), mean.shape, dtype)
    pixel_facts = {"fps": fps, "frames": frames, "height": height, "width": width}
    return dataclasses.replace(record, video=b"", pictures=None, latent=packed, **pixel_facts)


def pack_floats(values: Shaped[np.ndarray, "*shape"], dtype: str, what: str = "Latents") -> bytes:
    """Pack numbers as little-endian float16 or bfloat16. ValueError when one is not finite or does not fit."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    if dtype not in _LARGEST:
        raise ValueError(f"{what} are stored as float16 or bfloat16, not {dtype}.")
    if not np.abs(values).max(initial=0) <= _LARGEST[dtype]:
        raise ValueError(f"{what} must be finite and fit {dtype}, whose largest number is {_LARGEST[dtype]:g}.")
    return values.astype(_TYPES[dtype]).tobytes()


def check_floats(data: bytes, shape: Sequence[int], dtype: str, name: str) -> None:
    """Check that packed numbers are as many as `shape` says. ValueError if not."""
    if dtype not in _TYPES or len(data) != 2 * math.prod(shape):
        expected = f"{2 * math.prod(shape)} bytes for {' x '.join(map(str, shape))} of {dtype}"
        raise ValueError(f"{name} has {len(data)} bytes; expected {expected}")


def unpack_floats(data: bytes, shape: Sequence[int], dtype: str) -> Shaped[np.ndarray, "..."]:
    """Invert `pack_floats`: a view, nothing is copied."""
    return np.frombuffer(data, _TYPES[dtype]).reshape(shape)


class RecordSource(Sequence[Record]):
    """Random access to the records of several shards, in order; safe to share between threads and to pickle."""

    def __init__(self, paths: Sequence[str | os.PathLike[str]]):
        """Open the shards. ValueError when a shard's index is damaged; other damage shows when it is read."""
        self._paths = [os.fspath(path) for path in paths]
        try:
            self._data = ArrayRecordDataSource(self._paths)
        except (RuntimeError, OSError, ValueError) as error:
            raise ValueError(self._damage_message(error, sys.maxsize)) from error

    def __len__(self) -> int:
        return len(self._data)

    def _damage_message(self, error: Exception, index: int) -> str:
        """Return what is wrong with the shard that cannot be opened, or else has the record of an index."""
        for path in self._paths:
            try:
                index -= len(ArrayRecordDataSource([path]))
            except (RuntimeError, OSError):
                break
            if index < 0:
                break
        reason = str(error).splitlines()[0]
        return f"{path}: a shard is damaged ({reason:.200}); build or copy the data set again."

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]
        data = self.packed(index)
        try:
            return unpack(data)
        except ValueError as error:
            raise ValueError(f"{self.name(index)}: {error}") from error

    def name(self, index: int) -> str:
        """Return a record's shard and its number there, for errors."""
        index %= len(self)
        for path in self._paths:
            if index < (length := len(ArrayRecordDataSource([path]))):
                return f"{path}, record {index}"
            index -= length
        raise IndexError(index)

    def packed(self, index: int) -> bytes:
        """Return the bytes of one record, for `unpack`. ValueError when they are damaged."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"Record {index} of {len(self)}.")
        try:
            return self._data[index % len(self)]
        except (RuntimeError, OSError, ValueError) as error:
            raise ValueError(self._damage_message(error, index % len(self))) from error


def shard_name(name: str, index: int, count: int) -> str:
    """Return the file name of one shard of several, `NAME-00000-of-00004.array_record`."""
    return f"{name}-{index:05d}-of-{count:05d}.array_record"


def even_ranges(total: int, parts: int) -> list[range]:
    """Divide `total` items into `parts` consecutive ranges whose lengths differ by at most one."""
    return [range(total * part // parts, total * (part + 1) // parts) for part in range(parts)]


def write_shard(path: Path, records: Iterable[Record]) -> None:
    """Write one shard atomically: under a temporary name, then renamed."""
    write_packed(path, (record.pack() for record in records))


def write_packed(path: Path, records: Iterable[bytes]) -> None:
    """Write one shard of packed records, as `write_shard`."""
    with replace_whole(path) as scratch:
        writer = ArrayRecordWriter(str(scratch), _OPTIONS)
        try:
            for record in records:
                writer.write(record)
        finally:
            writer.close()
