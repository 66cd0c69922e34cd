"""Safetensors files, one or several behind an index: checked when opened, read a tensor at a time, written as a stream.

The format is eight bytes of length, a JSON header, and the tensors' bytes one after the other
(github.com/huggingface/safetensors). The library of that name gives numpy no bfloat16, in which most weights come.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

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
MAX_HEADER = 100_000_000  # bytes, the library's own limit
INDEX = ".safetensors.index.json"


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: its file, type, shape, and its first byte in the file."""

    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    def read(self) -> np.ndarray:
        """The tensor, mapped into memory: only what is used of it is read."""
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.dtype)
        return np.memmap(self.file, self.dtype, "r", self.offset, self.shape)


class Weights(Mapping[str, Tensor]):
    """The tensors of a file, or of all files that an index lists, by name.

    Args:
        path: a .safetensors file, an index (.safetensors.index.json), or a folder that holds one of either.

    Raises:
        ValueError: when there is none or more than one, a file is missing, cut off or not of the format, a type is
            unknown, or an index and its files disagree. Nothing but headers has been read then.
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
        """The digest of each file, by name."""
        return {file.name: sha256(file) for file in self.files}


def sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"there is no file or folder {path}")
    for pattern in (f"*{INDEX}", "*.safetensors"):
        found = sorted(path.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found)
            raise ValueError(f"{path} holds {len(found)} of {pattern} ({names}): name the one to open")
    others = sorted(file.name for file in path.iterdir() if file.suffix in (".pth", ".pt", ".bin", ".ckpt"))
    pickled = f"; {', '.join(others)} may run code when opened: convert to safetensors" if others else ""
    raise ValueError(f"{path} holds no .safetensors file and no index of some{pickled}")


def _read_index(index: Path) -> tuple[tuple[Path, ...], dict[str, Tensor]]:
    try:
        listed = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index} is not an index of safetensors: it needs a 'weight_map' of name to file") from error
    files = tuple(index.parent / name for name in sorted(set(listed.values())))
    if missing := [file.name for file in files if not file.is_file()]:
        raise ValueError(f"{index.name} lists {len(files)} files, of which {len(missing)} are missing: {_few(missing)}")
    tensors: dict[str, Tensor] = {}
    for file in files:
        found = read_header(file)
        wrong = sorted(found.keys() ^ {name for name, where in listed.items() if where == file.name})
        if wrong:
            raise ValueError(f"{index.name} and {file.name} disagree about which tensors the file holds: {_few(wrong)}")
        tensors |= found
    return files, tensors


def read_header(file: Path) -> dict[str, Tensor]:
    """The tensors of one file; errors as for `Weights`."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 2 <= length <= MAX_HEADER:
            raise ValueError(f"{file} is not a safetensors file: it does not begin with the length of a header")
        if 8 + length > size:
            raise ValueError(f"{file} is cut off: its header should end at byte {8 + length}, the file at {size}")
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            entries = [
                (name, str(entry["dtype"]), tuple(map(int, entry["shape"])), *map(int, entry["data_offsets"]))
                for name, entry in header.items()
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is not a safetensors file: its header is not one") from error
    return {name: _tensor(file, size, 8 + length, name, *entry) for name, *entry in entries}


def _tensor(
    file: Path, size: int, start: int, name: str, kind: str, shape: tuple[int, ...], first: int, last: int
) -> Tensor:
    if kind not in DTYPES:
        raise ValueError(f"{name} of {file} has the type {kind}: what can be read is {', '.join(DTYPES)}")
    if start + last > size:
        raise ValueError(f"{file} is cut off: {name} should end at byte {start + last}, the file ends at {size}")
    dtype = DTYPES[kind]
    if first < 0 or last - first != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} of {file} has {last - first} bytes: {kind} of {list(shape)} does not fit them")
    return Tensor(file, dtype, shape, start + first)


@dataclass(frozen=True)
class Output:
    """A tensor to write: what it is, and a function that makes it when its turn comes."""

    dtype: np.dtype
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write(
    folder: Path,
    stem: str,
    tensors: Mapping[str, Output],
    *,
    metadata: Mapping[str, str] | None = None,
    shard_bytes: int = 10 * 10**9,
) -> list[Path]:
    """Writes `folder/stem.safetensors`, or shards of at most `shard_bytes` and their index, tensor by tensor.

    Files get their names when they are whole. The tensors' order is kept. Returns the files, the index last.
    """
    shards: list[dict[str, Output]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(t.nbytes for t in shards[-1].values()) + tensor.nbytes > shard_bytes:
            shards.append({})
        shards[-1][name] = tensor
    count = len(shards)
    names = [f"{stem}-{at:05d}-of-{count:05d}.safetensors" for at in range(1, count + 1)]
    names = [f"{stem}.safetensors"] if count == 1 else names
    for name, shard in zip(names, shards, strict=True):
        _write_file(folder / name, shard, metadata or {})
    files = [folder / name for name in names]
    if count > 1:
        total = sum(tensor.nbytes for tensor in tensors.values())
        listed = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        index = folder / f"{stem}{INDEX}"
        index.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": listed}, indent=2) + "\n")
        files.append(index)
    return files


def _write_file(file: Path, tensors: Mapping[str, Output], metadata: Mapping[str, str]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
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
            made = np.asarray(tensor.make(), order="C")
            assert made.shape == tensor.shape and made.dtype == tensor.dtype
            stream.write(made.reshape(-1).view(np.uint8).data)
    os.replace(partial, file)


def _few(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
