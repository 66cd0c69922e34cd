"""The loop: evaluate, save, next batch, dispatch, send the batch after it, then log the step before."""

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
from videodit.nn.state import abstract_module, matrix_axes_of, shardings_of
from videodit.parallel.distributed import guard_peer_failures, is_main_process
from videodit.parallel.mesh import make_mesh
from videodit.parallel.rules import count_shards, sharding_for
from videodit.train.batch import Feed, HostBatch, Loader, rows_of
from videodit.train.heldout import HeldOut
from videodit.train.interruption import Interruption
from videodit.train.metrics_log import MetricsLog, NoLog
from videodit.train.optim import learning_rate, make_optimizer
from videodit.train.progress import TerminalProgress
from videodit.train.speed import Meter, peak_flops
from videodit.train.state import TrainState, abstract_state, init_state
from videodit.train.step import make_train_step
from videodit.train.step_log import Report
from videodit.train.tasks import Task

InitialParams = Callable[[Mesh], Mapping[str, jax.Array]]


@dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    state: on the devices. step: updates made. interrupted_by: the signal that stopped it early, or None.
    metrics: the latest value of every number that was logged.
    """

    state: TrainState
    step: int
    interrupted_by: str | None
    metrics: dict[str, float]


def train(
    run: Run,
    task: Task,
    train_data: Loader,
    eval_data: Iterable[HostBatch] | None,
    workdir: Path,
    *,
    devices: Sequence[jax.Device] | None = None,
    console: Console | None = None,
    initial_params: InitialParams | None = None,
) -> Outcome:
    """Trains to `run.steps`, going on from the last checkpoint in `workdir` if there is one, bit for bit.

    A first SIGTERM or Ctrl-C saves at the current step and returns; a second one does not wait. Of several processes
    (`parallel.distributed.join`) all save at one step.

    Args:
        train_data: an endless loader of batches of `run.data.batch_size` clips, or in buckets; of several processes
            each has its `local_batch_indices`.
        eval_data: held-out batches, gone through at every evaluation; None evaluates and draws nothing.
        devices: what to train on; all devices if None.
        console: where progress is shown; standard error if None.
        initial_params: restores trained weights over the mesh, by dotted path, that a run without a checkpoint begins
            with.

    Raises:
        ValueError: before anything is written, when the workdir holds another run or a batch does not divide.
        NonFiniteLoss: when the loss or its gradient is no longer a number.
    """
    mesh = make_mesh(run.mesh, devices, heads=run.heads)
    rows = rows_sharding(run, mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    schedule = learning_rate(run.optim, run.steps)
    model = abstract_module(task.init)
    optimizer = make_optimizer(run.optim, schedule, matrix_axes_of(model))
    graphdef, abstract = abstract_state(model, optimizer, mesh, stored=run.optim.params, average=run.ema > 0)
    prepare_workdir(workdir, run)

    with ExitStack() as stack:
        stack.enter_context(jax.set_mesh(mesh))
        stop = stack.enter_context(Interruption())
        checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints", run.keep))
        stack.enter_context(guard_peer_failures())
        restored = checkpoints.restore(abstract)
        if restored is None:
            params = initial_params and initial_params(mesh)
            state = init_state(task.init, optimizer, abstract, jax.random.key(run.seed), params)
        else:
            state, loader_state = restored
            train_data.set_state(loader_state)
        start = step = int(state.step)

        log = stack.enter_context(closing(MetricsLog(workdir, start) if is_main_process() else NoLog()))
        progress = stack.enter_context(TerminalProgress(run.kind, start, run.steps, console))
        report = Report(log, progress, _meter(run, task, mesh), checkpoints, log_every=run.log_every, steps=run.steps)
        train_step = make_train_step(run, task, graphdef, optimizer, schedule, shardings_of(abstract))
        held_out = None if eval_data is None else HeldOut(task, graphdef, eval_data, run.seed, rows, whole)
        frozen = jax.device_put(jax.device_get(task.frozen()), shardings_of(task.frozen_places(mesh)))
        feed = Feed(train_data, rows)
        progress.say(_opening(task, state, mesh, start))

        def due(every: int) -> bool:
            return step > start and every > 0 and (step % every == 0 or step == run.steps)

        while True:
            last = stop.at(step) is not None or step >= run.steps
            if held_out and due(run.eval_every):
                report.pause()
                report.announce(step, held_out.metrics(state, frozen))
            if held_out and due(run.sample_every):
                report.pause()
                log.picture(step, held_out.picture(state, frozen))
            if due(run.save_every) or last:
                report.pause()
                checkpoints.save(step, state, feed.state)
            if last:
                break
            fed = next(feed, None)
            if fed is None:
                raise ValueError(f"the training data end at step {step} of {run.steps}: a loader must be endless")
            state, metrics = train_step(state, fed.batch, frozen)
            feed.prefetch()
            step += 1
            report.settle()
            report.expect(step, metrics, fed.clip_ids, fed.epochs)
        saved = checkpoints.latest_step()
        if stop.name:
            progress.say(f"stopped by {stop.name}; saved at step {saved}, from which the same command goes on")
    return Outcome(state, step, stop.name, report.latest)


def local_batch_indices(run: Run) -> Callable[[int], tuple[int, ...]]:
    """Given a batch's size, its rows that this process's loader has to serve, of all devices; `ValueError` as above."""
    sharding = rows_sharding(run, make_mesh(run.mesh, heads=run.heads))
    return lambda size: rows_of(size, sharding)


def batch_multiple(run: Run) -> int:
    """What the clips of every batch have to be a multiple of: a micro-batch divides over all devices there are."""
    return count_shards("batch", make_mesh(run.mesh, heads=run.heads)) * run.optim.micro_batches


def rows_sharding(run: Run, mesh: Mesh) -> NamedSharding:
    """Where the clips of a batch go.

    Raises:
        ValueError: when a micro-batch does not divide over the mesh.
    """
    size = count_shards("batch", mesh) if run.data.bucketed else run.data.batch_size // run.optim.micro_batches
    return sharding_for(("batch",), (size,), mesh)


def _meter(run: Run, task: Task, mesh: Mesh) -> Meter:
    peak, clips = peak_flops(mesh.devices.flat[0].device_kind), run.data.batch_size
    tokens = run.data.buckets.tokens or clips * task.tokens_per_clip
    known = task.flops_per_clip is not None and not run.data.bucketed
    return Meter(tokens, clips * task.flops_per_clip if known else None, peak and peak * mesh.size)


def _opening(task: Task, state: TrainState, mesh: Mesh, start: int) -> str:
    params = sum(p.size for p in jax.tree.leaves(state.params))
    kind = mesh.devices.flat[0].device_kind
    words = [f"{params / 1e6:.2f}M parameters on {mesh.size} x {kind}"]
    if start:
        words.append(f"going on from step {start}")
    if task.flops_per_clip and peak_flops(kind) is None:
        words.append("no MFU, since the peak of this device is not known")
    words.append("compiling the step")
    return "; ".join(words)
