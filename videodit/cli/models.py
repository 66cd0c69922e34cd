"""Trained models opened for use: an autoencoder from its workdir, and a transformer with all that it needs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import UInt8
from videodit_data.tokenize import NoTokenizer, Tokenizer

from videodit import provenance
from videodit.diffusion.sample import SamplerConfig
from videodit.evals.pixel import psnr
from videodit.models.vae import VAE
from videodit.parallel.distributed import on_first, wait_for_all
from videodit.train import latents
from videodit.train.checkpoint import Which, checkpoint_step, restore_params
from videodit.train.config import DiTRun, Run, VAERun
from videodit.train.config_io import to_json
from videodit.train.feed import HostBatch
from videodit.train.pictures import to_uint8
from videodit.train.state import abstract_model, shapes_of
from videodit.train.tasks import DiTTask, Task, VAETask
from videodit.train.text_to_video import TextToVideo, generate
from videodit.train.workdir import read_run

Clip = UInt8[np.ndarray, "T Y X 3"]


def tokenizer_of(run: Run) -> Tokenizer | NoTokenizer:
    """The tokenizer of a run; an autoencoder reads no text.

    Raises:
        ValueError: when there is no such file, or the text encoder has fewer token ids than it makes.
    """
    if not isinstance(run, DiTRun):
        return NoTokenizer()
    tokenizer = Tokenizer(run.tokenizer)
    if tokenizer.size > run.text.vocab_size:
        raise ValueError(
            f"text.vocab_size is {run.text.vocab_size}, but {run.tokenizer} makes {tokenizer.size} token ids"
        )
    return tokenizer


def task_of(run: Run) -> Task:
    """What a run trains, with the autoencoder that it needs opened."""
    return VAETask(run) if isinstance(run, VAERun) else DiTTask(run, load_vae(Path(run.vae))[0])


def load_vae(workdir: Path, step: int | None = None) -> tuple[VAE, VAERun, dict[str, Any]]:
    """An autoencoder with averaged weights and its latents' statistics, its run, and what identifies it.

    Raises:
        ValueError: when the directory holds no trained autoencoder.
    """
    run = read_run(workdir)
    if not isinstance(run, VAERun):
        raise ValueError(f"{workdir} holds a run of kind '{run.kind}': an autoencoder is wanted, of kind 'vae'")
    model, step = _restore(workdir, VAETask(run), "ema", step)
    latents.load(model, workdir)
    return model, run, {"config": provenance.fingerprint(to_json(run)), "step": step}


def measure_latents(workdir: Path, batches: Iterable[HostBatch]) -> None:
    """Measures the latents of a trained autoencoder, with averaged weights, unless that has been done."""
    due = latents.measured_at(workdir) != checkpoint_step(workdir / "checkpoints")
    wait_for_all("latents")  # before one writes what others look for
    if due:
        run = read_run(workdir)
        model, step = _restore(workdir, VAETask(run), "ema", None)
        latents.measure(model, batches, run.spread)
        on_first(lambda: latents.save(model, workdir, step))


def _restore(workdir: Path, task: Task, which: Which, step: int | None) -> tuple[Any, int]:
    directory = workdir / "checkpoints"
    step, which = checkpoint_step(directory, step), which if task.run.ema else "params"
    graphdef, params, buffers = abstract_model(shapes_of(task.init), None)
    restored = restore_params(directory, step, which, params, buffers)
    if jax.process_count() > 1:  # of what all processes hold, each goes on with its own copy
        restored = jax.tree.map(jnp.asarray, jax.device_get(restored))
    return nnx.merge(graphdef, *restored), step


@dataclass(frozen=True)
class Pipeline:
    """A text-to-video model ready to sample.

    step, weights: the checkpoint, and whether its averaged ("ema") or last ("params") weights are held.
    """

    workdir: Path
    run: DiTRun
    step: int
    weights: Which
    tokenizer: Tokenizer
    model: TextToVideo
    vae: VAE

    @classmethod
    def load(cls, workdir: Path, *, weights: Which = "ema", step: int | None = None) -> "Pipeline":
        """Opens a transformer's workdir.

        Raises:
            ValueError: when it, its tokenizer or its autoencoder is missing or of another kind.
        """
        run = read_run(workdir)
        if not isinstance(run, DiTRun):
            raise ValueError(f"{workdir} holds a run of kind '{run.kind}': to sample, give one of kind 'dit'")
        tokenizer = tokenizer_of(run)
        vae = load_vae(Path(run.vae))[0]
        model, step = _restore(workdir, DiTTask(run, vae), weights, step)
        return cls(workdir, run, step, weights, tokenizer, model, vae)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        size: tuple[int, int, int],
        fps: float | None = None,
        sampler: SamplerConfig | None = None,
        seed: int = 0,
        batch: int = 8,
    ) -> Iterator[Clip]:
        """A clip for each prompt, of `size` (frames, height, width); made `batch` at a time.

        The noise of a clip depends on the seed and its place among the prompts, not on `batch`.
        """
        batch = min(batch, len(prompts))
        graphdef, state = nnx.split((self.model, self.vae))

        @jax.jit
        def make(state: Any, keys: jax.Array, ids: jax.Array, mask: jax.Array, fps: jax.Array) -> jax.Array:
            model, vae = nnx.merge(graphdef, state)
            return generate(model, vae, sampler or self.run.sampler, keys, ids, mask, fps, size)

        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(len(prompts)))
        rates = np.full(batch, fps or self.run.data.fps, np.float32)
        for start in range(0, len(prompts), batch):
            some = list(prompts[start : start + batch])
            ids, mask = self.tokenizer.encode(some + [""] * (batch - len(some)), self.run.data.text_length)
            places = np.minimum(np.arange(start, start + batch), len(prompts) - 1)
            made = to_uint8(jax.device_get(make(state, keys[places], ids, mask, rates)))
            yield from made[: len(some)]

    def reconstruction_psnr(self, clips: Sequence[Clip], batch: int = 32) -> float:
        """Mean over clips of the PSNR of the autoencoder's reconstruction, dB, pixels as bytes."""
        graphdef, state = nnx.split(self.vae)
        code = jax.jit(lambda state, video: (vae := nnx.merge(graphdef, state)).decode(vae.encode(video)[0]))
        values = []
        for start in range(0, len(clips), batch):
            real = np.stack(clips[start : start + batch])
            made = to_uint8(jax.device_get(code(state, real.astype(np.float32) / 127.5 - 1.0)))
            values.extend(psnr(real, made, 255.0))
        return float(np.mean(values))

    def provenance(self, **facts: Any) -> dict[str, Any]:
        """Where what this makes comes from, beside `facts`."""
        vae = Path(self.run.vae)
        return provenance.provenance(
            to_json(self.run), checkpoint=str(self.workdir), step=self.step, weights=self.weights, vae=str(vae), **facts
        )
