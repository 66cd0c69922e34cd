"""The loop: evaluate, save, next batch, dispatch, prefetch the batch after it, then log the previous step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console

from videodit.checkpoint.checkpoints import Checkpoints
from videodit.checkpoint.workdir import prepare_workdir
from videodit.config.run import Run
from videodit.inference.directory_lock import lock_workdir
from videodit.nn.state import abstract_module, matrix_axes_of, shardings_of
from videodit.parallel.distributed import guard_peer_failures, is_main_process
from videodit.parallel.mesh import make_mesh
from videodit.parallel.rules import count_shards, sharding_for
from videodit.train.batch import HostBatch, local_indices
from videodit.train.device_prefetcher import DevicePrefetcher, ResumableIterator
from videodit.train.heldout import HeldOut
from videodit.train.interruption import Interruption
from videodit.train.metrics_log import MetricsLog, NoLog
from videodit.train.optim import learning_rate, make_optimizer
from videodit.train.progress import TerminalProgress
from videodit.train.speed import SpeedMeter, peak_flops
from videodit.train.state import TrainState, abstract_state, init_state
from videodit.train.step import make_train_step
from videodit.train.step_log import StepLog
from videodit.train.task import Task

InitialParams = Callable[[Mesh], Mapping[str, jax.Array]]
"""Restores trained weights over a mesh, by dotted path."""


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
        state: on the devices.
        step: updates made.
        interrupted_by: the signal that stopped it early, or None.
        metrics: the latest value of every metric that was logged.
    """

    state: TrainState[jax.Array]
    step: int
    interrupted_by: str | None
    metrics: dict[str, float]


def train(
    run: Run,
    task: Task,
    train_batches: ResumableIterator,
    heldout_batches: Iterable[HostBatch] | None,
    workdir: Path,
    *,
    devices: Sequence[jax.Device] | None = None,
    console: Console | None = None,
    initial_params: InitialParams | None = None,
    strict: bool = False,
) -> Outcome:
    """Train to `run.steps`, resuming from the last checkpoint in `workdir` if there is one, bit for bit.

    A first SIGTERM or Ctrl-C after the first step saves at the current step and returns; a second one does not wait.
    Of several processes (`parallel.distributed.join`) all save at one step.

    Args:
        train_batches: an endless iterator of batches of `run.data.batch_size` clips, or in buckets; of several
            processes each has its `local_batch_indices`.
        heldout_batches: batches that every evaluation goes through; None evaluates and draws nothing.
        devices: what to train on; all devices if None.
        console: where progress is shown; standard error if None.
        initial_params: weights that a run without a checkpoint begins with.
        strict: refuse to resume from an earlier checkpoint where the last one is damaged.

    Raises:
        ValueError: before anything is written, when another process writes in the workdir, it holds another run, or a
            batch does not divide.
        NonFiniteLoss: when the loss or its gradient is no longer a number.
        DiskError: when the disk is full, read-only or failing.
        RuntimeError: when another process has taken over the workdir.
    """
    mesh = make_mesh(run.mesh, devices, heads=run.heads)
    sharding, replicated = batch_sharding(run, mesh), NamedSharding(mesh, PartitionSpec())
    schedule = learning_rate(run.optim, run.steps)
    module = abstract_module(task.init)
    optimizer = make_optimizer(run.optim, schedule, matrix_axes_of(module))
    graphdef, abstract = abstract_state(module, optimizer, mesh, stored=run.optim.params, average=run.ema > 0)

    with ExitStack() as stack:
        lock = stack.enter_context(lock_workdir(workdir))
        prepare_workdir(workdir, run)
        stack.enter_context(jax.set_mesh(mesh))
        stop = stack.enter_context(Interruption())
        checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints", run.keep))
        stack.enter_context(guard_peer_failures())
        restored = checkpoints.restore(abstract, strict=strict)
        if restored is None:
            params = initial_params and initial_params(mesh)
            state = init_state(task.init, optimizer, abstract, jax.random.key(run.seed), params)
        else:
            state, iterator_state = restored
            train_batches.set_state(iterator_state)
        start = step = int(state.step)

        log = stack.enter_context(closing(MetricsLog(workdir, start) if is_main_process() else NoLog()))
        progress = stack.enter_context(TerminalProgress(run.kind, start, run.steps, console))
        meter = _speed_meter(run, task, mesh)
        step_log = StepLog(log, progress, meter, checkpoints, log_every=run.log_every, last_step=run.steps)
        train_step = make_train_step(run, task, graphdef, optimizer, schedule, shardings_of(abstract))
        heldout = None
        if heldout_batches is not None:
            heldout = HeldOut(task, graphdef, heldout_batches, run.seed, sharding, replicated)
        frozen = jax.device_put(jax.device_get(task.frozen_arrays()), shardings_of(task.frozen_shardings(mesh)))
        batches = DevicePrefetcher(train_batches, sharding)
        progress.message(_describe_start(task, state, mesh, start))

        def due(every: int) -> bool:
            return step > start and every > 0 and (step % every == 0 or step == run.steps)

        while True:
            lock.check()
            last = stop.at(step) is not None or step >= run.steps
            if heldout and due(run.eval_every):
                step_log.pause()
                step_log.announce(step, heldout.metrics(state, frozen))
            if heldout and due(run.sample_every):
                step_log.pause()
                log.picture(step, heldout.picture(state, frozen))
            if due(run.save_every) or last:
                step_log.pause()
                checkpoints.save(step, state, batches.state)
            if last:
                break
            batch = next(batches, None)
            if batch is None:
                raise ValueError(f"the training data end at step {step} of {run.steps}: a loader must be endless")
            state, metrics = train_step(state, batch.batch, frozen)
            stop.listen()
            batches.prefetch()
            step += 1
            step_log.flush()
            step_log.defer(step, metrics, batch)
        saved = checkpoints.latest_step()
        if stop.name:
            progress.message(f"stopped by {stop.name}; saved at step {saved}, from which the same command resumes")
    return Outcome(state, step, stop.name, step_log.latest)


def local_batch_indices(run: Run) -> Callable[[int], tuple[int, ...]]:
    """Return the function from a batch's size to the indices that this process's data iterator has to serve.

    Raises:
        ValueError: as `batch_sharding`.
    """
    sharding = batch_sharding(run, make_mesh(run.mesh, heads=run.heads))
    return lambda size: local_indices(size, sharding)


def batch_multiple(run: Run) -> int:
    """Return what the clips of every batch have to be a multiple of: a micro-batch divides over all devices."""
    return count_shards("batch", make_mesh(run.mesh, heads=run.heads)) * run.optim.micro_batches


def batch_sharding(run: Run, mesh: Mesh) -> NamedSharding:
    """Return the sharding of the clips of a batch.

    Raises:
        ValueError: when a micro-batch does not divide over the mesh.
    """
    size = count_shards("batch", mesh) if run.data.bucketed else run.data.batch_size // run.optim.micro_batches
    return sharding_for(("batch",), (size,), mesh)


def _speed_meter(run: Run, task: Task, mesh: Mesh) -> SpeedMeter:
    peak, clips = peak_flops(mesh.devices.flat[0].device_kind), run.data.batch_size
    tokens = run.data.buckets.tokens or clips * task.tokens_per_clip
    has_flops = task.flops_per_clip is not None and not run.data.bucketed
    return SpeedMeter(tokens, clips * task.flops_per_clip if has_flops else None, peak and peak * mesh.size)


def _describe_start(task: Task, state: TrainState, mesh: Mesh, start: int) -> str:
    params = sum(p.size for p in jax.tree.leaves(state.params))
    kind = mesh.devices.flat[0].device_kind
    phrases = [f"{params / 1e6:.2f}M parameters on {mesh.size} x {kind}"]
    if start:
        phrases.append(f"resuming from step {start}")
    if task.flops_per_clip and peak_flops(kind) is None:
        phrases.append("no MFU, since the peak of this device is not known")
    phrases.append("compiling the step")
    return "; ".join(phrases)
