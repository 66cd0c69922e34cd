"""The plan of a program on a topology, as figures and as text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from videodit.provenance import JSON

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
    "optimiser": "optimizer",
    "ema": "EMA",
    "inputs": "inputs",
    "gradients": "gradients",
    "activations": "stored activations",
    "working": "working memory",
    "outputs": "outputs",
    "code": "program",
}
"""Parts of a chip's memory, in display order."""

CAUSES = {
    "model": "model FLOPs at peak",
    "again": "recomputation, padding",
    "attention": "attention below peak",
    "matmul": "matrices below peak",
    "hbm": "memory traffic",
    "collectives": "collectives",
    "host": "host transfers",
}
"""Parts of a step without overlap, in display order."""

SECONDS = {
    "matmul": "matrices",
    "attention": "attention",
    "hbm": "memory traffic",
    "collectives": "collectives",
    "host": "host transfers",
}
"""The same if the model's FLOPs are unknown."""


@dataclass(frozen=True)
class Plan:
    """Memory, FLOPs, communication and time of a program; bytes and seconds are per chip and step.

    Times are None if the chip's speed is unknown; fields that need the model's FLOPs are None if those are unknown.

    Attributes:
        config: the name of the configuration.
        what: the program, a `ProgramName`.
        topology: the target topology.
        batch, micro_batches, remat: of the configuration; `remat` is "-" for other programs than training.
        tokens_per_clip: of the transformer, or latent positions of an autoencoder.
        chips: the number of chips.
        mesh: devices along each axis.
        fits: whether memory suffices.
        hbm_bytes: memory of a chip; None for CPUs.
        bytes_per_chip: by part, with `temporary` (gradients, activations and working memory) and `total`.
        flops_per_step: of all chips: `model`, without recomputation, and `hardware`, with recomputation and padding.
        collective_bytes_per_step: by kind: the larger of the bytes that a chip sends and receives.
        seconds: `matmul`, `attention`, `hbm`, `collectives`, `host`, and of the step without overlap
            (`step_no_overlap`) and with full overlap (`step_full_overlap`).
        causes: the seconds without overlap, split into the model's FLOPs at peak and the causes of further time.
        mfu: `no_overlap` and `full_overlap`.
        tokens_per_second_per_chip: without overlap.
        compile_seconds: of the compiler.
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

    def to_json(self) -> dict[str, JSON]:
        """Return the fields as JSON."""
        return asdict(self)

    def cost(self, price: float, steps: int) -> tuple[float, float]:
        """Return the cost of steps with full overlap and without overlap.

        Args:
            price: of a chip per hour.
        """
        hours = [self.seconds[f"step_{end}"] / 3600 for end in ("full_overlap", "no_overlap")]
        least, most = (price * self.chips * steps * h for h in hours)
        return least, most


def format_mesh(mesh: Mapping[str, int]) -> str:
    """Return a mesh as the value of `--mesh`."""
    return ",".join(f"{name}={size}" for name, size in mesh.items() if size > 1 and name != "ulysses") or "data=1"


def describe_program(plan: Plan) -> str:
    """Return program, configuration and topology in words."""
    return f"{PROGRAMS[plan.what]} of {plan.config} on {plan.topology}"


def describe_choices(plan: Plan) -> str:
    """Return mesh, batch, micro-batches and remat policy in words."""
    return (
        f"{format_mesh(plan.mesh)}, batch {plan.batch}"
        + f" in {plan.micro_batches} micro-batches" * (plan.micro_batches > 1)
        + f", remat {plan.remat}" * (plan.remat != "-")
    )


def format_overrides(plan: Plan) -> str:
    """Return the plan as command-line overrides of its configuration."""
    keys = {f"mesh.{name}": size for name, size in plan.mesh.items()}
    keys |= {"data.batch_size": plan.batch, "optim.micro_batches": plan.micro_batches}
    if plan.remat != "-":
        keys["model.remat"] = plan.remat
    return " ".join(f"--config.{key}={value}" for key, value in keys.items())


def describe(plan: Plan, price: float | None, steps: int) -> dict[str, JSON]:
    """Return a plan as JSON, with `cost` of the steps if there is a price per chip-hour and the speed is known."""
    fields = plan.to_json()
    if price is not None and plan.seconds:
        low, high = plan.cost(price, steps)
        fields["cost"] = {"steps": steps, "full_overlap": low, "no_overlap": high}
    return fields


def format_ranking(plans: Sequence[Plan], price: float | None = None, steps: int = 0) -> Iterator[str]:
    """Yield the plans of a search on a line each, best first, then the best in full if it fits."""
    yield from (f"{number}. {summarize(plan)}" for number, plan in enumerate(plans, 1))
    if not plans[0].fits:
        yield "none of these fits: use more chips, a smaller --batch, or bfloat16 moments (--config.optim.moments)"
        return
    yield ""
    yield from format_lines(plans[0], price, steps)
    yield f"best: {format_overrides(plans[0])}"


def summarize(plan: Plan) -> str:
    """Return a plan on one line."""
    low, high = (100 * plan.mfu[end] for end in ("no_overlap", "full_overlap"))
    return (
        f"{describe_choices(plan)}: "
        f"{plan.bytes_per_chip['total'] / 2**30:.1f} of {plan.hbm_bytes / 2**30:.0f} GiB, "
        f"MFU {low:.1f} to {high:.1f}%, {plan.seconds['step_no_overlap']:.2f} s{', does not fit' * (not plan.fits)}"
    )


def format_lines(plan: Plan, price: float | None = None, steps: int = 0) -> Iterator[str]:
    """Yield the lines of a plan as text, with the cost of the steps if there is a price per chip-hour."""
    yield from _format_program(plan)
    if plan.seconds:
        yield from _format_speed(plan)
        if price is not None:
            low, high = plan.cost(price, steps)
            yield f"{steps} steps cost {low:,.0f} to {high:,.0f} at {price:g} per chip-hour"


def _format_program(plan: Plan) -> Iterator[str]:
    tokens = f"{plan.tokens_per_clip:,} tokens per clip"
    yield f"{describe_program(plan)}: {describe_choices(plan)}, {tokens}; compiled in {plan.compile_seconds:.0f} s"
    yield from _format_memory(plan)
    model, hardware = plan.flops_per_step["model"], plan.flops_per_step["hardware"]
    if model:
        yield f"FLOPs per step: {model:.4g} of the model, {hardware:.4g} in hardware ({hardware / model:.2f} times)"
    else:
        yield f"FLOPs per step: {hardware:.4g} in hardware"
    moved = ", ".join(f"{kind} {size / 1e9:.3g}" for kind, size in plan.collective_bytes_per_step.items()) or "none"
    yield f"collectives, GB per chip and step: {moved}"


def _format_speed(plan: Plan) -> Iterator[str]:
    parts = ("matmul", "attention", "hbm", "collectives", "host")
    yield "seconds per step: " + ", ".join(f"{name} {plan.seconds[name]:.3g}" for name in parts if plan.seconds[name])
    low, high = plan.seconds["step_full_overlap"], plan.seconds["step_no_overlap"]
    yield f"step: {low:.3g} s (full overlap) to {high:.3g} s (no overlap)"
    if plan.mfu:
        yield f"MFU: {plan.mfu['no_overlap']:.1%} (no overlap) to {plan.mfu['full_overlap']:.1%} (full overlap)"
    if plan.causes:
        shares = (f"{CAUSES[name]} {seconds / high:.1%}" for name, seconds in plan.causes.items() if seconds > 0)
        yield "time without overlap: " + ", ".join(shares)
    yield f"tokens/s per chip, no overlap: {plan.tokens_per_second_per_chip:.0f}"


def _format_memory(plan: Plan) -> Iterator[str]:
    sizes = plan.bytes_per_chip
    parts = [f"{label} {_format_gib(sizes[name])}" for name, label in MEMORY.items() if sizes[name]]
    yield f"memory per chip: {_format_gib(sizes['total'])} GiB ({', '.join(parts)})"
    if plan.hbm_bytes:
        capacity, free = _format_gib(plan.hbm_bytes), plan.hbm_bytes - sizes["total"]
        if plan.fits:
            yield f"fits {capacity} GiB with {_format_gib(free)} to spare"
        elif free > 0:
            yield f"does not fit {capacity} GiB: the compiler reserves more than the remaining {_format_gib(free)}"
        else:
            yield f"does not fit {capacity} GiB: {_format_gib(-free)} too many"


def _format_gib(size: int) -> str:
    return f"{size / GIB:.2f}" if size > GIB / 10 else f"{size / GIB:.2g}"
