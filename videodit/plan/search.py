"""Which mesh, remat policy and number of micro-batches are best: ranked by a rough estimate, then compiled."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from videodit.config.run import DiTRun, Run, VAERun
from videodit.models.dit import DiTConfig
from videodit.models.flops import Cost, dit_cost, text_cost
from videodit.models.text_to_video import count_tokens
from videodit.parallel.chips import Chip
from videodit.parallel.mesh import MeshConfig
from videodit.plan.compile import compile_plan
from videodit.plan.plan_report import Plan, choices, mesh_text
from videodit.plan.program import default_vae
from videodit.plan.topology import Topology

# Kept of a block for the backward pass, in bfloat16 values a token and unit of width (and of the MLP's), by policy; and
# what is computed again, as shares of the forward pass: its products with parameters, and attention.
KEPT = {"none": (40, 4), "dots": (9, 2), "attention": (2, 0), "full": (1, 0)}
AGAIN = {"none": (0, 0), "dots": (0, 1), "attention": (1, 0), "full": (1, 1)}
# Bytes at work a token and unit of width: 77 to 80 in the 1.3b and the 14b as compiled for v5e and v5p.
WORKING = 80
# Of attention and of other products, of their peak: good enough to choose by.
ATTENTION_SHARE, MATMUL_SHARE = {128: 0.96, 256: 0.6}, 0.9
DEEP = ("v6e", "tpu7x")  # whose matrix unit is wider than a head


@dataclass(frozen=True)
class Candidate:
    """A run as it might be, with a guess of its bytes a chip and seconds a step."""

    run: DiTRun
    memory: float
    seconds: float

    @property
    def remat(self) -> str:
        return self.run.model.remat

    @property
    def kind(self) -> tuple[str, int, int]:
        """What it has in common with others that are about as fast: only one of a kind is worth trying at first."""
        return self.remat, self.run.mesh.context, self.run.mesh.tensor


def search(
    run: Run,
    topology: Topology,
    vae: VAERun | None = None,
    *,
    name: str = "",
    most: int = 6,
    message: Callable[[str], None] = lambda line: None,
) -> list[Plan]:
    """Plans of the candidates worth compiling, best first: those that fit, by their time without overlap, then others.

    The batch is the run's. What turns out not to fit teaches how far the guesses of memory are off.

    Args:
        most: programs that are compiled.
        message: called with a line for every step of the search.

    Raises:
        ValueError: for an autoencoder, a machine of CPUs, and when no mesh divides the batch.
        RuntimeError: when the compiler fails for all that are tried; what fails for some is told and passed over.
    """
    if not isinstance(run, DiTRun) or topology.chip is None:
        raise ValueError("a search is for training a transformer on TPUs: plan other programs mesh by mesh")
    waiting = candidates(run, topology, vae)
    if not waiting:
        raise ValueError(
            f"no mesh of {topology.num_devices} devices divides a batch of {run.data.batch_size}: give another --batch"
        )
    message(f"{len(waiting)} candidates; compiling the {min(most, len(waiting))} that look best")
    plans, room, off, tried, failure = [], topology.chip.hbm_bytes, dict.fromkeys(KEPT, 1.0), set(), None
    for turn in range(1, min(most, len(waiting)) + 1):
        fitting = [candidate for candidate in waiting if candidate.memory * off[candidate.remat] <= room]
        if not fitting and any(plan.fits for plan in plans):
            break
        order = (lambda c: (c.kind in tried, c.seconds)) if fitting else (lambda c: c.memory * off[c.remat])
        chosen = min(fitting or waiting, key=order)
        waiting.remove(chosen)
        tried.add(chosen.kind)
        try:
            plan = compile_plan(chosen.run, topology, "train", vae, name=name)
        except (RuntimeError, ValueError) as error:
            failure = error
            message(f"{turn}. {mesh_text(vars(chosen.run.mesh))}, remat {chosen.remat}: {error}")
            continue
        plans.append(plan)
        if not plan.fits:
            off[chosen.remat] = max(plan.bytes_per_chip["total"], 1.02 * room) / chosen.memory
        message(f"{turn}. {summary(plan)}")
    if not plans:
        raise failure
    return sorted(plans, key=rank)


def rank(plan: Plan) -> tuple[bool, float]:
    """Smaller is better: what fits, then what takes less time."""
    return not plan.fits, plan.seconds["step_no_overlap"]


def summary(plan: Plan) -> str:
    """A candidate on one line."""
    low, high = (100 * plan.mfu[end] for end in ("no_overlap", "full_overlap"))
    return (
        f"{choices(plan)}: "
        f"{plan.bytes_per_chip['total'] / 2**30:.1f} of {plan.hbm_bytes / 2**30:.0f} GiB, "
        f"MFU {low:.1f} to {high:.1f}%, {plan.seconds['step_no_overlap']:.2f} s{', does not fit' * (not plan.fits)}"
    )


def candidates(run: DiTRun, topology: Topology, vae: VAERun | None = None) -> list[Candidate]:
    """The meshes worth trying, with every remat policy but offloading, in the fewest micro-batches that seem to fit."""
    clip = (run.data.frames, run.data.height, run.data.width)
    tokens = count_tokens(run.model, (vae.model if vae else default_vae(run)).latent_shape(*clip))
    found = []
    for mesh in meshes(run, topology):
        rows = run.data.batch_size // (mesh.data * mesh.fsdp)
        for remat in KEPT:
            for parts in _divisors(rows):
                candidate = guess(_with(run, mesh, remat, parts), topology, tokens)
                if candidate.memory <= topology.chip.hbm_bytes:
                    break
            found.append(candidate)
    return found


def meshes(run: DiTRun, topology: Topology) -> list[MeshConfig]:
    """Sizes that multiply to the devices and divide the batch, the heads, the width and the slices: `tensor` up to 8,
    `context` up to 64.

    Where that leaves a choice, parameters are not cut finer than a tile of 16 rows, which XLA would gather by sums.
    """
    found = list(_meshes(run, topology))
    coarse = [mesh for mesh in found if run.model.width % (16 * mesh.fsdp * mesh.context) == 0]
    return coarse or found


def _meshes(run: DiTRun, topology: Topology) -> Iterator[MeshConfig]:
    devices, heads = topology.num_devices, run.model.num_heads
    for tensor in _divisors(math.gcd(devices, heads, 8)):
        for context in _divisors(devices // tensor):
            rows = devices // (tensor * context)
            if run.data.batch_size % rows or rows % topology.slices or context > 64:
                continue
            for data in _divisors(rows):
                if data % topology.slices == 0 and run.model.width % (rows // data * context) == 0:
                    yield MeshConfig(data=data, fsdp=rows // data, context=context, tensor=tensor)


def guess(run: DiTRun, topology: Topology, tokens: int) -> Candidate:
    """What a candidate needs, from its configuration alone: to choose by, not to report."""
    chip, mesh, model, text = topology.chip, run.mesh, run.model, run.data.text_length
    dit, words = dit_cost(model, tokens, text), text_cost(run.text, text)
    cost, rows = dit + words, mesh.data * mesh.fsdp
    trained = dit.params * (run.lora is None) + words.params * (run.text_encoder is None)
    shards, parts = mesh.fsdp * mesh.context * mesh.tensor, run.optim.micro_batches
    here = run.data.batch_size // rows / parts * tokens / mesh.context  # tokens of a micro-batch on a device
    width, hidden = KEPT[model.remat]
    kept = 2 * model.depth * here * (width * model.width + hidden * model.mlp_width) / mesh.tensor
    state = (trained * _bytes_a_parameter(run) + 4 * (cost.params - trained)) / shards
    memory = chip.devices * (state + kept + WORKING * here * model.width / mesh.tensor)
    compute = _compute_seconds(model, tokens, cost, chip) * run.data.batch_size / topology.num_chips
    return Candidate(run, memory, compute + _link_seconds(run, chip, cost.params, here))


def _bytes_a_parameter(run: DiTRun) -> int:
    """Of parameter, moments, average and gradient."""
    size = {"float32": 4, "bfloat16": 2}
    moments = 0 if run.optim.kind == "adafactor" else 2 * size[run.optim.moments]
    return 2 * size[run.optim.params] + moments + 4 * (run.ema > 0)


def _compute_seconds(model: DiTConfig, tokens: int, cost: Cost, chip: Chip) -> float:
    """Of a clip on one chip, recomputation included."""
    attention = 4 * model.depth * tokens**2 * model.width
    matmul = cost.forward_flops - attention
    matmul_again, attention_again = AGAIN[model.remat]
    share = ATTENTION_SHARE[256 if chip.name in DEEP else 128]
    # A backward attention kernel makes five products for the forward's two.
    work = matmul * (3 + matmul_again) / MATMUL_SHARE + attention * (3.5 + attention_again) / share
    return work / chip.flops


def _link_seconds(run: DiTRun, chip: Chip, params: int, here: float) -> float:
    """Of collectives: larger groups have more links, twice as many if they are the first of a new side."""
    mesh, model, parts = run.mesh, run.model, run.optim.micro_batches
    passes = 3 if model.remat != "none" else 2  # forward, again, backward
    shared = mesh.fsdp * mesh.context

    # In bfloat16 for every pass, and gradients in float32 back.
    parameters = _gather_seconds(parts * params / mesh.tensor * (2 * passes + 4), shared, chip)
    gradients = _gather_seconds(8 * params / (shared * mesh.tensor), mesh.data, chip)
    tokens = parts * model.depth * 2 * here * model.width
    exchanged = tokens * 12 * (mesh.context > 1) * max(1.0, mesh.context / 16) / 2 * chip.devices / chip.link_bandwidth
    return parameters + gradients + exchanged + _gather_seconds(20 * tokens, mesh.tensor, chip)


def _gather_seconds(size: float, group: int, chip: Chip) -> float:
    links = min(chip.links, math.log2(group)) if group > 1 else 1
    return size * (group - 1) / group * chip.devices / (links * chip.link_bandwidth)


def _with(run: DiTRun, mesh: MeshConfig, remat: str, parts: int) -> DiTRun:
    return replace(run, mesh=mesh, model=replace(run.model, remat=remat), optim=replace(run.optim, micro_batches=parts))


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
