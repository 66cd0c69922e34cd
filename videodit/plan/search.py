"""Search for the best mesh, remat policy and number of micro-batches: ranked by an estimate, then compiled."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from videodit_kernels.attention.tiles import Grid

from videodit.config.run import DiTRun, Run, VAERun
from videodit.models.dit import DiTConfig
from videodit.models.flops import Cost, count_attended_pairs, dit_cost, text_cost
from videodit.nn.embed import token_grid
from videodit.parallel.chips import Chip
from videodit.parallel.mesh import MeshConfig
from videodit.plan.compile import compile_plan
from videodit.plan.plan_report import Plan, format_mesh, summarize
from videodit.plan.program import default_vae
from videodit.plan.topology import Topology

# Activations of a block that are stored for the backward pass, by remat policy: bfloat16 values per token and unit of
# model width, and per token and unit of MLP width.
STORED_VALUES = {"none": (40, 4), "dots": (9, 2), "attention": (2, 0), "full": (1, 0)}
# Shares of the forward pass that are recomputed, by remat policy: products with parameters, and attention.
RECOMPUTED = {"none": (0, 0), "dots": (0, 1), "attention": (1, 0), "full": (1, 1)}
# Bytes of working memory per token and unit of width: 77 to 80 in the 1.3b and the 14b as compiled for v5e and v5p.
WORKING_BYTES = 80
# Shares of the peak that attention, by the width of the matrix unit, and other products reach, roughly.
ATTENTION_SHARE, MATMUL_SHARE = {128: 0.96, 256: 0.6}, 0.9
WIDE_MATRIX_UNIT = ("v6e", "tpu7x")  # 256, wider than a head


@dataclass(frozen=True)
class Candidate:
    """A run with a mesh, remat policy and micro-batches, and estimates of its bytes per chip and seconds per step."""

    run: DiTRun
    memory: float
    seconds: float

    @property
    def remat(self) -> str:
        """The remat policy."""
        return self.run.model.remat

    @property
    def kind(self) -> tuple[str, int, int]:
        """What candidates of similar speed share: a search compiles one of each kind before a second of any."""
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
    """Return the plans of the most promising candidates, best first: those that fit, by time without overlap.

    The batch is the run's. Plans that do not fit correct the estimates of memory of their remat policy.

    Args:
        most: the number of programs to compile.
        message: called with a line for every step of the search.

    Raises:
        ValueError: for an autoencoder, for CPUs, and if no mesh divides the batch.
        RuntimeError: if the compiler fails for all candidates; a failure for a single one is a message.
    """
    if not isinstance(run, DiTRun) or topology.chip is None:
        raise ValueError("a search is for training a transformer on TPUs: plan other programs mesh by mesh")
    candidates = list_candidates(run, topology, vae)
    if not candidates:
        raise ValueError(
            f"no mesh of {topology.num_devices} devices divides a batch of {run.data.batch_size}: pass another --batch"
        )
    message(f"{len(candidates)} candidates; compiling the {min(most, len(candidates))} most promising")
    plans, hbm_bytes, tried, failure = [], topology.chip.hbm_bytes, set(), None
    corrections = dict.fromkeys(STORED_VALUES, 1.0)  # compiled memory to estimated memory, by remat policy
    for number in range(1, min(most, len(candidates)) + 1):
        fitting = [each for each in candidates if each.memory * corrections[each.remat] <= hbm_bytes]
        if not fitting and any(plan.fits for plan in plans):
            break
        order = (lambda c: (c.kind in tried, c.seconds)) if fitting else (lambda c: c.memory * corrections[c.remat])
        candidate = min(fitting or candidates, key=order)
        candidates.remove(candidate)
        tried.add(candidate.kind)
        try:
            plan = compile_plan(candidate.run, topology, "train", vae, name=name)
        except (RuntimeError, ValueError) as error:
            failure = error
            message(f"{number}. {format_mesh(vars(candidate.run.mesh))}, remat {candidate.remat}: {error}")
            continue
        plans.append(plan)
        if not plan.fits:
            corrections[candidate.remat] = max(plan.bytes_per_chip["total"], 1.02 * hbm_bytes) / candidate.memory
        message(f"{number}. {summarize(plan)}")
    if not plans:
        raise failure
    return sorted(plans, key=rank)


def rank(plan: Plan) -> tuple[bool, float]:
    """Return a sort key: plans that fit first, then by time."""
    return not plan.fits, plan.seconds["step_no_overlap"]


def list_candidates(run: DiTRun, topology: Topology, vae: VAERun | None = None) -> list[Candidate]:
    """Return all meshes with every remat policy except offload, each with the fewest micro-batches that seem to fit."""
    clip = (run.data.frames, run.data.height, run.data.width)
    grid = token_grid((vae.model if vae else default_vae(run)).latent_shape(*clip)[:3], run.model.patch)
    candidates = []
    for mesh in list_meshes(run, topology):
        clips = run.data.batch_size // (mesh.data * mesh.fsdp)
        for remat in STORED_VALUES:
            for micro_batches in _divisors(clips):
                candidate = estimate(_replace(run, mesh, remat, micro_batches), topology, grid)
                if candidate.memory <= topology.chip.hbm_bytes:
                    break
            candidates.append(candidate)
    return candidates


def list_meshes(run: DiTRun, topology: Topology) -> list[MeshConfig]:
    """Return the meshes of a topology that divide the batch, the heads, the width and the slices.

    `tensor` is at most 8, `context` at most 64. If possible, parameters are not sharded finer than tiles of 16 rows,
    which XLA would gather by sums.
    """
    meshes = list(_divide_devices(run, topology))
    coarse = [mesh for mesh in meshes if run.model.width % (16 * mesh.fsdp * mesh.context) == 0]
    return coarse or meshes


def _divide_devices(run: DiTRun, topology: Topology) -> Iterator[MeshConfig]:
    devices, heads = topology.num_devices, run.model.num_heads
    for tensor in _divisors(math.gcd(devices, heads, 8)):
        for context in _divisors(devices // tensor):
            replicas = devices // (tensor * context)
            if run.data.batch_size % replicas or replicas % topology.slices or context > 64:
                continue
            for data in _divisors(replicas):
                if data % topology.slices == 0 and run.model.width % (replicas // data * context) == 0:
                    yield MeshConfig(data=data, fsdp=replicas // data, context=context, tensor=tensor)


def estimate(run: DiTRun, topology: Topology, grid: Grid) -> Candidate:
    """Estimate memory and time of a run from its configuration, to rank candidates.

    Args:
        grid: tokens of a clip along (t, y, x).
    """
    chip, mesh, model, text = topology.chip, run.mesh, run.model, run.data.text_length
    tokens = math.prod(grid)
    dit, encoder = dit_cost(model, tokens, text, grid=grid), text_cost(run.text, text)
    cost, replicas = dit + encoder, mesh.data * mesh.fsdp
    trained = dit.params * (run.lora is None) + encoder.params * (run.text_encoder is None)
    shards = mesh.fsdp * mesh.context * mesh.tensor
    # Of a micro-batch on a device.
    local_tokens = run.data.batch_size // replicas / run.optim.micro_batches * tokens / mesh.context
    per_width, per_mlp_width = STORED_VALUES[model.remat]
    values = per_width * model.width + per_mlp_width * model.mlp_width
    stored = 2 * model.depth * local_tokens * values / mesh.tensor
    state = (trained * _bytes_per_parameter(run) + 4 * (cost.params - trained)) / shards
    memory = chip.devices * (state + stored + WORKING_BYTES * local_tokens * model.width / mesh.tensor)
    compute = _compute_seconds(model, grid, cost, chip) * run.data.batch_size / topology.num_chips
    return Candidate(run, memory, compute + _link_seconds(run, chip, cost.params, local_tokens))


def _bytes_per_parameter(run: DiTRun) -> int:
    """Return the bytes of parameter, moments, EMA and gradient."""
    size = {"float32": 4, "bfloat16": 2}
    moments = 0 if run.optim.kind == "adafactor" else 2 * size[run.optim.moments]
    return 2 * size[run.optim.params] + moments + 4 * (run.ema > 0)


def _compute_seconds(model: DiTConfig, grid: Grid, cost: Cost, chip: Chip) -> float:
    """Return the seconds of a clip's training step on one chip, with recomputation."""
    attention = 4 * count_attended_pairs(model, math.prod(grid), grid) * model.width
    matmul = cost.forward_flops - attention
    matmul_recomputed, attention_recomputed = RECOMPUTED[model.remat]
    share = ATTENTION_SHARE[256 if chip.name in WIDE_MATRIX_UNIT else 128]
    # The backward attention kernel computes five products, the forward kernel two.
    work = matmul * (3 + matmul_recomputed) / MATMUL_SHARE + attention * (3.5 + attention_recomputed) / share
    return work / chip.flops


def _link_seconds(run: DiTRun, chip: Chip, params: int, local_tokens: float) -> float:
    """Return the seconds of collectives; larger groups have more links."""
    mesh, model, micro_batches = run.mesh, run.model, run.optim.micro_batches
    passes = 3 if model.remat != "none" else 2  # forward, recomputation, backward
    shards = mesh.fsdp * mesh.context

    # Gathered in bfloat16 for every pass; gradients are scattered in float32.
    parameters = _gather_seconds(micro_batches * params / mesh.tensor * (2 * passes + 4), shards, chip)
    gradients = _gather_seconds(8 * params / (shards * mesh.tensor), mesh.data, chip)
    activations = micro_batches * model.depth * 2 * local_tokens * model.width
    context = activations * 12 * (mesh.context > 1) * max(1.0, mesh.context / 16) / 2
    context_seconds = context * chip.devices / chip.link_bandwidth
    return parameters + gradients + context_seconds + _gather_seconds(20 * activations, mesh.tensor, chip)


def _gather_seconds(size: float, group: int, chip: Chip) -> float:
    links = min(chip.links, math.log2(group)) if group > 1 else 1
    return size * (group - 1) / group * chip.devices / (links * chip.link_bandwidth)


def _replace(run: DiTRun, mesh: MeshConfig, remat: str, micro_batches: int) -> DiTRun:
    model, optim = replace(run.model, remat=remat), replace(run.optim, micro_batches=micro_batches)
    return replace(run, mesh=mesh, model=model, optim=optim)


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]
