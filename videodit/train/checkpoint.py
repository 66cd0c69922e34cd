"""Checkpoints: the whole state and the loader's position, written while training goes on."""

from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import LatestN

from videodit.train.state import TrainState

Which = Literal["params", "ema"]
# An array that several devices hold is cut among them to be written; below this it is not worth compiling that.
LEAST_SLICE = 1 << 20


class Checkpoints:
    """The checkpoints of one run; a context manager, which waits for the last one at the end.

    A checkpoint appears under its final name when it is whole: one that was cut off while being written is never seen,
    and is cleared away when the run goes on.

    Args:
        directory: where they are; made if missing.
        keep: how many are kept, the latest ones.
    """

    def __init__(self, directory: Path, keep: int):
        options = ocp.CheckpointManagerOptions(preservation_policy=LatestN(keep), cleanup_tmp_directories=True)
        arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=LEAST_SLICE)
        registry = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
        handlers = {
            "state": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
            "loader": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(directory.absolute(), item_handlers=handlers, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The step of the last checkpoint that is whole, waiting for one that is being written."""
        self._manager.wait_until_finished()
        return self._manager.latest_step()

    def save(self, state: TrainState, loader_state: Any) -> None:
        """Starts to write the state and the loader's position (plain JSON) unless this step has been saved.

        Returns when the arrays have been copied, so that the next step may consume them.
        """
        step = int(state.step)
        if step not in self._manager.all_steps():
            items = {"state": ocp.args.PyTreeSave(state), "loader": ocp.args.JsonSave({"state": loader_state})}
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def restore(self, abstract: TrainState) -> tuple[TrainState, Any] | None:
        """The last state, laid out as `abstract` says (shapes and shardings), and the loader's position; or None."""
        step = self._manager.latest_step()
        if step is None:
            return None
        state = ocp.args.PyTreeRestore(abstract, ocp.checkpoint_utils.construct_restore_args(abstract))
        items = ocp.args.Composite(state=state, loader=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        return restored["state"], restored["loader"]["state"]


def checkpoint_step(directory: Path, step: int | None = None) -> int:
    """The step of the checkpoint asked for, or of the last one if None is.

    Raises:
        ValueError: when there is no such checkpoint, naming those that there are.
    """
    steps = sorted(ocp.utils.checkpoint_steps(directory)) if directory.is_dir() else []
    if not steps:
        raise ValueError(f"there is no checkpoint in {directory}")
    if step is None:
        return steps[-1]
    if step not in steps:
        raise ValueError(f"there is no checkpoint of step {step} in {directory}, only of {', '.join(map(str, steps))}")
    return step


def save_params(directory: Path, params: Any, buffers: Any) -> None:
    """Writes a checkpoint of step 0 that has weights alone, array by array: at most one more is held meanwhile."""
    handler = ocp.PyTreeCheckpointHandler(save_concurrent_gb=1, use_compression=False)
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    with ocp.CheckpointManager(directory.absolute(), item_handlers={"state": handler}, options=options) as manager:
        items = {"params": params, "buffers": buffers}
        manager.save(0, args=ocp.args.Composite(state=ocp.args.PyTreeSave(items)), force=True)


def restore_params(
    directory: Path, step: int, which: Which, params: Any, buffers: Any, *, on_host: bool = False
) -> tuple[Any, Any]:
    """The parameters and the untrained variables of one checkpoint, for inference; nothing else of it is read.

    Args:
        directory: the run's checkpoints.
        which: the averaged parameters ("ema") or the last ones ("params").
        params, buffers: shapes and places of what is read, of `abstract_model`; the run may have had other devices.
        on_host: read NumPy arrays, and leave the devices alone.
    """
    item = {which: params, "buffers": buffers}
    if on_host:
        how = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype), item)
    else:
        how = ocp.checkpoint_utils.construct_restore_args(item)
    args = ocp.args.PyTreeRestore(item, restore_args=how, partial_restore=True)
    options, handlers = ocp.CheckpointManagerOptions(create=False), {"state": ocp.PyTreeCheckpointHandler()}
    with ocp.CheckpointManager(directory.absolute(), item_handlers=handlers, options=options) as manager:
        state = manager.restore(step, args=ocp.args.Composite(state=args))["state"]
    return state[which], state["buffers"]
