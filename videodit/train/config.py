"""The configuration of a run: one tree of frozen dataclasses."""

from dataclasses import dataclass, field
from typing import Literal

from videodit.diffusion.sample import SamplerConfig
from videodit.diffusion.timesteps import TimestepConfig
from videodit.models.dit import DiTConfig
from videodit.models.text import TextConfig
from videodit.models.vae import VAEConfig
from videodit.models.vision import VisionConfig
from videodit.nn.lora import LoRAConfig
from videodit.parallel.mesh import MeshConfig
from videodit.train.optim import OptimConfig, learning_rate

Spread = Literal["channel", "global"]
Posterior = Literal["mean", "draw"]


@dataclass(frozen=True, kw_only=True)
class PackingConfig:
    """Rows of one length that latents of clips of any size share.

    length: tokens of a row; 0 packs nothing: all clips are served in one size.
    clips: of a row at most. look_ahead: clips that a batch's rows are filled from.
    """

    length: int = 0
    clips: int = 16
    look_ahead: int = 512

    def __post_init__(self):
        for name, least in (("length", 0), ("clips", 1), ("look_ahead", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {least}")


@dataclass(frozen=True, kw_only=True)
class BucketsConfig:
    """Shapes that clips are served in, each clip in the best that it fills; a step is compiled for each shape in use.

    tokens: of a batch at most, as a transformer counts them (an autoencoder: latent positions); they say how many clips
        of each shape make one. 0 has no buckets: all clips are served in one size.
    sides: resolutions, as sides of squares of as many pixels. aspects: widths over heights. frames: lengths, each
        1 + 4k; 1 is that of images. upsample: how far a clip may be enlarged at most. Latents have shapes of their own.
    """

    tokens: int = 0
    sides: tuple[int, ...] = (256,)
    aspects: tuple[float, ...] = (9 / 16, 3 / 4, 1.0, 4 / 3, 16 / 9)
    frames: tuple[int, ...] = (1, 17, 33)
    upsample: float = 1.0

    def __post_init__(self):
        if self.tokens < 0:
            raise ValueError(f"tokens is {self.tokens}: it must be at least 0")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read, and as what clips.

    path, eval_path: data sets to train on and to evaluate on; None holds nothing out. Several may be named, with
        weights: "DIR:3,DIR:1".
    frames, height, width, fps: the clips' size; frames are 1 + 4k. In buckets or packed, that of clips that are
        sampled and planned for.
    batch_size: clips of a step, over all processes; packed, rows; in buckets their tokens say how many.
    buckets: clips of any size, each in the best of several shapes.
    packing: clips of latents of any size, several a row.
    eval_clips: held-out clips of one evaluation.
    text_length: tokens of a caption, padded or cut.
    caption_dropout: share of captions left empty, so that the model learns to do without (guidance needs that).
    num_threads, prefetch: threads that read and decode, and batches that they may be ahead.
    """

    path: str
    eval_path: str | None = None
    frames: int
    height: int
    width: int
    fps: float
    batch_size: int
    eval_clips: int = 64
    text_length: int = 32
    caption_dropout: float = 0.1
    num_threads: int = 4
    prefetch: int = 4
    buckets: BucketsConfig = field(default_factory=BucketsConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)

    @property
    def bucketed(self) -> bool:
        """Whether batches are of several shapes."""
        return self.buckets.tokens > 0

    @property
    def packed(self) -> bool:
        """Whether rows hold several clips."""
        return self.packing.length > 0

    def __post_init__(self):
        for name in ("frames", "height", "width", "fps", "batch_size", "eval_clips", "text_length", "num_threads"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0")
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"caption_dropout is {self.caption_dropout}: it is a share from 0 to 1")
        if self.packed and self.bucketed:
            raise ValueError("packing.length and buckets.tokens are both above 0: clips are packed or in buckets")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every run has.

    seed: of the initial weights and of every step's noise.
    steps: the step to end at.
    ema: decay of the weights' moving average; 0 keeps none, and what is said of the average holds of the weights.
    log_every, eval_every, save_every, sample_every: steps between metrics, evaluations, checkpoints and pictures. An
        evaluation, a checkpoint and a picture are also made at the end; 0 never evaluates or draws, and saves at the
        end only.
    keep: checkpoints kept, the latest ones.
    """

    kind: str
    seed: int = 0
    steps: int
    data: DataConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema: float = 0.999
    mesh: MeshConfig = field(default_factory=MeshConfig)
    log_every: int = 10
    eval_every: int = 1000
    save_every: int = 1000
    sample_every: int = 1000
    keep: int = 2

    @property
    def heads(self) -> int:
        """Of the attention that devices may share; 1 where there is none."""
        return 1

    def __post_init__(self):
        for name in ("steps", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("eval_every", "save_every", "sample_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be a number of steps, or 0 for never")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}: a decay lies from 0 up to, but not including, 1")
        if self.data.batch_size % self.optim.micro_batches:
            raise ValueError(
                f"data.batch_size {self.data.batch_size} does not divide into {self.optim.micro_batches} micro_batches"
            )
        learning_rate(self.optim, self.steps)


@dataclass(frozen=True, kw_only=True)
class VAERun(Run):
    """Training of the autoencoder: a weighted sum of errors, each a mean over a clip's values, and the divergence.

    l1, l2: weights of the absolute and of the squared error of pixels.
    gradient: weight of the absolute error of differences between neighbouring pixels, which keeps edges sharp.
    kl: weight of the divergence, nats a latent value.
    spread: what latents are divided by for diffusion, a spread for each "channel" or one for all ("global").
    """

    kind: Literal["vae"] = "vae"
    model: VAEConfig
    l1: float = 1.0
    l2: float = 0.0
    gradient: float = 0.0
    kl: float = 1e-4
    spread: Spread = "channel"

    def __post_init__(self):
        super().__post_init__()
        if self.data.packed:
            raise ValueError("data.packing is for transformers: rows hold latents, not frames")
        self.model.latent_shape(self.data.frames, self.data.height, self.data.width)


@dataclass(frozen=True, kw_only=True)
class DiTRun(Run):
    """Training of the text-to-video transformer and its text encoder by flow matching in a frozen VAE's latents.

    Paths are looked for in the run's own directory first.

    tokenizer: path of the sentencepiece model.
    vae: workdir of the autoencoder.
    text_encoder: workdir of a trained text encoder, of which `text` is the shape and which stays as it is; None trains
        one along.
    image_encoder: workdir of the image encoder whose tokens the transformer attends to, of models with an image.
    image_first: whether a clip may go on from a first frame that is not noisy (Wan 2.2's TI2V).
    expert: workdir of a second transformer, asked at times below the sampler's `boundary` (Wan 2.2).
    lora: adapters, which are all that is trained of the transformer then; None trains all of it.
    posterior: what is learnt of a clip, the "mean" of its latents' posterior, or a new "draw" from it at each step.
    timesteps, sampler: the times trained at, and how periodic samples are made.
    """

    kind: Literal["dit"] = "dit"
    model: DiTConfig
    text: TextConfig
    tokenizer: str
    vae: str
    text_encoder: str | None = None
    image_encoder: str | None = None
    image_first: bool = False
    expert: str | None = None
    lora: LoRAConfig | None = None
    posterior: Posterior = "mean"
    timesteps: TimestepConfig = field(default_factory=TimestepConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    @property
    def heads(self) -> int:
        return self.model.num_heads


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """A text encoder that is used as it is."""

    kind: Literal["text"] = "text"
    model: TextConfig


@dataclass(frozen=True, kw_only=True)
class VisionModel:
    """An image encoder that is used as it is."""

    kind: Literal["vision"] = "vision"
    model: VisionConfig
