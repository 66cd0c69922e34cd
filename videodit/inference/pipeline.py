"""A trained text-to-video model with everything it needs to make clips: text encoder, autoencoder, image encoder."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, UInt8
from numpy.typing import ArrayLike
from videodit_data.tokenizer import Tokenizer
from videodit_data.video.frames import MOST_PIXELS_AT_ONCE

from videodit import provenance
from videodit.checkpoint.checkpoints import Weights
from videodit.checkpoint.restore import (
    load_text_encoder,
    load_vae,
    load_vision_encoder,
    read_config_of,
    restore_model,
)
from videodit.checkpoint.workdir import resolve_paths
from videodit.config.io import to_json
from videodit.config.run import DiTRun
from videodit.diffusion.sample import SamplerConfig
from videodit.inference.autoencoder import Autoencoder
from videodit.inference.caption_embeddings import CaptionEmbeddings
from videodit.inference.generate import encode_condition_frames, generate
from videodit.inference.images import ConditionImages, crop_square, resize
from videodit.inference.tokenizer import open_tokenizer
from videodit.models.condition_embedder import find_embedders
from videodit.models.conditioning import CONCAT_CHANNELS, FIRST_FRAMES, IMAGE, Conditioning
from videodit.models.text_to_video import TextToVideo
from videodit.models.vae import VAE
from videodit.models.vision import VisionEncoder, normalize
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.ranges import Range, Size, check_ranges

Frames = UInt8[np.ndarray, "T Y X 3"]
ConditionValue = ArrayLike | Sequence[int | float] | int | float
"""A value of a further input, for all prompts or one for each."""
NEEDS_DIT = "to sample, give one of kind 'dit'"


@dataclass(frozen=True)
class _Numbers:
    """The numbers of `Pipeline.generate`; ValueError for one that is out of range."""

    frames: Size
    height: Size
    width: Size
    fps: Annotated[int | float, Range(0, 1e9, excluded=0)]
    seed: Annotated[int, Range(-(2**63), 2**63 - 1)]
    batch: Size
    tile: Size | None

    def __post_init__(self):
        check_ranges(self)
        if self.frames * self.height * self.width > MOST_PIXELS_AT_ONCE:
            raise ValueError(
                f"{self.frames} frames of {self.width} x {self.height} are more than "
                f"{MOST_PIXELS_AT_ONCE} pixels: take fewer"
            )


@dataclass(frozen=True)
class Pipeline:
    """A text-to-video model ready to sample. Programs are compiled once for each size of a batch and sampler.

    Attributes:
        step, weights: the checkpoint, and whether its averaged ("ema") or last ("params") weights were restored.
        low_noise_expert: the model for times below the sampler's `expert_boundary`, of models with two.
        captions: embeddings of captions, of models whose text encoder is frozen.
        mesh: the devices that all of it is sharded over; None is the first device.
    """

    workdir: Path
    run: DiTRun
    step: int
    weights: Weights
    tokenizer: Tokenizer
    model: TextToVideo
    vae: VAE
    low_noise_expert: TextToVideo | None = None
    captions: CaptionEmbeddings | None = None
    mesh: Mesh | None = None

    @classmethod
    def load(
        cls,
        workdir: Path,
        *,
        weights: Weights = "ema",
        step: int | None = None,
        mesh: MeshConfig | None = None,
        strict: bool = False,
    ) -> "Pipeline":
        """Load a transformer's workdir; arguments as `api.load`.

        Of the models that belong to it none is taken from an earlier checkpoint, whatever `strict` says.

        Raises:
            ValueError: when it, its tokenizer or its autoencoder is missing or of another kind.
        """
        run = resolve_paths(read_config_of(workdir, DiTRun, NEEDS_DIT), workdir)
        if run.sampler.expert_boundary and not run.low_noise_expert:
            raise ValueError(
                f"{workdir} lacks its expert for times below {run.sampler.expert_boundary}: import it along"
            )
        devices = None if mesh is None else make_mesh(mesh, heads=run.heads)
        tokenizer = open_tokenizer(run)
        vae = load_vae(Path(run.vae), mesh=devices)[0]
        model, step = restore_model(workdir, run, weights, step, devices, strict=strict)
        expert = captions = None
        if run.low_noise_expert:
            directory = Path(run.low_noise_expert)
            expert_run = read_config_of(directory, DiTRun, "an expert is needed, of kind 'dit'")
            expert = restore_model(directory, expert_run, weights, None, devices, strict=True)[0]
        if run.text_encoder:
            encoder = Path(run.text_encoder)
            captions = CaptionEmbeddings(
                encoder, tokenizer, run.data.text_length, lambda: load_text_encoder(encoder, run, devices)
            )
        weights = weights if run.ema else "params"  # a run without an average has the last weights alone
        return cls(workdir, run, step, weights, tokenizer, model, vae, expert, captions, devices)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        size: tuple[int, int, int],
        fps: int | float | None = None,
        sampler: SamplerConfig | None = None,
        seed: int = 0,
        batch: int = 8,
        negative_prompt: str = "",
        images: ConditionImages | None = None,
        conditions: Mapping[str, ConditionValue] | None = None,
        tile: int | None = None,
    ) -> Iterator[Frames]:
        """Generate a clip for each prompt, `batch` at a time.

        The noise of a clip depends on the seed and its index among the prompts, not on `batch`.

        Args:
            size: (frames, height, width) in pixels.
            fps: frames per second; those of training if None.
            sampler: the run's own if None.
            negative_prompt: what guidance leads away from.
            images: the first frame, or the first and the last, of every clip.
            conditions: values of the model's further inputs by name, one for all prompts or one for each.
            tile: side of the tiles that frames are decoded in, latents; None decodes them whole.

        Raises:
            ValueError: when the model lacks an image or another input that it needs, or is given one it does not take,
                and for a number out of range.
        """
        fps = self.run.data.fps if fps is None else fps
        _Numbers(*size, fps=fps, seed=seed, batch=batch, tile=tile)
        values = self._condition_values(conditions or {}, len(prompts))
        batch = min(batch, len(prompts))
        fps_B = np.full(batch, fps, np.float32)
        with self._on_mesh():
            if self.captions is not None:
                self.captions.prepare([*prompts, "", negative_prompt])
            inputs = self._encode_images(images, size, batch)
            negative = self._condition([negative_prompt] * batch, fps_B)
        key = np.asarray(jax.random.key_data(jax.random.key(seed)))
        for start in range(0, len(prompts), batch):
            chunk = list(prompts[start : start + batch])
            indices = np.minimum(np.arange(start, start + batch), len(prompts) - 1)
            with self._on_mesh():
                chunk_inputs = {**inputs, **{name: value[indices] for name, value in values.items()}}
                cond = self._condition(chunk + [""] * (batch - len(chunk)), fps_B).with_inputs(chunk_inputs)
                uncond = negative.with_inputs(chunk_inputs)
                latents = self._denoise(sampler or self.run.sampler, size, key, indices, cond, uncond)
            yield from self.autoencoder.decode(latents, tile=tile)[: len(chunk)]

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder of the model's latents."""
        return Autoencoder(self.vae, self.mesh)

    def provenance(
        self, *, sampler: SamplerConfig, conditions: Mapping[str, ConditionValue] | None = None, **facts: Any
    ) -> dict[str, Any]:
        """Return where what this model makes comes from: plain JSON, with these options of `generate` and `facts`."""
        if conditions:
            facts["conditions"] = {name: np.asarray(value).tolist() for name, value in conditions.items()}
        return provenance.provenance(
            to_json(self.run),
            checkpoint=str(self.workdir),
            step=self.step,
            weights=self.weights,
            vae=str(Path(self.run.vae)),
            sampler=asdict(sampler),
            **facts,
        )

    def _on_mesh(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def _condition(self, captions: Sequence[str], fps_B: np.ndarray) -> Conditioning:
        if self.captions is not None:
            return Conditioning(*self.captions(captions), fps_B)
        ids, mask = self.tokenizer.encode(captions, self.run.data.text_length)
        return Conditioning(self._encode_text(ids, mask), mask, fps_B)

    @cached_property
    def _encode_text(self) -> Callable[..., jax.Array]:
        graphdef, state = nnx.split(self.model.text)
        encode = jax.jit(lambda state, ids, mask: nnx.merge(graphdef, state)(ids, mask))
        return lambda ids, mask: encode(state, ids, mask)

    @cached_property
    def _denoise(self) -> Callable[..., jax.Array]:
        """Of a sampler, a size, a key, indices among the prompts and the two conditionings: latents.

        Jitted once, so that it is compiled once for each size, sampler and size of a batch.
        """
        graphdef, state = nnx.split((self.model, self.low_noise_expert))

        def denoise(cfg: SamplerConfig, size: tuple[int, int, int], state, key, indices, cond, uncond) -> Array:
            keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.wrap_key_data(key), i))(indices)
            model, expert = nnx.merge(graphdef, state)
            velocity = None if expert is None else expert.velocity
            return generate(model, self.vae, cfg, keys, cond, uncond, size, low_noise_expert=velocity)

        compiled = jax.jit(denoise, static_argnums=(0, 1))
        return lambda cfg, size, *arrays: compiled(cfg, size, state, *arrays)

    def _condition_values(self, conditions: Mapping[str, ConditionValue], count: int) -> dict[str, np.ndarray]:
        """Return the values of the model's further inputs for every prompt."""
        embedders = find_embedders(self.run.model.conditions)
        if unknown := sorted(conditions.keys() - embedders.keys()):
            raise ValueError(f"{self.workdir} takes no condition {unknown[0]}: it takes {_list(embedders)}")
        if lacking := sorted(embedders.keys() - conditions.keys()):
            raise ValueError(f"{self.workdir} needs the conditions {_list(embedders)}: {lacking[0]} is not given")
        values = {}
        for name, embedder in embedders.items():
            value = np.asarray(conditions[name], embedder.dtype)
            if value.shape == () and embedder.shape == (1,):
                value = value[None]
            if value.shape not in (embedder.shape, (count, *embedder.shape)):
                raise ValueError(
                    f"the condition {name} has the shape {embedder.shape}, or one for each prompt, not {value.shape}"
                )
            values[name] = np.broadcast_to(value, (count, *embedder.shape))
        return values

    def _encode_images(
        self, images: ConditionImages | None, size: tuple[int, int, int], batch: int
    ) -> Mapping[str, Array]:
        """Return the conditioning inputs that images are, for every clip of a batch."""
        self._check_images(images)
        if images is None:
            return {}
        frames, height, width = size
        first = resize(images.first, height, width)
        last = None if images.last is None else resize(images.last, height, width)
        if self._takes_channels:
            inputs = {CONCAT_CHANNELS: self._encode_condition_frames(self.vae, first, last, frames)}
        else:
            inputs = {FIRST_FRAMES: self._encode_frames(self.vae, first[:, None])}
        if self.run.image_encoder:
            inputs[IMAGE] = self._image_tokens(images)
        return {name: jnp.repeat(value, batch, 0) for name, value in inputs.items()}

    @cached_property
    def _encode_condition_frames(self) -> Callable[..., Array]:
        return nnx.jit(encode_condition_frames, static_argnums=3)

    @cached_property
    def _encode_frames(self) -> Callable[[VAE, Array], Array]:
        return nnx.jit(lambda vae, frames: vae.normalize(vae.encode(frames)[0]))

    @cached_property
    def _encode_image(self) -> tuple[VisionEncoder, Callable[[VisionEncoder, Array], Array]]:
        return load_vision_encoder(Path(self.run.image_encoder), self.mesh), nnx.jit(VisionEncoder.penultimate)

    @property
    def _takes_channels(self) -> bool:
        return self.run.model.in_channels > self.vae.cfg.latent_channels

    def _check_images(self, images: ConditionImages | None) -> None:
        """Raise ValueError unless the model takes the images it is given."""
        error = None
        if images is None:
            error = "makes clips of images: give a first image" if self._takes_channels else None
        elif not self._takes_channels and not self.run.first_frame:
            error = "makes clips of text alone: it takes no image"
        elif not self._takes_channels and images.last is not None:
            error = "takes a first image alone, not a last one"
        elif self.run.model.image_tokens and images.last is None:
            error = "makes clips between two images: give a last image too"
        elif self.run.model.image_width and not self.run.image_encoder:
            error = "lacks its image encoder: import it along"
        if error:
            raise ValueError(f"{self.workdir} {error}")

    def _image_tokens(self, images: ConditionImages) -> Array:
        """Return the tokens of the images, one image after the other."""
        encoder, encode = self._encode_image
        side = encoder.cfg.image_size
        present = [image for image in (images.first, images.last) if image is not None]
        pixels = jnp.concatenate([crop_square(image, side) for image in present])
        tokens = encode(encoder, normalize(pixels))
        return tokens.reshape(1, -1, tokens.shape[-1])


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
