"""Checkpoints: the whole state and the data iterator's position, written while training goes on."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import LatestN

from videodit.checkpoint.checksums import checksum_json, compute_checksums, dotted_path
from videodit.checkpoint.disk_error import describe_last_step, describe_write_error
from videodit.checkpoint.newest_whole import DamagedCheckpoint, OtherStructure, Reading, find_newest_whole
from videodit.checkpoint.orbax_errors import describe_error, silence_orbax
from videodit.parallel.distributed import is_main_process, on_main_process

Weights = Literal["params", "ema"]
StateT = TypeVar("StateT")
# An array that several devices hold is cut among them to be written; below this it is not worth compiling that.
MIN_SLICE_BYTES = 1 << 20
SHOWN_PATHS = 3  # of each kind, in an error about another structure
DAMAGED = "damaged_checkpoints"
"""The directory, beside that of the checkpoints, of those that a resuming run could not read."""


class SaveError(RuntimeError):
    """A checkpoint could not be written; those from before are whole."""


class Checkpoints:
    """The checkpoints of one run; a context manager, which waits for the last one at the end.

    A checkpoint appears under its final name when it is complete: one that was cut off while being written is never
    seen, and is cleared away when the run resumes. It holds checksums of all of its arrays.

    Args:
        directory: where they are; created if missing.
        keep: how many are kept, the latest ones.
    """

    def __init__(self, directory: Path, keep: int):
        self._directory = directory.absolute()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=LatestN(keep),
            cleanup_tmp_directories=True,
            # Otherwise threads wait for a directory that could not be created, and keep a failed process for minutes.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=MIN_SLICE_BYTES)
        registry = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays))
        handlers = {
            # Compressing weights takes longer than it saves: they become 8% smaller.
            "state": ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_compression=False),
            "loader": ocp.JsonCheckpointHandler(),
            "checksums": ocp.JsonCheckpointHandler(),
        }
        silence_orbax()
        if is_main_process():
            for path in directory.glob("*.orbax-checkpoint-tmp*"):
                if path.is_symlink():  # Orbax clears away directories alone
                    path.unlink()
        self._saving, self._bytes = 0, 0  # step and size of the last save
        self._manager = ocp.CheckpointManager(self._directory, item_handlers=handlers, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        # What already ends the run is not replaced by what it does to a save.
        with contextlib.suppress(Exception) if kind else self._explain_errors():
            self._manager.close()

    def latest_step(self) -> int | None:
        """Return the step of the last complete checkpoint, waiting for one that is being written.

        Raises:
            SaveError: when it could not be written.
        """
        with self._explain_errors():
            self._manager.wait_until_finished()
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree, iterator_state: Any) -> None:
        """Start to write the state and the data iterator's position (plain JSON) unless this step has been saved.

        Returns when the arrays have been copied, so that the next step may consume them.

        Raises:
            SaveError: when this checkpoint, or the one before it, could not be written.
        """
        self.latest_step()
        if step in self._manager.all_steps():
            return
        self._saving, self._bytes = step, sum(x.nbytes for x in jax.tree.leaves(state))
        with self._explain_errors():
            checksums = {"arrays": compute_checksums(state), "loader": checksum_json(iterator_state)}
            items = ocp.args.Composite(
                state=ocp.args.PyTreeSave(state),
                loader=ocp.args.JsonSave({"state": iterator_state}),
                checksums=ocp.args.JsonSave(checksums),
            )
            self._manager.save(step, args=items, force=True)

    @contextlib.contextmanager
    def _explain_errors(self) -> Iterator[None]:
        """Turn any error of a save, in whatever thread, into a `SaveError`."""
        try:
            yield
        except jax.errors.JaxRuntimeError:  # of a process that is gone, or of a device
            raise
        except Exception as error:  # Orbax and TensorStore raise anything
            path = self._directory / str(self._saving)
            sentence = describe_write_error(error, path, needed=self._bytes, workdir=self._directory.parent)
            if sentence is None:
                last = max((step for step in _steps_in(self._directory) if step != self._saving), default=None)
                sentence = f"the checkpoint {path} could not be written ({describe_error(error)}); "
                sentence += describe_last_step(last)
            raise SaveError(sentence) from error

    def restore(self, abstract: StateT, *, strict: bool = False) -> tuple[StateT, Any] | None:
        """Restore the last state, sharded as `abstract` says, and the data iterator's position; None if there is none.

        A checkpoint that cannot be read is put aside, in `DAMAGED`, and the one before it is taken.

        Args:
            abstract: shapes with shardings.
            strict: refuse to take an earlier one.

        Raises:
            ValueError: when there are checkpoints, and none can be read; with `strict` when the last one cannot; when
                it has other arrays than `abstract`, or of other shapes. Nothing is moved then.
            DiskError: when the disk fails.
        """

        def read(folder: Path) -> Reading[tuple[StateT, Any]]:
            checksums, loader = _read_checksums(folder), _read_json(folder, "loader").get("state")
            if checksums and checksums.get("loader") != checksum_json(loader):
                raise DamagedCheckpoint("the data iterator's position is not what was saved")
            state = _read_arrays(folder, abstract, checksums)
            return Reading((state, loader), state, checksums and checksums["arrays"])

        steps = _steps_in(self._directory)
        if not steps:
            return None
        newest = find_newest_whole(self._directory, steps, read, strict=strict)
        if newest.damaged:
            on_main_process(lambda: _put_aside(self._directory, newest.damaged))
            self._manager.reload()
        return newest.value


def checkpoint_step(directory: Path, step: int | None = None) -> int:
    """Return the step of a checkpoint: `step` if it exists, the last one if it is None.

    Raises:
        ValueError: when there is no such checkpoint, naming those that there are.
    """
    return _candidate_steps(directory, step)[-1]


def save_params(directory: Path, params: PyTree, buffers: PyTree) -> None:
    """Write a checkpoint of step 0 with weights alone, array by array: at most one more is in memory meanwhile."""
    handlers = {
        "state": ocp.PyTreeCheckpointHandler(save_concurrent_gb=1, use_compression=False),
        "checksums": ocp.JsonCheckpointHandler(),
    }
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    items = {"params": params, "buffers": buffers}
    with ocp.CheckpointManager(directory.absolute(), item_handlers=handlers, options=options) as manager:
        checksums = ocp.args.JsonSave({"arrays": compute_checksums(items)})
        manager.save(0, args=ocp.args.Composite(state=ocp.args.PyTreeSave(items), checksums=checksums), force=True)


def restore_params(
    directory: Path,
    step: int | None,
    weights: Weights,
    params: PyTree,
    buffers: PyTree,
    *,
    on_host: bool = False,
    strict: bool = False,
) -> tuple[PyTree, PyTree, int]:
    """Restore the parameters and the buffers of one checkpoint, for inference; nothing else of it is read.

    Args:
        directory: the run's checkpoints.
        step: the checkpoint; None is the last one that can be read.
        weights: the averaged parameters ("ema") or the last ones ("params").
        params, buffers: shapes with shardings (`nn.state.abstract_arrays`); the run may have had other devices.
        on_host: read NumPy arrays, and use no device memory.
        strict: refuse to take an earlier checkpoint than the last.

    Returns:
        The parameters, the buffers and the step that they are of.

    Raises:
        ValueError: as `checkpoint_step`, and when what is to be read is damaged, is not there or has other shapes.
        DiskError: when the disk fails.
    """
    item = {weights: params, "buffers": buffers}

    def read(folder: Path) -> Reading[dict[str, PyTree]]:
        checksums = _read_checksums(folder)
        arrays = _read_arrays(folder, item, checksums, on_host=on_host, partial=True)
        return Reading(arrays, arrays, checksums and checksums["arrays"])

    newest = find_newest_whole(directory, _candidate_steps(directory, step), read, strict=strict)
    return newest.value[weights], newest.value["buffers"], newest.step


def _steps_in(directory: Path) -> list[int]:
    return sorted(ocp.utils.checkpoint_steps(directory)) if directory.is_dir() else []


def _candidate_steps(directory: Path, step: int | None) -> list[int]:
    """Return the steps of all checkpoints, or the one that is asked for; ValueError as `checkpoint_step`."""
    steps = _steps_in(directory)
    if not steps:
        raise ValueError(f"there is no checkpoint in {directory}")
    if step is not None and step not in steps:
        raise ValueError(f"there is no checkpoint of step {step} in {directory}, only of {', '.join(map(str, steps))}")
    return steps if step is None else [step]


def _read_arrays(
    folder: Path,
    abstract: StateT,
    checksums: Mapping[str, Any] | None,
    *,
    on_host: bool = False,
    partial: bool = False,
) -> StateT:
    """Read arrays of the checkpoint in a folder; errors as `_check_structure`, and any other of a damaged one."""
    if on_host:
        restore_args = jax.tree.map(lambda x: ocp.RestoreArgs(restore_type=np.ndarray, dtype=x.dtype), abstract)
    else:
        restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
    args = ocp.args.PyTreeRestore(abstract, restore_args=restore_args, partial_restore=partial)
    try:
        arrays = ocp.PyTreeCheckpointHandler().restore(_item(folder, "state"), args=args)
        # Orbax leaves out what a partial checkpoint lacks, and takes any shape for NumPy.
        if not all(jax.tree.leaves(jax.tree.map(_has_shape, abstract, arrays))):
            raise DamagedCheckpoint("it lacks arrays that it lists, or their shapes")
    except Exception:  # the structure takes a while to read: only when it may be the reason
        _check_structure(folder, abstract, checksums, partial=partial)
        raise
    return arrays


def _has_shape(expected: jax.ShapeDtypeStruct, x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray) and x.shape == expected.shape


def _check_structure(
    folder: Path, abstract: PyTree, checksums: Mapping[str, Any] | None, *, partial: bool = False
) -> None:
    """Check that the checkpoint in a folder has the arrays of `abstract`, and no others unless it is `partial`.

    Raises:
        OtherStructure: naming the first ones that differ.
        DamagedCheckpoint: when its list of arrays is not that of its checksums.
    """
    there = _shapes(ocp.PyTreeCheckpointHandler().metadata(_item(folder, "state")).tree)
    here = _shapes(abstract)
    if checksums and there.keys() != checksums["arrays"].keys():
        raise DamagedCheckpoint("its list of arrays is not what was saved")
    reshaped = [path for path in here if path in there and there[path] != here[path]]
    differing = {
        "only there": [] if partial else [path for path in there if path not in here],
        "only here": [path for path in here if path not in there],
        "of another shape": [f"{path}: {there[path]} there, {here[path]} here" for path in reshaped],
    }
    if any(differing.values()):
        described = [
            f"{len(paths)} {what} ({', '.join(paths[:SHOWN_PATHS])}{', ...' * (len(paths) > SHOWN_PATHS)})"
            for what, paths in differing.items()
            if paths
        ]
        raise OtherStructure(
            f"{folder} holds {len(there)} arrays, and not those {len(here)} that are to be read: "
            f"{'; '.join(described)}; read it with the configuration and the version that saved it"
        )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Return the shapes of arrays by dotted path, in alphabetical order."""
    leaves = jax.tree.leaves_with_path(tree)
    return dict(sorted((dotted_path(path), tuple(x.shape)) for path, x in leaves))


def _read_checksums(folder: Path) -> Mapping[str, Any] | None:
    """Return the checksums in a checkpoint; None for one of an earlier version, which has none."""
    if not (folder / "checksums").exists():
        return None
    checksums = _read_json(folder, "checksums")
    if not isinstance(checksums.get("arrays"), Mapping):
        raise DamagedCheckpoint("its checksums have no arrays")
    return checksums


def _read_json(folder: Path, name: str) -> Mapping[str, Any]:
    value = ocp.JsonCheckpointHandler().restore(_item(folder, name), args=ocp.args.JsonRestore())
    if not isinstance(value, Mapping):
        raise DamagedCheckpoint(f"its {name} is no JSON object")
    return value


def _item(folder: Path, name: str) -> Path:
    path = folder.absolute() / name
    if not path.is_dir():
        raise DamagedCheckpoint(f"it has no {name}")
    return path


def _put_aside(directory: Path, steps: list[int]) -> None:
    """Move checkpoints to `DAMAGED`, under a name that is free there."""
    target = directory.with_name(DAMAGED)
    target.mkdir(exist_ok=True)
    for step in steps:
        names = (f"{step}" if number == 0 else f"{step}-{number}" for number in range(len(list(target.iterdir())) + 1))
        shutil.move(directory / str(step), target / next(name for name in names if not (target / name).exists()))
