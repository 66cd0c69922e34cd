"""Checkpoints: the whole state and the data iterator's position, written while training goes on."""

from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import LatestN

Weights = Literal["params", "ema"]
StateT = TypeVar("StateT")
# An array that several devices hold is cut among them to be written; below this it is not worth compiling that.
MIN_SLICE_BYTES = 1 << 20


class Checkpoints:
    """The checkpoints of one run; a context manager, which waits for the last one at the end.

    A checkpoint appears under its final name when it is complete: one that was cut off while being written is never
    seen, and is cleared away when the run resumes.

    Args:
        directory: where they are; created if missing.
        keep: how many are kept, the latest ones.
    """

    def __init__(self, directory: Path, keep: int):
        options = ocp.CheckpointManagerOptions(preservation_policy=LatestN(keep), cleanup_tmp_directories=True)
        arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=MIN_SLICE_BYTES)
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

    def latest_step(self) -> int | None:
        """Return the step of the last complete checkpoint, waiting for one that is being written."""
        self._manager.wait_until_finished()
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree, iterator_state: Any) -> None:
        """Start to write the state and the data iterator's position (plain JSON) unless this step has been saved.

        Returns when the arrays have been copied, so that the next step may consume them.
        """
        if step not in self._manager.all_steps():
            items = ocp.args.Composite(
                state=ocp.args.PyTreeSave(state), loader=ocp.args.JsonSave({"state": iterator_state})
            )
            self._manager.save(step, args=items, force=True)

    def restore(self, abstract: StateT) -> tuple[StateT, Any] | None:
        """Restore the last state, sharded as `abstract` says, and the data iterator's position; None if there is none.

        Args:
            abstract: shapes with shardings.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        state = ocp.args.PyTreeRestore(abstract, ocp.checkpoint_utils.construct_restore_args(abstract))
        items = ocp.args.Composite(state=state, loader=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        return restored["state"], restored["loader"]["state"]


def checkpoint_step(directory: Path, step: int | None = None) -> int:
    """Return the step of a checkpoint: `step` if it exists, the last one if it is None.

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


def save_params(directory: Path, params: PyTree, buffers: PyTree) -> None:
    """Write a checkpoint of step 0 with weights alone, array by array: at most one more is in memory meanwhile."""
    handler = ocp.PyTreeCheckpointHandler(save_concurrent_gb=1, use_compression=False)
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    with ocp.CheckpointManager(directory.absolute(), item_handlers={"state": handler}, options=options) as manager:
        items = {"params": params, "buffers": buffers}
        manager.save(0, args=ocp.args.Composite(state=ocp.args.PyTreeSave(items)), force=True)


def restore_params(
    directory: Path, step: int, weights: Weights, params: PyTree, buffers: PyTree, *, on_host: bool = False
) -> tuple[PyTree, PyTree]:
    """Restore the parameters and the buffers of one checkpoint, for inference; nothing else of it is read.

    Args:
        directory: the run's checkpoints.
        weights: the averaged parameters ("ema") or the last ones ("params").
        params, buffers: shapes with shardings (`nn.state.abstract_arrays`); the run may have had other devices.
        on_host: read NumPy arrays, and use no device memory.
    """
    item = {weights: params, "buffers": buffers}
    if on_host:
        restore_args = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype), item)
    else:
        restore_args = ocp.checkpoint_utils.construct_restore_args(item)
    args = ocp.args.PyTreeRestore(item, restore_args=restore_args, partial_restore=True)
    options, handlers = ocp.CheckpointManagerOptions(create=False), {"state": ocp.PyTreeCheckpointHandler()}
    with ocp.CheckpointManager(directory.absolute(), item_handlers=handlers, options=options) as manager:
        state = manager.restore(step, args=ocp.args.Composite(state=args))["state"]
    return state[weights], state["buffers"]
