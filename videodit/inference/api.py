"""The Python API: `videodit.load(path)`, and what it returns."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Float, UInt8
from videodit_data.tokenizer import clean_caption

from videodit.checkpoint.checkpoints import Weights
from videodit.checkpoint.workdir import read_config
from videodit.config.run import DiTRun, VAERun
from videodit.inference.autoencoder import Autoencoder
from videodit.inference.images import ConditionImages, ImageLike
from videodit.inference.pipeline import ConditionValue, Pipeline
from videodit.inference.prompt_expansion import ExpandedPrompt, PromptExpansion, expand_prompts
from videodit.inference.tokenizer import check_prompts
from videodit.inference.video import Video
from videodit.parallel.mesh import MeshConfig, parse_mesh


def load(
    path: str | Path,
    *,
    step: int | None = None,
    weights: Weights = "ema",
    mesh: str | MeshConfig | None = None,
    strict: bool = False,
) -> "Model":
    """Load a run, one of its checkpoints, or imported weights.

    Args:
        path: the directory of a run or of an import, or that of a checkpoint in it (`RUN/checkpoints/STEP`).
        step: the checkpoint; the last one that is not damaged if None.
        weights: averaged ("ema") or last ("params") weights.
        mesh: the devices to shard over, like "fsdp=4"; None is the first device.
        strict: refuse to take an earlier checkpoint where the last one is damaged. The models that belong to a
            run always do: autoencoder, encoders, low-noise expert.

    Raises:
        ValueError: when there is no such run, or it cannot be sampled from or encode.
    """
    workdir, step = _find_checkpoint(Path(path), step)
    config = read_config(workdir)
    if isinstance(config, DiTRun):
        return load_text_to_video(workdir, step=step, weights=weights, mesh=mesh, strict=strict)
    if isinstance(config, VAERun):
        return Model(Autoencoder.load(workdir, step=step, mesh=_mesh(mesh)))
    raise ValueError(f"{workdir} holds a run of kind '{config.kind}': load one of kind 'dit' or 'vae'")


def load_text_to_video(
    path: str | Path,
    *,
    step: int | None = None,
    weights: Weights = "ema",
    mesh: str | MeshConfig | None = None,
    strict: bool = False,
) -> "TextToVideoModel":
    """Load a text-to-video model; arguments as `load`. ValueError when the directory holds another kind of model."""
    workdir, step = _find_checkpoint(Path(path), step)
    pipeline = Pipeline.load(workdir, weights=weights, step=step, mesh=_mesh(mesh), strict=strict)
    return TextToVideoModel(pipeline.autoencoder, pipeline)


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A loaded model that encodes and decodes."""

    autoencoder: Autoencoder = dataclasses.field(repr=False)

    def encode(self, video: UInt8[np.ndarray, "*B T Y X 3"] | Video) -> Float[np.ndarray, "*B t y x C"]:
        """Encode a video (bytes), or a batch of videos, to normalized latents: the means of their posteriors.

        Raises:
            ValueError: when the number of frames is not 1 + 4k, or a side is no multiple of the space stride.
        """
        return self.autoencoder.encode(video.array if isinstance(video, Video) else video)

    def decode(
        self, latents: Float[np.ndarray, "*B t y x C"], *, tile: int | None = None
    ) -> UInt8[np.ndarray, "*B T Y X 3"]:
        """Decode normalized latents, of one video or a batch, to bytes; `tile` as in `generate`."""
        return self.autoencoder.decode(latents, tile=tile)


@dataclasses.dataclass(frozen=True, eq=False)
class TextToVideoModel(Model):
    """A loaded model that generates videos from text. Programs are compiled once for each shape.

    Attributes:
        pipeline: the model's parts: `pipeline.model`, `pipeline.vae`, `pipeline.run` (its configuration), ...
    """

    pipeline: Pipeline = dataclasses.field(repr=False)

    @overload
    def generate(self, prompt: str, **options: Any) -> Video: ...
    @overload
    def generate(self, prompt: Sequence[str], **options: Any) -> list[Video]: ...

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: int | float | None = None,
        steps: int | None = None,
        solver: str | None = None,
        guidance: int | float | None = None,
        negative_prompt: str = "",
        image: ImageLike | None = None,
        last_image: ImageLike | None = None,
        conditions: Mapping[str, ConditionValue] | None = None,
        seed: int = 0,
        batch: int = 8,
        tile: int | None = None,
        expand: str | None = None,
        expand_model: str | None = None,
        expand_key_env: str | None = None,
        expand_length: str = "medium",
        expand_deadline: int | float = 60,
        expand_or_plain: bool = False,
    ) -> Video | list[Video]:
        """Generate a video for a prompt, or one for each of a list.

        Every option means what the option of the same name of `videodit sample` means.

        Args:
            frames, height, width, fps: of the videos; those of training if None.
            steps, solver, guidance: of the sampler; as configured if None.
            negative_prompt: what guidance leads away from.
            image, last_image: the first and the last frame, of models that take them.
            conditions: values of the model's further inputs by name, one for all prompts or one for each.
            seed: of the noise, together with a prompt's index in the list.
            batch: videos generated at a time.
            tile: side of the tiles that frames are decoded in, latents, which saves memory; None decodes them whole.
            expand, expand_model, expand_key_env, expand_length, expand_deadline, expand_or_plain: a server that expands
                prompts (`PromptExpansion`).

        Raises:
            ValueError: for a size, a sampler or an image that the model does not take, and for a prompt of which the
                tokenizer knows nothing. What it does not know of a prompt is a warning.
        """
        if (expand is None) != (expand_model is None):
            raise ValueError("expand, a server's address, and expand_model, the name of the model there, go together")
        expansion = None
        if expand is not None:
            expansion = PromptExpansion(
                expand, expand_model, expand_key_env, expand_length, expand_deadline, expand_or_plain
            )
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            return []
        videos = list(
            self.iterate(
                prompts,
                texts=expand_prompts(expansion, prompts),
                frames=frames,
                height=height,
                width=width,
                fps=fps,
                steps=steps,
                solver=solver,
                guidance=guidance,
                negative_prompt=negative_prompt,
                image=image,
                last_image=last_image,
                conditions=conditions,
                seed=seed,
                batch=batch,
                tile=tile,
            )
        )
        return videos[0] if isinstance(prompt, str) else videos

    def iterate(
        self,
        prompts: Sequence[str],
        *,
        texts: Sequence[ExpandedPrompt],
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        fps: int | float | None = None,
        steps: int | None = None,
        solver: str | None = None,
        guidance: int | float | None = None,
        negative_prompt: str = "",
        image: ImageLike | None = None,
        last_image: ImageLike | None = None,
        conditions: Mapping[str, ConditionValue] | None = None,
        seed: int = 0,
        batch: int = 8,
        tile: int | None = None,
    ) -> Iterator[Video]:
        """Yield the video of each prompt as soon as its batch is complete; `texts` are the prompts expanded."""
        run = self.pipeline.run
        sampler = run.sampler.override(steps=steps, solver=solver, guidance=guidance)
        size = tuple(
            default if value is None else value
            for value, default in ((frames, run.data.frames), (height, run.data.height), (width, run.data.width))
        )
        fps = run.data.fps if fps is None else fps
        options: dict[str, Any] = {"negative_prompt": negative_prompt} if negative_prompt else {}
        options |= {name: str(path) for name, path in (("image", image), ("last_image", last_image)) if _is_path(path)}
        captions = [text.text for text in texts]
        clean = clean_caption if self.pipeline.captions is not None else str
        check_prompts(self.pipeline.tokenizer, list(map(clean, captions)))
        if negative_prompt:
            check_prompts(self.pipeline.tokenizer, [clean(negative_prompt)], "negative prompt")
        clips = self.pipeline.generate(
            captions,
            size=size,
            fps=fps,
            sampler=sampler,
            seed=seed,
            batch=batch,
            negative_prompt=negative_prompt,
            images=ConditionImages.open(image, last_image),
            conditions=conditions,
            tile=tile,
        )
        for index, (prompt, text, array) in enumerate(zip(prompts, texts, clips, strict=True)):
            provenance = self.pipeline.provenance(
                prompt=prompt,
                seed=seed,
                index=index,
                sampler=sampler,
                conditions=conditions,
                **options,
                **text.provenance,
            )
            yield Video(array, fps, provenance)


def _is_path(image: ImageLike | None) -> bool:
    return isinstance(image, str | Path)


def _find_checkpoint(path: Path, step: int | None) -> tuple[Path, int | None]:
    """Return the directory of a run, and the step: that of the checkpoint that the path names, or the given one."""
    if path.parent.name != "checkpoints" or not re.fullmatch(r"\d+", path.name):
        return path, step
    if step not in (None, int(path.name)):
        raise ValueError(f"{path} is the checkpoint of step {path.name}, and step {step} is given besides")
    return path.parent.parent, int(path.name)


def _mesh(mesh: str | MeshConfig | None) -> MeshConfig | None:
    return parse_mesh(mesh) if isinstance(mesh, str) else mesh
