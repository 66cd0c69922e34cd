"""What a plan says: of one program on one machine, as figures, as text, and as lines of a page."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

GIB = 2**30
PROGRAMS = {
    "train": "Training step",
    "sample": "Sampling",
    "denoise": "Denoising",
    "decode": "Decoding",
    "vae": "Reconstruction",
}
MEMORY = {
    "parameters": "parameters",
    "optimiser": "optimiser",
    "ema": "average",
    "inputs": "inputs",
    "gradients": "gradients",
    "activations": "activations kept",
    "working": "working memory",
    "outputs": "outputs",
    "code": "program",
}
"""Parts of a chip's memory, in the order in which they are shown."""

CAUSES = {
    "model": "model FLOPs at peak",
    "again": "recomputation, padding",
    "attention": "attention below peak",
    "matmul": "matrices below peak",
    "hbm": "memory traffic",
    "collectives": "collectives",
    "host": "host transfers",
}
"""Parts of a step without overlap, likewise."""

SECONDS = {
    "matmul": "matrices",
    "attention": "attention",
    "hbm": "memory traffic",
    "collectives": "collectives",
    "host": "host transfers",
}
"""The same where the model's FLOPs are not known."""


@dataclass(frozen=True)
class Plan:
    """What the compiler and the roofline say. Bytes and seconds are those of one chip and one step.

    Attributes:
        config, what, topology, batch, micro_batches, remat: what was planned.
        tokens_per_clip: of the transformer, or latent positions of an autoencoder.
        chips: how many there are.
        mesh: devices on each axis.
        fits: whether memory suffices.
        hbm_bytes: memory of a chip; None for a machine that is not in the table of chips.
        bytes_per_chip: by part, `temporary` (gradients, activations and working memory) and `total`.
        flops_per_step: of all chips: `model`, without recomputation (None if not known), and `hardware`, with it and
            with padding.
        collective_bytes_per_step: by kind: what a chip gives or gets, whichever is more.
        seconds: `matmul`, `attention`, `hbm`, `collectives`, `host`, and the step with all of those one after another
            (`step_no_overlap`) or at once (`step_full_overlap`).
        causes: the seconds without overlap again, by what they are lost to, from the model's FLOPs at peak on.
        mfu: `no_overlap` and `full_overlap`.
        tokens_per_second_per_chip: without overlap.
        compile_seconds: here.

    Times are None where the chip is not known, and what needs the model's FLOPs where those are not.
    """

    config: str
    what: str
    topology: str
    chips: int
    mesh: Mapping[str, int]
    batch: int
    tokens_per_clip: int
    micro_batches: int
    remat: str
    fits: bool
    hbm_bytes: int | None
    bytes_per_chip: Mapping[str, int]
    compile_seconds: float
    flops_per_step: Mapping[str, float | None]
    collective_bytes_per_step: Mapping[str, int]
    seconds: Mapping[str, float] | None = None
    causes: Mapping[str, float] | None = None
    mfu: Mapping[str, float] | None = None
    tokens_per_second_per_chip: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return asdict(self)

    def cost(self, price: float, steps: int) -> tuple[float, float]:
        """What `steps` steps cost at so much a chip and hour: with full overlap, and with none."""
        hours = [self.seconds[f"step_{end}"] / 3600 for end in ("full_overlap", "no_overlap")]
        least, most = (price * self.chips * steps * h for h in hours)
        return least, most


def mesh_text(mesh: Mapping[str, int]) -> str:
    """As `--mesh` takes it."""
    return ",".join(f"{name}={size}" for name, size in mesh.items() if size > 1 and name != "ulysses") or "data=1"


def title(plan: Plan) -> str:
    return f"{PROGRAMS[plan.what]} of {plan.config} on {plan.topology}"


def choices(plan: Plan) -> str:
    """What a search chooses among, and the batch."""
    return (
        f"{mesh_text(plan.mesh)}, batch {plan.batch}"
        + f" in {plan.micro_batches} micro-batches" * (plan.micro_batches > 1)
        + f", remat {plan.remat}" * (plan.remat != "-")
    )


def overrides(plan: Plan) -> str:
    """The plan as overrides of its configuration, ready to paste."""
    keys = {f"mesh.{name}": size for name, size in plan.mesh.items()}
    keys |= {"data.batch_size": plan.batch, "optim.micro_batches": plan.micro_batches}
    if plan.remat != "-":
        keys["model.remat"] = plan.remat
    return " ".join(f"--config.{key}={value}" for key, value in keys.items())


def lines(plan: Plan) -> Iterator[str]:
    """The plan for people."""
    tokens = f"{plan.tokens_per_clip:,} tokens a clip"
    yield f"{title(plan)}: {choices(plan)}, {tokens}; compiled in {plan.compile_seconds:.0f} s"
    yield from _memory_lines(plan)
    model, hardware = plan.flops_per_step["model"], plan.flops_per_step["hardware"]
    known = f"{model:.4g} of the model, " if model else ""
    yield f"FLOPs a step: {known}{hardware:.4g} in hardware" + (f" ({hardware / model:.2f} times)" if model else "")
    moved = ", ".join(f"{kind} {size / 1e9:.3g}" for kind, size in plan.collective_bytes_per_step.items()) or "none"
    yield f"collectives, GB a chip and step: {moved}"
    if plan.seconds is None:
        return
    parts = ("matmul", "attention", "hbm", "collectives", "host")
    yield "seconds a step: " + ", ".join(f"{name} {plan.seconds[name]:.3g}" for name in parts if plan.seconds[name])
    low, high = plan.seconds["step_full_overlap"], plan.seconds["step_no_overlap"]
    yield f"step: {low:.3g} s (everything overlaps) to {high:.3g} s (nothing does)"
    if plan.mfu:
        yield f"MFU: {plan.mfu['no_overlap']:.1%} (nothing overlaps) to {plan.mfu['full_overlap']:.1%}"
    if plan.causes:
        told = (f"{CAUSES[name]} {seconds / high:.1%}" for name, seconds in plan.causes.items() if seconds > 0)
        yield "where that time goes: " + ", ".join(told)
    yield f"tokens a second and chip, nothing overlapping: {plan.tokens_per_second_per_chip:.0f}"


def _memory_lines(plan: Plan) -> Iterator[str]:
    sizes = plan.bytes_per_chip
    parts = [f"{label} {_gib(sizes[name])}" for name, label in MEMORY.items() if sizes[name]]
    yield f"memory a chip: {_gib(sizes['total'])} GiB ({', '.join(parts)})"
    if plan.hbm_bytes:
        room = plan.hbm_bytes - sizes["total"]
        if plan.fits:
            yield f"fits {_gib(plan.hbm_bytes)} GiB with {_gib(room)} to spare"
        elif room > 0:
            yield f"does not fit {_gib(plan.hbm_bytes)} GiB: the compiler keeps more than {_gib(room)} for itself"
        else:
            yield f"does not fit {_gib(plan.hbm_bytes)} GiB: {_gib(-room)} too many"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}" if size > GIB / 10 else f"{size / GIB:.2g}"
