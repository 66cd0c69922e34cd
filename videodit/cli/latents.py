"""A data set of clips coded once as a VAE's latents, so that training need not decode or encode again."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import PyTree
from videodit_data import manifest
from videodit_data.examples import ClipShape, pixels
from videodit_data.records import Record, with_latent
from videodit_data.transforms import normalise

from videodit.cli.models import load_vae
from videodit.models.vae import VAE
from videodit.shapes import Video

CLIPS_AT_A_TIME = 32


def encode_dataset(
    dataset: Path, vae_dir: Path, out: Path, *, progress: Callable[[str, int, int], None] | None = None
) -> manifest.Manifest:
    """Writes the latents of the beginning of each clip, at the size and rate that the VAE was trained at.

    Interrupted, it goes on shard by shard; done already, it does nothing.

    Raises:
        ValueError: when there is no such data set or VAE, a clip is too short, or `out` holds something else.
    """
    vae, run, identity = load_vae(vae_dir)
    shape = ClipShape(run.data.frames, run.data.height, run.data.width, run.data.fps)
    described, records = manifest.load(dataset), manifest.records(dataset)
    short = [
        n
        for shard in described.shards
        for n, fps in zip(shard.frames, shard.fps, strict=True)
        if not shape.fits(n, fps, described.content)
    ]
    if short:
        raise ValueError(
            f"{dataset}: {len(short)} of its {described.clips} clips are shorter than {shape.frames} frames at "
            f"{shape.fps:g} a second, which is what {vae_dir} codes"
        )
    coder = Coder(vae)

    def make(numbers: range) -> Iterator[Record]:
        for start in range(numbers.start, numbers.stop, CLIPS_AT_A_TIME):
            some = [records[n] for n in range(start, min(start + CLIPS_AT_A_TIME, numbers.stop))]
            yield from coder(some, shape)

    info = {
        "encoded": {"shards": [shard.sha256 for shard in described.shards], "info": described.info},
        "vae": identity,
        "shape": asdict(shape),
        "world": described.info.get("world"),
    }
    return manifest.build(
        out, make, described.clips, shards=len(described.shards), name="latents", info=info, progress=progress
    )


class Coder:
    """Codes records a full batch at a time, so that one program is compiled, and once for all data sets."""

    def __init__(self, vae: VAE):
        self._graphdef, self._state = nnx.split(vae)

    def __call__(self, records: list[Record], shape: ClipShape) -> Iterator[Record]:
        video = np.zeros((CLIPS_AT_A_TIME, shape.frames, shape.height, shape.width, 3), np.float32)
        for out, record in zip(video, records, strict=False):
            normalise(pixels(record, shape), out)
        means, logvars = jax.device_get(_encode(self._graphdef, self._state, video))
        for record, mean, logvar in zip(records, means, logvars, strict=False):
            yield with_latent(record, mean, logvar, **asdict(shape))


@partial(jax.jit, static_argnums=0)
def _encode(graphdef: nnx.GraphDef, state: PyTree, video: Video) -> PyTree:
    return nnx.merge(graphdef, state).encode(video)
