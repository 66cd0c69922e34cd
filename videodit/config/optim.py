"""The optimizer of a run and its learning-rate schedule."""

from dataclasses import dataclass
from typing import Literal

from videodit.ranges import Decay, Epsilon, Positive, Share, Size, Steps, Weight, check_ranges

Stored = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer, its schedule, and the size of a micro-batch.

    kind: "adamw" (Loshchilov and Hutter 2019); or "muon" (Jordan et al. 2024) for the matrices of linear maps and
        convolutions, whose momentum it makes orthogonal, and AdamW for all else; or "adafactor" (Shazeer and Stern
        2018), which keeps a row and a column of second moments for a matrix and no first ones.
    lr: peak learning rate.
    schedule: "cosine" falls from the peak over the whole run; "wsd" (warm-up, stable, decay: Hu et al. 2024, MiniCPM)
        holds the peak and falls linearly in the last `decay` steps; "constant" holds it.
    warmup: steps of linear rise from zero.
    decay: steps of the fall of "wsd".
    final: the last learning rate, as a part of the peak.
    b1, b2, eps: Adam's moments.
    muon_rms: root mean square of Muon's update at a learning rate of 1. 0.2 is near Adam's, so that one learning rate
        serves both (Liu et al. 2025, arXiv:2502.16982).
    weight_decay: times the learning rate; kernels only (no biases, norms, embedding or modulation tables).
    clip: largest global norm of a gradient; 0 never clips.
    params, moments: what parameters and moments are stored in; bfloat16 parameters are rounded at random.
    micro_batches: parts that a batch is cut into, one after another, to save memory; the result is that of the batch.
    """

    kind: Literal["adamw", "muon", "adafactor"] = "adamw"
    lr: Positive = 1e-4
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup: Steps = 0
    decay: Steps = 0
    final: Share = 0.0
    b1: Decay = 0.9
    b2: Decay = 0.95
    eps: Epsilon = 1e-8
    muon_rms: Positive = 0.2
    weight_decay: Weight = 0.01
    clip: Weight = 1.0
    params: Stored = "float32"
    moments: Stored = "float32"
    micro_batches: Size = 1

    def __post_init__(self):
        check_ranges(self)
        if self.moments == "bfloat16" and self.b2 > 0.99:
            raise ValueError(f"b2 is {self.b2}: moments in bfloat16 stand still above 0.99")

    def check_steps(self, steps: int) -> None:
        """Raise ValueError when warm-up and decay do not fit in a run of `steps` steps."""
        decay = self.decay if self.schedule == "wsd" else 0
        if self.warmup + decay > steps:
            raise ValueError(
                f"{self.warmup} steps of warm-up and {decay} of decay do not fit in a run of {steps} steps"
            )
