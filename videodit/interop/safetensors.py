"""Safetensors files, single or sharded with an index: checked when opened, read per tensor, written as a stream.

The format is eight bytes of length, a JSON header, and the bytes of the tensors (github.com/huggingface/safetensors).
The library of that name cannot read bfloat16, the type of most weights, into numpy.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from videodit.config.json_file import parse_object, read_json
from videodit.config.schema import json_spelling, parse_as, printable, shorten
from videodit.provenance import JSON
from videodit.ranges import Range, check_ranges

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "BOOL": np.dtype(np.bool_),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER = 100_000_000  # bytes, the library's limit
INDEX = ".safetensors.index.json"


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file: its type and shape, and the offset of its first byte."""

    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    def read(self) -> Shaped[np.ndarray, "..."]:
        """Return the tensor, memory-mapped: only the elements that are used are read."""
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.dtype)
        return np.memmap(self.file, self.dtype, "r", self.offset, self.shape)


class Weights(Mapping[str, Tensor]):
    """The tensors of a file, or of all files that an index lists, by name.

    Args:
        path: a .safetensors file, an index (.safetensors.index.json), or a folder with exactly one of them.

    Raises:
        ValueError: if there is no such file or more than one, a file is missing, truncated or of another format, a
            type is unknown, or an index and its files disagree. Only headers have been read then.
    """

    def __init__(self, path: Path):
        index = _find(path)
        if index.name.endswith(INDEX):
            self.files, self._tensors = _read_index(index)
        else:
            self.files, self._tensors = (index,), read_header(index)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def sha256(self) -> dict[str, str]:
        """Return the digest of each file, by name."""
        return {file.name: sha256(file) for file in self.files}


def sha256(file: Path) -> str:
    """Return the hexadecimal SHA-256 digest of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"there is no file or folder {path}")
    for pattern in (f"*{INDEX}", "*.safetensors"):
        files = sorted(path.glob(pattern))
        if len(files) == 1:
            return files[0]
        if files:
            names = ", ".join(file.name for file in files)
            raise ValueError(f"{path} has {len(files)} files {pattern} ({names}): name the one to open")
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in (".pth", ".pt", ".bin", ".ckpt"))
    hint = f"; {', '.join(pickles)} may run code when opened: convert to safetensors" if pickles else ""
    raise ValueError(f"{path} has no .safetensors file and no index of any{hint}")


@dataclass(frozen=True)
class _Index:
    """An index: the name of the file that each tensor is in."""

    weight_map: Mapping[str, str]

    def __post_init__(self):
        for tensor, file in self.weight_map.items():
            if file in ("", "..") or Path(file).name != file:
                raise ValueError(
                    f"weight_map.{printable(tensor)} is {shorten(file)}: it must be a file in the index's folder"
                )


def _read_index(index: Path) -> tuple[tuple[Path, ...], dict[str, Tensor]]:
    try:
        weight_map = read_json(index, _Index, ignore_unknown=True).weight_map
    except ValueError as error:
        raise ValueError(f"{error}; an index of safetensors needs a 'weight_map' of name to file") from error
    files = tuple(index.parent / name for name in sorted(set(weight_map.values())))
    if missing := [file.name for file in files if not file.is_file()]:
        raise ValueError(
            f"{index.name} lists {len(files)} files, of which {len(missing)} are missing: {enumerate_names(missing)}"
        )
    tensors: dict[str, Tensor] = {}
    for file in files:
        in_file = read_header(file)
        different = sorted(in_file.keys() ^ {name for name, shard in weight_map.items() if shard == file.name})
        if different:
            raise ValueError(
                f"{index.name} and {file.name} disagree on the tensors of the file: {enumerate_names(different)}"
            )
        tensors |= in_file
    return files, tensors


def read_header(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name; raises as `Weights`."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 2 <= length <= MAX_HEADER:
            raise ValueError(f"{file} is not a safetensors file: it does not start with the length of a header")
        if 8 + length > size:
            raise ValueError(f"{file} is truncated: its header should end at byte {8 + length}, the file at {size}")
        header = stream.read(length)
    try:
        entries = _parse_header(header)
    except ValueError as error:
        raise ValueError(f"{file} is not a safetensors file: its header is invalid: {error}") from error
    start = end = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        first, last = (start + offset for offset in entry.data_offsets)
        if first != end:
            fault = "leaves a gap" if first > end else "overlaps another tensor"
            raise ValueError(f"{printable(name)} of {file} {fault}: it starts at byte {first} rather than {end}")
        if last > size:
            raise ValueError(
                f"{file} is truncated: {printable(name)} should end at byte {last}, the file ends at {size}"
            )
        end = last
    if end != size:
        raise ValueError(f"{file} ends at byte {size}, its last tensor at {end}: the rest belongs to none")
    return {
        name: Tensor(file, DTYPES[entry.dtype], entry.shape, start + entry.data_offsets[0])
        for name, entry in entries.items()
    }


@dataclass(frozen=True)
class _Entry:
    """A tensor in a header; offsets of its first byte and of the byte after its last, from the end of the header."""

    dtype: str
    shape: tuple[Annotated[int, Range(0, 2**48)], ...]
    data_offsets: tuple[Annotated[int, Range(0, 2**60)], Annotated[int, Range(0, 2**60)]]

    def __post_init__(self):
        check_ranges(self)
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {shorten(self.dtype)}: supported types are {', '.join(DTYPES)}")
        first, last = self.data_offsets
        if last - first != math.prod(self.shape) * DTYPES[self.dtype].itemsize:
            raise ValueError(
                f"data_offsets make {last - first} bytes, which is not the size of {self.dtype} of {list(self.shape)}"
            )


def _parse_header(header: bytes) -> dict[str, _Entry]:
    tree = parse_object(header)
    tree.pop("__metadata__", None)
    with json_spelling():
        return parse_as(Mapping[str, _Entry], tree)


@dataclass(frozen=True)
class Output:
    """A tensor to write; `compute` returns its value when it is written."""

    dtype: np.dtype
    shape: tuple[int, ...]
    compute: Callable[[], Shaped[np.ndarray, "..."]]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write(
    folder: Path,
    stem: str,
    tensors: Mapping[str, Output],
    *,
    metadata: Mapping[str, str] | None = None,
    shard_bytes: int = 10 * 10**9,
) -> list[Path]:
    """Write `folder/stem.safetensors`, or shards of at most `shard_bytes` and their index, tensor by tensor.

    Files are renamed to their final names when they are complete. Tensors are written in order.

    Returns:
        The files, the index last.
    """
    shards: list[dict[str, Output]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(t.nbytes for t in shards[-1].values()) + tensor.nbytes > shard_bytes:
            shards.append({})
        shards[-1][name] = tensor
    count = len(shards)
    names = [f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    names = [f"{stem}.safetensors"] if count == 1 else names
    for name, shard in zip(names, shards, strict=True):
        _write_file(folder / name, shard, metadata or {})
    files = [folder / name for name in names]
    if count > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        index = folder / f"{stem}{INDEX}"
        index.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n")
        files.append(index)
    return files


def _write_file(file: Path, tensors: Mapping[str, Output], metadata: Mapping[str, str]) -> None:
    header: dict[str, JSON] = {"__metadata__": {"format": "pt", **metadata}}
    end = 0
    for name, tensor in tensors.items():
        span = [end, end := end + tensor.nbytes]
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": span}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # aligned, as the library does
    partial = file.with_name(file.name + ".part")
    with partial.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            value = np.asarray(tensor.compute(), order="C")
            assert value.shape == tensor.shape and value.dtype == tensor.dtype
            stream.write(value.reshape(-1).view(np.uint8).data)
    os.replace(partial, file)


def enumerate_names(names: Sequence[str], limit: int = 6) -> str:
    """Return the first names of a list in words, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(printable, names[:limit])) + more
