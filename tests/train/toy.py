"""A toy model and task that compile in a second, and a loader that needs no files."""

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from videodit_data.reading.batch import Batch, HostBatch

from videodit.config.data import DataConfig
from videodit.config.optim import OptimConfig
from videodit.config.run import Run, VAERun
from videodit.models.vae import VAEConfig
from videodit.nn.linear import Linear
from videodit.nn.param import param
from videodit.train.loop import train

FRAMES, RESOLUTION = 5, 8


class Count(nnx.Variable):
    """A variable that is not trained."""


class ToyModel(nnx.Module):
    """A model of two matrices over the pixels of a frame."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        features = RESOLUTION * RESOLUTION * 3
        self.up = Linear({None: features}, {"embed": width}, rngs=rngs)
        self.down = Linear({"embed": width}, {None: features}, rngs=rngs)
        self.scale = param(rngs.params(), jax.nn.initializers.ones, (features,), (None,))
        self.count = Count(jnp.ones((3,)))

    def __call__(self, video_BTYXC: jax.Array) -> jax.Array:
        flat = video_BTYXC.reshape(*video_BTYXC.shape[:2], -1)
        out = self.scale[...] * self.down(jax.nn.silu(self.up(flat)))
        return out.reshape(video_BTYXC.shape)


class ToyTask:
    """A task: predict a clip from a brightened one. A frozen weight shifts the target, as an input of the step."""

    tokens_per_clip, flops_per_clip = FRAMES, 1e6

    def init(self, rngs: nnx.Rngs) -> ToyModel:
        return ToyModel(16, rngs)

    def frozen_shardings(self, mesh: jax.sharding.Mesh) -> dict[str, Any]:
        whole = jax.NamedSharding(mesh, jax.P())
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), self.frozen_arrays())

    def frozen_arrays(self) -> dict[str, Any]:
        return {"shift": jnp.float32(0.1)}

    def draw(self, batch: Any, key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (batch.size, 1, 1, 1, 1))

    def loss(
        self, model: ToyModel, frozen: Any, batch: Any, draws: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        error = model(batch.video + draws) - batch.video - frozen["shift"]
        return jnp.mean(error**2, (1, 2, 3, 4)), {"l1": jnp.mean(jnp.abs(error), (1, 2, 3, 4))}

    def evaluate(self, model: ToyModel, frozen: Any, batch: Any, key: jax.Array) -> dict[str, jax.Array]:
        return {"loss": self.loss(model, frozen, batch, self.draw(batch, key))[0]}

    def sample(self, model: ToyModel, frozen: Any, batch: Any, key: jax.Array) -> jax.Array:
        return jnp.clip(model(batch.video), -1, 1)


def host_batch(
    number: int, size: int, *, frames: int = FRAMES, resolution: int = RESOLUTION, length: int = 4
) -> HostBatch:
    """Return batch `number`, the same at every call."""
    rng = np.random.default_rng(number)
    ids = rng.integers(1, 16, (size, length), dtype=np.int32)
    arrays = Batch(
        video=rng.uniform(-1, 1, (size, frames, resolution, resolution, 3)).astype(np.float32),
        latent_mean=None,
        latent_logvar=None,
        text_ids=ids,
        text_mask=ids > 3,
        fps=np.full(size, 8, np.float32),
        valid=np.ones(size, bool),
    )
    clip_ids = tuple(f"clip{number}.{row}" for row in range(size))
    return HostBatch(arrays, clip_ids, tuple(f"caption {row}" for row in range(size)))


def with_padding(host: HostBatch, clip_ids: tuple[str, ...]) -> HostBatch:
    """Return a batch whose entries without an id are padding."""
    return replace(with_arrays(host, valid=np.array(clip_ids) != ""), clip_ids=clip_ids)


def with_arrays(host: HostBatch, **changes: Any) -> HostBatch:
    """Replace arrays of a batch."""
    return replace(host, arrays=replace(host.arrays, **changes))


class ToyLoader:
    """A loader of endless batches by number; batch `poison` has NaN pixels."""

    def __init__(self, size: int = 8, poison: int | None = None, end: int | None = None, **shape: int):
        self.size, self.poison, self.end, self.shape, self.number = size, poison, end, shape, 0

    def __next__(self) -> HostBatch:
        if self.number == self.end:
            raise StopIteration
        batch = host_batch(self.number, self.size, **self.shape)
        if self.number == self.poison:
            batch = with_arrays(batch, video=np.full_like(batch.arrays.video, np.nan))
        self.number += 1
        return batch

    def get_state(self) -> dict[str, int]:
        return {"number": self.number}

    def set_state(self, state: dict[str, int]) -> None:
        self.number = state["number"]


def toy_run(**changes: Any) -> Run:
    """Return a run for `ToyTask`, which ignores the model's configuration."""
    data = DataConfig(path="none", frames=FRAMES, height=RESOLUTION, width=RESOLUTION, fps=8.0, batch_size=8)
    model = VAEConfig(latent_channels=2, channels=(4, 4), strides=((2, 2),), time_kernel=(1, 1), blocks=1)
    optim = OptimConfig(lr=1e-2, schedule="constant")
    every = {"log_every": 1, "eval_every": 0, "save_every": 2, "sample_every": 0}
    return replace(VAERun(steps=4, data=data, model=model, optim=optim, **every), **changes)


def main(workdir: str, steps: str, delay: str) -> None:
    """Train in a process of its own, which tests may kill; `delay` is the least time of a step, in seconds."""

    class Slow(ToyLoader):
        def __next__(self) -> HostBatch:
            time.sleep(float(delay))
            return super().__next__()

    train(toy_run(steps=int(steps)), ToyTask(), Slow(), None, Path(workdir), devices=jax.devices()[:1])


def init_model(make: Callable[[], nnx.Module]) -> tuple[nnx.GraphDef, nnx.State]:
    """Initialise a module by one program rather than by one for every weight; return its graph and its state."""
    return nnx.graphdef(nnx.eval_shape(make)), jax.jit(lambda: nnx.state(make()))()


def build_noisy_model(make: Callable[[], nnx.Module], seed: int) -> nnx.Module:
    """Build a model with noise added to its weights, since zero-initialised ones would hide mistakes."""
    graphdef, state = init_model(make)
    rng = np.random.default_rng(seed)
    noisy = jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape, np.float32), state)
    return nnx.merge(graphdef, noisy)


def digest(tree: Any) -> str:
    """Return a hash of every bit of a tree of arrays."""
    sha256 = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        sha256.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return sha256.hexdigest()


def checkpoint_steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


if __name__ == "__main__":
    main(*sys.argv[1:])
