"""Clips encoded as latents by a trained autoencoder, batch by batch over the devices of a process."""

import functools
import itertools
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PyTree, UInt8
from videodit_data.reading.buckets import Bucket
from videodit_data.reading.sample import ClipShape, decode_window
from videodit_data.storage.records import Record, with_latent
from videodit_data.thread_pool import ordered_map

from videodit.inference.encode.clip_crops import ClipCrop
from videodit.inference.generate import encode_video
from videodit.models.vae import VAE
from videodit.parallel.mesh import MeshConfig, make_mesh

Pixels = UInt8[np.ndarray, "B T Y X 3"]
Posterior = tuple[Float[Array, "B t y x C"], Float[Array, "B t y x C"]]
"""Mean and log-variance of latents."""

# Limits of a batch per device, which has at least one clip; independent of the number of devices.
CLIPS_PER_DEVICE, PIXELS_PER_DEVICE = 4, 2**22
PREFETCH = 2  # batches decoded while one is encoded
GROUP = 256  # consecutive crops that are batched by size, and held until they can be yielded in order


@dataclass(frozen=True)
class EncodedBatch:
    """A batch of latents that devices may still be computing.

    Attributes:
        indices: of its crops.
        records: the records of its clips, without video.
        posterior: mean and log-variance of latents; it may have more entries than there are crops.
    """

    indices: Sequence[int]
    records: Sequence[Record]
    posterior: Posterior


class LatentEncoder:
    """Encodes crops of clips as latents.

    Batches have one size and are full, so that one program per size is compiled for all data sets. The clips of a
    batch are sharded over all devices of the process.

    Args:
        fps: frames per second of crops.
        dtype: to store latents in, bfloat16 or float16.
    """

    def __init__(self, vae: VAE, fps: float, dtype: str):
        self.fps, self._dtype = fps, dtype
        self._mesh = make_mesh(MeshConfig(), jax.local_devices())
        self._graphdef, state = nnx.split(vae)
        self._state = jax.device_put(state, NamedSharding(self._mesh, PartitionSpec()))

    def __call__(self, records: Sequence[Record], crops: Sequence[ClipCrop]) -> Iterator[Record]:
        """Yield a record with latents for each crop, in order.

        While devices encode a batch, the host decodes further ones and the records of the previous one are yielded.
        """
        finished: dict[int, Record] = {}
        next_index = 0
        for batch in self._encode_batches(records, crops):
            posterior = jax.device_get(batch.posterior)
            for index, record, mean, logvar in zip(batch.indices, batch.records, *posterior, strict=False):
                finished[index] = self._build_record(crops[index], record, mean, logvar)
            while next_index in finished:
                yield finished.pop(next_index)
                next_index += 1

    def _encode_batches(self, records: Sequence[Record], crops: Sequence[ClipCrop]) -> Iterator[EncodedBatch]:
        """Yield each batch after the next one has been dispatched."""
        batches = self._plan_batches(crops)
        videos: deque[Pixels] = deque()

        def allocate() -> Iterator[tuple[ClipCrop, UInt8[np.ndarray, "T Y X 3"]]]:
            for bucket, indices in batches:
                shape = self._batch_size(bucket), bucket.frames, bucket.height, bucket.width, 3
                videos.append(np.zeros(shape, np.uint8))
                yield from ((crops[index], out) for index, out in zip(indices, videos[-1], strict=False))

        ahead = PREFETCH * max(len(indices) for _, indices in batches)
        decode = functools.partial(self._decode, records)
        decoded = ordered_map(lambda item: decode(*item), allocate(), os.cpu_count() or 1, ahead=ahead)
        previous = None
        for _, indices in batches:
            clips = list(itertools.islice(decoded, len(indices)))
            current = EncodedBatch(indices, clips, self._encode(videos.popleft()))
            if previous is not None:
                yield previous
            previous = current
        if previous is not None:
            yield previous

    def _plan_batches(self, crops: Sequence[ClipCrop]) -> list[tuple[Bucket, Sequence[int]]]:
        """Return the size and the crops' indices of each batch."""

        def key(index: int) -> tuple[int, Bucket]:
            return index // GROUP, crops[index].bucket

        batches = []
        order = sorted(range(len(crops)), key=lambda index: (key(index), index))
        for (_, bucket), group in itertools.groupby(order, key=key):
            indices, size = list(group), self._batch_size(bucket)
            batches += [(bucket, indices[start : start + size]) for start in range(0, len(indices), size)]
        return batches

    def _build_record(
        self,
        crop: ClipCrop,
        record: Record,
        mean: Float[np.ndarray, "t y x C"],
        logvar: Float[np.ndarray, "t y x C"],
    ) -> Record:
        encoded = with_latent(
            record,
            mean,
            logvar,
            fps=self.fps,
            frames=crop.bucket.frames,
            height=crop.bucket.height,
            width=crop.bucket.width,
            dtype=self._dtype,
        )
        window = {"of": record.id, **asdict(crop.window)}
        return replace(encoded, id=record.id + crop.suffix, window=window)

    def _batch_size(self, bucket: Bucket) -> int:
        """Return the number of clips in a batch."""
        fitting = PIXELS_PER_DEVICE // (bucket.frames * bucket.height * bucket.width)
        return max(1, min(CLIPS_PER_DEVICE, fitting)) * self._mesh.size

    def _decode(self, records: Sequence[Record], crop: ClipCrop, out: UInt8[np.ndarray, "T Y X 3"]) -> Record:
        """Write the frames of a crop to `out`; returns the record of its clip without the video."""
        record, bucket = records[crop.clip], crop.bucket
        shape = ClipShape(bucket.frames, bucket.height, bucket.width, self.fps)
        decode_window(record, shape, crop.window, out)
        return replace(record, video=b"", pictures=None)

    def _encode(self, video: Pixels) -> Posterior:
        with jax.set_mesh(self._mesh):
            sharded = jax.device_put(video, NamedSharding(self._mesh, PartitionSpec("data")))
            return _encode(self._graphdef, self._state, sharded)


@functools.partial(jax.jit, static_argnums=0)
def _encode(graphdef: nnx.GraphDef, state: PyTree, video: UInt8[Array, "B T Y X 3"]) -> PyTree:
    return encode_video(nnx.merge(graphdef, state), video)
