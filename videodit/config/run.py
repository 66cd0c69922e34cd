"""The configuration of a run: one tree of frozen dataclasses."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from videodit.config.data import DataConfig
from videodit.config.optim import OptimConfig
from videodit.diffusion.objective import ObjectiveConfig
from videodit.diffusion.sample import SamplerConfig
from videodit.models.condition_embedder import condition_names
from videodit.models.dit import DiTConfig
from videodit.models.text import TextConfig
from videodit.models.vae import VAEConfig
from videodit.models.vision import VisionConfig
from videodit.nn.attention_spec import describe_packing_obstacle
from videodit.nn.lora import LoRAConfig
from videodit.parallel.mesh import MeshConfig
from videodit.ranges import Decay, Range, Steps, Weight, check_ranges

SomeSteps = Annotated[int, Range(1, 2**31 - 1)]
LatentScale = Literal["channel", "global"]
LatentSampling = Literal["mean", "sample"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What every run has in common.

    seed: of the initial weights and of every step's noise.
    steps: the step at which the run ends.
    ema: decay of the weights' moving average; 0 keeps none, and the weights themselves are used in its place.
    log_every, eval_every, save_every, sample_every: steps between metrics, evaluations, checkpoints and pictures. An
        evaluation, a checkpoint and a picture are also made at the end; 0 never evaluates or draws, and saves at the
        end only.
    keep: how many checkpoints are kept, the latest ones.
    """

    kind: str
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    steps: SomeSteps
    data: DataConfig
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema: Decay = 0.999
    mesh: MeshConfig = field(default_factory=MeshConfig)
    log_every: SomeSteps = 10
    eval_every: Steps = 1000
    save_every: Steps = 1000
    sample_every: Steps = 1000
    keep: SomeSteps = 2

    @property
    def heads(self) -> int:
        """Attention heads that devices may share; 1 where there are none."""
        return 1

    def __post_init__(self):
        check_ranges(self)
        if self.data.batch_size % self.optim.micro_batches:
            raise ValueError(
                f"data.batch_size {self.data.batch_size} does not divide into {self.optim.micro_batches} micro_batches"
            )
        self.optim.check_steps(self.steps)


@dataclass(frozen=True, kw_only=True)
class VAERun(Run):
    """Training of the autoencoder: a weighted sum of errors, each a mean over a clip's values, and the divergence.

    l1, l2: weights of the absolute and of the squared error of pixels.
    gradient: weight of the absolute error of differences between neighbouring pixels, which keeps edges sharp.
    kl: weight of the divergence, nats a latent value.
    latent_scale: what latents are divided by for diffusion: the standard deviation of each "channel", or one for all
        ("global").
    """

    kind: Literal["vae"] = "vae"
    model: VAEConfig
    l1: Weight = 1.0
    l2: Weight = 0.0
    gradient: Weight = 0.0
    kl: Weight = 1e-4
    latent_scale: LatentScale = "channel"

    def __post_init__(self):
        super().__post_init__()
        if self.data.packed:
            raise ValueError("data.packing is for transformers: rows hold latents, not frames")
        self.model.latent_shape(self.data.frames, self.data.height, self.data.width)


@dataclass(frozen=True, kw_only=True)
class DiTRun(Run):
    """Training of the text-to-video transformer and its text encoder by flow matching in a frozen VAE's latents.

    Paths are searched in the run's own directory first.

    tokenizer: path of the sentencepiece model.
    vae: workdir of the autoencoder.
    text_encoder: workdir of a frozen text encoder of the shape `text`; None trains one along.
    image_encoder: workdir of the image encoder whose tokens the transformer attends to, of models with an image.
    first_frame: whether a clip may begin with a given first frame, in place of its noise (Wan 2.2's TI2V).
    low_noise_expert: workdir of a second transformer, used at times below the sampler's `expert_boundary` (Wan 2.2).
    lora: low-rank adapters, which are then all that is trained of the transformer; None trains all of it.
    latent_sampling: what is learnt of a clip: the "mean" of its latents' posterior, or a new "sample" of it each step.
    objective, sampler: what is trained for, at which times, and how samples are made.
    """

    kind: Literal["dit"] = "dit"
    model: DiTConfig
    text: TextConfig
    tokenizer: str
    vae: str
    text_encoder: str | None = None
    image_encoder: str | None = None
    first_frame: bool = False
    low_noise_expert: str | None = None
    lora: LoRAConfig | None = None
    latent_sampling: LatentSampling = "mean"
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self):
        super().__post_init__()
        if self.data.packed and (obstacle := describe_packing_obstacle(self.model.attention)):
            raise ValueError(f"model.attention does not go with data.packing: {obstacle}")
        data_conditions, model_conditions = ({*condition_names(part.conditions)} for part in (self.data, self.model))
        if lacking := sorted(model_conditions - data_conditions):
            raise ValueError(f"model.conditions has '{lacking[0]}', which data.conditions does not make of clips")

    @property
    def heads(self) -> int:
        return self.model.num_heads


@dataclass(frozen=True, kw_only=True)
class ImportedTextEncoder:
    """An imported text encoder."""

    kind: Literal["text"] = "text"
    model: TextConfig


@dataclass(frozen=True, kw_only=True)
class ImportedVisionEncoder:
    """An imported image encoder."""

    kind: Literal["vision"] = "vision"
    model: VisionConfig
