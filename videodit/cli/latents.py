"""A data set of clips coded once as a VAE's latents, so that training need not decode or encode again."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, UInt8
from videodit_data import manifest
from videodit_data.bucketing import Bucket, Buckets, Token
from videodit_data.examples import ClipShape, pixels
from videodit_data.pool import ordered_map
from videodit_data.records import Record, with_latent
from videodit_data.sequence import DataSet, open_data_set

from videodit.cli.models import identity_of, load_vae
from videodit.models.vae import VAE
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.train.config import VAERun
from videodit.train.feed import as_pixels

Pixels = UInt8[np.ndarray, "B T Y X 3"]

CLIPS_AT_A_TIME = 32  # of the size that the VAE was trained at; as many pixels of other sizes
AHEAD = 2  # batches decoded while one is coded


def encode_dataset(
    dataset: Path,
    vae_dir: Path,
    out: Path,
    *,
    buckets: Mapping[str, Any] | None = None,
    dtype: str = "float16",
    progress: Callable[[str, int, int], None] | None = None,
) -> manifest.Manifest:
    """Writes the latents of the beginning of each clip.

    Interrupted, it goes on shard by shard; done already, it does nothing.

    Args:
        buckets: fields of `Buckets`: every clip in the best of many shapes, those that fill none left out by name.
            None codes all at the size and rate that the VAE was trained at.
        dtype: to store, float16 or bfloat16.

    Raises:
        ValueError: when there is no such data set or VAE, a clip is too short for the one size, no clip fits, or `out`
            holds something else.
    """
    vae, run, step = load_vae(vae_dir)
    data = open_data_set(dataset)
    shapes = _one_size(data, run, vae_dir) if buckets is None else _best_sizes(data, run, buckets)
    served = [number for number, bucket in enumerate(shapes) if isinstance(bucket, Bucket)]
    if not served:
        raise ValueError(f"{dataset}: none of its {len(shapes)} clips fits the buckets")
    left_out = [
        manifest.LeftOut(data.records[number].id, f"{reason} for the buckets")
        for number, reason in enumerate(shapes)
        if isinstance(reason, str)
    ]
    coder = Coder(vae, run, (buckets or {}).get("fps", run.data.fps), dtype)

    def make(numbers: range) -> Iterator[Record]:
        some = [served[n] for n in numbers]
        return coder([data.records[n] for n in some], [shapes[n] for n in some])

    described = data.manifest
    info = {
        "encoded": {"shards": [shard.sha256 for shard in described.shards], "info": described.info},
        "vae": identity_of(vae, run, step),
        "shape": {"buckets": buckets, "fps": coder.fps, "one": None if buckets else str(_shape(run)), "dtype": dtype},
        "world": described.info.get("world"),
    }
    count = min(len(described.shards), len(served))
    return manifest.build(
        out, make, len(served), shards=count, name="latents", info=info, left_out=left_out, progress=progress
    )


def _shape(run: VAERun) -> Bucket:
    return Bucket(run.data.frames, run.data.height, run.data.width)


def _one_size(data: DataSet, run: VAERun, vae_dir: Path) -> list[Bucket | str]:
    shape = ClipShape(run.data.frames, run.data.height, run.data.width, run.data.fps)
    short = sum(not shape.fits(frames, fps, data.manifest.content) for frames, fps, _, _ in data.clips)
    if short:
        raise ValueError(
            f"{data.path}: {short} of its {data.manifest.clips} clips are shorter than {shape.frames} frames at "
            f"{shape.fps:g} a second, which is what {vae_dir} codes"
        )
    return [_shape(run)] * data.manifest.clips


def _best_sizes(data: DataSet, run: VAERun, fields: Mapping[str, Any]) -> list[Bucket | str]:
    """For every clip its bucket, or why it has none; sides are whole patches of two latents, as transformers have."""
    token = Token(run.model.time_stride, 2 * run.model.space_stride)
    buckets = Buckets(**{"fps": run.data.fps, "token": token, "tokens": 2**62} | dict(fields))
    return [buckets.choose(*clip) for clip in data.clips]


class Coder:
    """Codes records a full batch of one shape at a time, so that one program a shape is compiled for all data sets.

    The clips of a batch are divided over all devices of this process.
    """

    def __init__(self, vae: VAE, run: VAERun, fps: float, dtype: str):
        self.fps, self._dtype, self._run = fps, dtype, run
        self._mesh = make_mesh(MeshConfig(), jax.local_devices())
        self._graphdef, state = nnx.split(vae)
        self._state = jax.device_put(state, NamedSharding(self._mesh, PartitionSpec()))

    def __call__(self, records: Sequence[Record], shapes: Sequence[Bucket]) -> Iterator[Record]:
        """The records with latents, in order."""
        order = sorted(range(len(records)), key=lambda n: shapes[n])
        batches = []
        for shape, group in itertools.groupby(order, key=lambda n: shapes[n]):
            batches += [(shape, some) for some in _chunks(list(group), self._batch(shape))]
        coded: dict[int, Record] = {}
        next_one = 0
        decode = functools.partial(self._decode, records)
        for (shape, some), video in zip(batches, ordered_map(decode, batches, AHEAD), strict=True):
            means, logvars = self._encode(video)
            size = {"fps": self.fps, "frames": shape.frames, "height": shape.height, "width": shape.width}
            for n, mean, logvar in zip(some, means, logvars, strict=False):
                coded[n] = with_latent(records[n], mean, logvar, **size, dtype=self._dtype)
            while next_one in coded:
                yield coded.pop(next_one)
                next_one += 1

    def _batch(self, shape: Bucket) -> int:
        """Clips of a batch: about as many pixels whatever the shape, and a multiple of the devices."""
        data, devices = self._run.data, self._mesh.size
        pixels_at_a_time = CLIPS_AT_A_TIME * data.frames * data.height * data.width
        fit = pixels_at_a_time // (shape.frames * shape.height * shape.width)
        return max(1, fit // devices) * devices

    def _decode(self, records: Sequence[Record], batch: tuple[Bucket, Sequence[int]]) -> Pixels:
        shape, some = batch
        video = np.zeros((self._batch(shape), shape.frames, shape.height, shape.width, 3), np.uint8)
        clip = ClipShape(shape.frames, shape.height, shape.width, self.fps)
        for out, n in zip(video, some, strict=False):
            out[:] = pixels(records[n], clip)
        return video

    def _encode(self, video: Pixels) -> PyTree:
        with jax.set_mesh(self._mesh):
            placed = jax.device_put(video, NamedSharding(self._mesh, PartitionSpec("data")))
            return jax.device_get(_encode(self._graphdef, self._state, placed))


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (items[start : start + size] for start in range(0, len(items), size))


@functools.partial(jax.jit, static_argnums=0)
def _encode(graphdef: nnx.GraphDef, state: PyTree, video: UInt8[Array, "B T Y X 3"]) -> PyTree:
    return nnx.merge(graphdef, state).encode(as_pixels(video))
