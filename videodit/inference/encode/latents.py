"""Clips encoded once by a trained autoencoder: which parts of them, and how devices share the work."""

import functools
import itertools
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, UInt8
from videodit_data.reading.buckets import Bucket, Buckets, OneSize, TokenSize
from videodit_data.reading.clip_window import Window, choose_windows
from videodit_data.reading.sample import ClipShape, decode_window
from videodit_data.storage.dataset import Dataset
from videodit_data.storage.records import Record, with_latent
from videodit_data.thread_pool import ordered_map

from videodit.config.run import VAERun
from videodit.inference.generate import CHUNKED_PIXELS
from videodit.models.pixels import to_float
from videodit.models.vae import VAE
from videodit.parallel.mesh import MeshConfig, make_mesh

Pixels = UInt8[np.ndarray, "B T Y X 3"]

CLIPS_PER_DEVICE, PIXELS_PER_DEVICE = 4, 2**22  # at a time at most, or one clip; the same for any number of devices
AHEAD = 2  # batches decoded while one is coded
RUN = 256  # takes of which those of one shape go together: so many are held until they can be handed on in order


@dataclass(frozen=True)
class Shapes:
    """What is taken of every clip.

    buckets: fields of `Buckets`: the best of many shapes, or none where a clip fills none. None takes all at the size
        and rate that the VAE was trained at.
    every_resolution: in every resolution that a clip fills, not only the best.
    crops: different windows of a clip in each of these, if it has so many; the first is its beginning and centre.
    """

    buckets: Mapping[str, Any] | None = None
    every_resolution: bool = False
    crops: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return them as manifests hold them, by the names of the first release."""
        saved = {"resolutions": "sides", "max_upscale": "upsample"}
        buckets = self.buckets and {saved.get(name, name): value for name, value in self.buckets.items()}
        return {"buckets": buckets, "every_side": self.every_resolution, "crops": self.crops}

    def __post_init__(self) -> None:
        if self.crops < 1:
            raise ValueError(f"{self.crops} crops of a clip: it must be at least 1")
        if self.every_resolution and len((self.buckets or {}).get("resolutions", ())) < 2:
            raise ValueError("to encode clips at every resolution, name several resolutions")


@dataclass(frozen=True)
class Take:
    """A part of a clip that becomes a record: which clip, in what shape, and what it is called beside the clip."""

    number: int
    shape: Bucket
    window: Window
    name: str = ""


def takes(data: Dataset, run: VAERun, shapes: Shapes, vae_dir: Path) -> tuple[list[Take], dict[int, str]]:
    """What is taken of a data set, clip by clip, and why of some clips nothing is.

    Raises:
        ValueError: when a clip is too short for the one size, or no clip fits.
    """
    sizes = _one_size(data, run, vae_dir) if shapes.buckets is None else _buckets(data, run, shapes)
    fps = (shapes.buckets or {}).get("fps", run.data.fps)
    found, without = [], {}
    for number, (clip, size) in enumerate(zip(data.clips, sizes, strict=True)):
        if isinstance(size, str):
            without[number] = size
            continue
        for bucket in size:
            shape = bucket.frames, fps, bucket.height, bucket.width
            for crop, window in enumerate(choose_windows(clip, shape, shapes.crops, number)):
                name = f"/{bucket.width}x{bucket.height}" * shapes.every_resolution + f"/{crop}" * (shapes.crops > 1)
                found.append(Take(number, bucket, window, name))
    if not found:
        raise ValueError(f"{data.path}: none of its {len(sizes)} clips fits the buckets")
    return found, without


def _one_size(data: Dataset, run: VAERun, vae_dir: Path) -> list[list[Bucket]]:
    shape = OneSize(run.data.frames, run.data.height, run.data.width, run.data.fps)
    short = sum(isinstance(shape.choose(*clip), str) for clip in data.clips)
    if short:
        raise ValueError(
            f"{data.path}: {short} of its {data.manifest.clips} clips are shorter than {shape.frames} frames at "
            f"{shape.fps:g} a second, which is what {vae_dir} codes"
        )
    return [[shape.bucket]] * data.manifest.clips


def _buckets(data: Dataset, run: VAERun, shapes: Shapes) -> list[list[Bucket] | str]:
    """For every clip its shapes, or why it has none; sides are whole patches of two latents, as transformers have."""
    token = TokenSize(run.model.time_stride, 2 * run.model.space_stride)
    buckets = Buckets(**{"fps": run.data.fps, "token": token, "tokens": 2**62} | dict(shapes.buckets))
    each = [replace(buckets, resolutions=(n,)) for n in buckets.resolutions] if shapes.every_resolution else [buckets]

    @functools.cache
    def chosen(*clip: Any) -> list[Bucket] | str:
        best = buckets.choose(*clip)
        found = {bucket for some in each if isinstance(bucket := some.choose(*clip), Bucket)}
        return best if isinstance(best, str) else sorted(found)

    return [chosen(*clip) for clip in data.clips]


class LatentEncoder:
    """Codes clips a full batch of one shape at a time, so that one program a shape is compiled for all data sets.

    The clips of a batch are divided over all devices of this process; each has as many, whatever their number.
    """

    def __init__(self, vae: VAE, fps: float, dtype: str):
        self.fps, self._dtype = fps, dtype
        self._mesh = make_mesh(MeshConfig(), jax.local_devices())
        self._graphdef, state = nnx.split(vae)
        self._state = jax.device_put(state, NamedSharding(self._mesh, PartitionSpec()))

    def __call__(self, records: Sequence[Record], some: Sequence[Take]) -> Iterator[Record]:
        """A record with latents for each take, in order.

        While devices code a batch, further ones are decoded and the one before is handed on.
        """
        coded: dict[int, Record] = {}
        next_one = 0
        for numbers, taken, moments in self._one_behind(records, some):
            for n, record, mean, logvar in zip(numbers, taken, *jax.device_get(moments), strict=False):
                coded[n] = self._made(some[n], record, mean, logvar)
            while next_one in coded:
                yield coded.pop(next_one)
                next_one += 1

    def _one_behind(self, records: Sequence[Record], some: Sequence[Take]) -> Iterator[tuple[Any, ...]]:
        """Batches: places among the takes, their records without video, and moments that may still be computed."""
        order = sorted(range(len(some)), key=lambda n: (n // RUN, some[n].shape, n))
        batches = []
        for (_, shape), group in itertools.groupby(order, key=lambda n: (n // RUN, some[n].shape)):
            batches += [(shape, part) for part in _chunks(list(group), self._batch(shape))]
        videos: deque[Pixels] = deque()

        def rows() -> Iterator[tuple[Take, Pixels]]:
            for shape, numbers in batches:
                size = self._batch(shape), shape.frames, shape.height, shape.width, 3
                videos.append(np.zeros(size, np.uint8))
                yield from ((some[n], out) for n, out in zip(numbers, videos[-1], strict=False))

        ahead = AHEAD * max(len(numbers) for _, numbers in batches)
        decode = functools.partial(self._decode, records)
        decoded = ordered_map(lambda row: decode(*row), rows(), os.cpu_count() or 1, ahead=ahead)
        behind = None
        for _, numbers in batches:
            taken = list(itertools.islice(decoded, len(numbers)))
            coded = numbers, taken, self._encode(videos.popleft())
            if behind is not None:
                yield behind
            behind = coded
        if behind is not None:
            yield behind

    def _made(self, take: Take, record: Record, mean: np.ndarray, logvar: np.ndarray) -> Record:
        shape = take.shape
        size = {"fps": self.fps, "frames": shape.frames, "height": shape.height, "width": shape.width}
        window = {"of": record.id, **asdict(take.window)}
        made = with_latent(record, mean, logvar, **size, dtype=self._dtype)
        return replace(made, id=record.id + take.name, window=window)

    def _batch(self, shape: Bucket) -> int:
        """Clips of a batch."""
        fit = PIXELS_PER_DEVICE // (shape.frames * shape.height * shape.width)
        return max(1, min(CLIPS_PER_DEVICE, fit)) * self._mesh.size

    def _decode(self, records: Sequence[Record], take: Take, out: UInt8[np.ndarray, "T Y X 3"]) -> Record:
        """Writes the frames of a take; returns the record that they are of, without its video."""
        record = records[take.number]
        shape = ClipShape(take.shape.frames, take.shape.height, take.shape.width, self.fps)
        decode_window(record, shape, take.window, out)
        return replace(record, video=b"", pictures=None)

    def _encode(self, video: Pixels) -> PyTree:
        with jax.set_mesh(self._mesh):
            placed = jax.device_put(video, NamedSharding(self._mesh, PartitionSpec("data")))
            return _encode(self._graphdef, self._state, placed)


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (items[start : start + size] for start in range(0, len(items), size))


@functools.partial(jax.jit, static_argnums=0)
def _encode(graphdef: nnx.GraphDef, state: PyTree, video: UInt8[Array, "B T Y X 3"]) -> PyTree:
    vae = nnx.merge(graphdef, state)
    chunk = vae.cfg.time_stride if math.prod(video.shape[1:4]) >= CHUNKED_PIXELS else None
    return vae.encode(to_float(video), chunk=chunk)
