"""A trained transformer with all that it needs to make clips: text encoder, autoencoder, and whatever sees images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import UInt8
from videodit_data.tokenizer import Tokenizer

from videodit import provenance
from videodit.cli.images import Images
from videodit.cli.models import load_text, load_vae, load_vision, read, restore, tokenizer_of
from videodit.cli.texts import Texts
from videodit.diffusion.sample import SamplerConfig
from videodit.evals.pixel import psnr
from videodit.models.vae import VAE
from videodit.models.vision import VisionEncoder, normalise
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.parallel.rules import constrain
from videodit.train.checkpoint import Which
from videodit.train.config import DiTRun
from videodit.train.config_io import to_json
from videodit.train.pictures import to_uint8
from videodit.train.tasks import model_of
from videodit.train.text_to_video import Condition, TextToVideo, decode, generate, seen_frames
from videodit.train.workdir import placed

Clip = UInt8[np.ndarray, "T Y X 3"]


@dataclass(frozen=True)
class Pipeline:
    """A text-to-video model ready to sample.

    step, weights: the checkpoint, and whether its averaged ("ema") or last ("params") weights are held.
    expert: the model for times below the sampler's boundary, of models with two.
    texts: embeddings of captions, of models that train no text encoder along.
    mesh: over which all of it lies; None is the first device.
    """

    workdir: Path
    run: DiTRun
    step: int
    weights: Which
    tokenizer: Tokenizer
    model: TextToVideo
    vae: VAE
    expert: TextToVideo | None = None
    texts: Texts | None = None
    mesh: Mesh | None = None

    @classmethod
    def load(
        cls, workdir: Path, *, weights: Which = "ema", step: int | None = None, mesh: MeshConfig | None = None
    ) -> "Pipeline":
        """Opens a transformer's workdir.

        Raises:
            ValueError: when it, its tokenizer or its autoencoder is missing or of another kind.
        """
        run = placed(read(workdir, DiTRun, "to sample, give one of kind 'dit'"), workdir)
        if run.sampler.boundary and not run.expert:
            raise ValueError(f"{workdir} lacks its expert for times below {run.sampler.boundary}: import it along")
        over = None if mesh is None else make_mesh(mesh, heads=run.heads)
        tokenizer = tokenizer_of(run)
        vae = load_vae(Path(run.vae), mesh=over)[0]

        model, step = restore(workdir, run, lambda rngs: model_of(run, rngs), weights, step, over)
        expert = texts = None
        if run.expert:
            held = read(Path(run.expert), DiTRun, "an expert is wanted, of kind 'dit'")
            expert = restore(Path(run.expert), held, lambda rngs: model_of(held, rngs), weights, None, over)[0]
        if run.text_encoder:
            place = Path(run.text_encoder)
            texts = Texts(place, tokenizer, run.data.text_length, lambda: load_text(place, run, over))
        return cls(workdir, run, step, weights, tokenizer, model, vae, expert, texts, over)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        size: tuple[int, int, int],
        fps: float | None = None,
        sampler: SamplerConfig | None = None,
        seed: int = 0,
        batch: int = 8,
        negative: str = "",
        images: Images | None = None,
        tile: int | None = None,
    ) -> Iterator[Clip]:
        """A clip for each prompt, of `size` (frames, height, width); made `batch` at a time.

        The noise of a clip depends on the seed and its place among the prompts, not on `batch`.

        Args:
            negative: what guidance leads away from.
            images: the first frame, or the first and the last, of every clip.
            tile: side of the tiles that frames are decoded in, latents; None decodes them whole.

        Raises:
            ValueError: when the model takes no image and is given one, or needs one.
        """
        batch = min(batch, len(prompts))
        rates = np.full(batch, fps or self.run.data.fps, np.float32)
        with self._on_mesh():
            if self.texts is not None:
                self.texts.prepare([*prompts, "", negative])
            seen = self._seen(images, size, batch)
            uncond = replace(self._condition([negative] * batch, rates), **seen)
        key = np.asarray(jax.random.key_data(jax.random.key(seed)))
        run = self._sampler(sampler or self.run.sampler, size, tile)
        for start in range(0, len(prompts), batch):
            some = list(prompts[start : start + batch])
            places = np.minimum(np.arange(start, start + batch), len(prompts) - 1)
            with self._on_mesh():
                cond = replace(self._condition(some + [""] * (batch - len(some)), rates), **seen)
                made = np.asarray(run(key, places, cond, uncond))
            yield from made[: len(some)]

    def _on_mesh(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def _condition(self, captions: Sequence[str], rates: np.ndarray) -> Condition:
        """What the model is told of captions."""
        if self.texts is not None:
            return Condition(*self.texts(captions), rates)
        ids, mask = self.tokenizer.encode(captions, self.run.data.text_length)
        return Condition(self._encode(ids, mask), mask, rates)

    @cached_property
    def _encode(self) -> Callable[..., jax.Array]:
        graphdef, state = nnx.split(self.model.text)
        encode = jax.jit(lambda state, ids, mask: nnx.merge(graphdef, state)(ids, mask))
        return lambda ids, mask: encode(state, ids, mask)

    def _sampler(self, cfg: SamplerConfig, size: tuple[int, int, int], tile: int | None) -> Callable[..., jax.Array]:
        """(key, places among the prompts, conditions to lead to and away from) to clips' bytes.

        One program denoises, one decodes.
        """
        graphdef, state = nnx.split((self.model, self.expert))
        vae_def, vae_state = nnx.split(self.vae)

        @jax.jit
        def denoise(state: Any, key: jax.Array, places: jax.Array, cond: Condition, uncond: Condition) -> jax.Array:
            keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.wrap_key_data(key), i))(places)
            model, expert = nnx.merge(graphdef, state)
            below = None if expert is None else expert.velocity
            return generate(model, self.vae, cfg, keys, cond, uncond, size, expert=below)

        @jax.jit
        def render(state: Any, latents: jax.Array) -> jax.Array:
            pixels = to_uint8(decode(nnx.merge(vae_def, state), latents, tile=tile))
            return constrain(pixels, (None,) * 5)  # in every process

        return lambda *told: render(vae_state, denoise(state, *told))

    def _seen(self, images: Images | None, size: tuple[int, int, int], batch: int) -> dict[str, Any]:
        """What the model is told of images: `Condition`'s fields."""
        self._check(images)
        if images is None:
            return {}
        frames, height, width = size
        first = images.first.pixels(height, width)
        last = None if images.last is None else images.last.pixels(height, width)
        if self._takes_channels:
            seen = {"beside": nnx.jit(lambda vae, a, b: seen_frames(vae, a, b, frames))(self.vae, first, last)}
        else:
            seen = {"known": nnx.jit(lambda vae, x: vae.normalise(vae.encode(x)[0]))(self.vae, first[:, None])}
        if self.run.image_encoder:
            seen["image"] = self._image_tokens(images)
        return {name: jnp.repeat(value, batch, 0) for name, value in seen.items()}

    @property
    def _takes_channels(self) -> bool:
        return self.run.model.in_channels > self.vae.cfg.latent_channels

    def _check(self, images: Images | None) -> None:
        """Whether the model can do with what it is given."""
        wrong = None
        if images is None:
            wrong = "makes clips of images: give --image" if self._takes_channels else None
        elif not self._takes_channels and not self.run.image_first:
            wrong = "makes clips of text alone: it takes no --image"
        elif not self._takes_channels and images.last is not None:
            wrong = "takes a first image alone, not a last one"
        elif self.run.model.image_tokens and images.last is None:
            wrong = "makes clips between two images: give --last-image too"
        elif self.run.model.image_width and not self.run.image_encoder:
            wrong = "lacks its image encoder: import it along"
        if wrong:
            raise ValueError(f"{self.workdir} {wrong}")

    def _image_tokens(self, images: Images) -> jax.Array:
        """Those of the images, one after the other."""
        vision = load_vision(Path(self.run.image_encoder), self.mesh)
        side = vision.cfg.image_size
        given = [image for image in (images.first, images.last) if image is not None]
        pixels = jnp.concatenate([image.cropped(side) for image in given])
        tokens = nnx.jit(VisionEncoder.penultimate)(vision, normalise(pixels))
        return tokens.reshape(1, -1, tokens.shape[-1])

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
