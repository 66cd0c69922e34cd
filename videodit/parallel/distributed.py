"""Several processes as one run: joining, what one does for all, and what became of the others."""

import contextlib
import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

HEARTBEAT_SECONDS = 30  # of silence after which a process is taken for dead, and ends the others
JOIN_SECONDS = 300
MEET_SECONDS = 7 * 24 * 3600
_MEETINGS = itertools.count()  # a name can be met under once
_WORDS = 1024  # bytes of an error that the first process tells the others


def join(address: str | None, processes: int | None, index: int | None, *, seconds: int = JOIN_SECONDS) -> None:
    """Joins the other processes of a run, before anything asks JAX for its devices.

    Args:
        address: `HOST:PORT` of the first process. processes, index: how many there are, and which this one is. All
            three None: JAX finds out, on TPU pods, under Slurm, Open MPI and Kubernetes.
        seconds: to wait for the others.

    Raises:
        RuntimeError: when they cannot be joined, with the address and what to check. Where JAX ends the process by
            itself, that has been said before.
    """
    where = address or os.environ.get("JAX_COORDINATOR_ADDRESS") or "the address that the cluster names"
    who = "this process" if index is None else f"process {index} of {processes}"
    check = (
        "check that process 0 is up on that host, that its port is open to all hosts, and that all of them were "
        "started with one address and one count"
    )
    try:
        if address and index:
            _wait_for(address, seconds)
        elif address:
            print(
                f"videodit: {who} waits for the others at {where}, {seconds} s at most; if it ends, {check}",
                file=sys.stderr,
                flush=True,
            )
        jax.distributed.initialize(
            address,
            processes,
            index,
            initialization_timeout=seconds,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RuntimeError(f"{who} could not join the run at {where} ({reason}): {check}") from error


def _wait_for(address: str, seconds: float) -> None:
    """Until the first process listens: otherwise JAX's client would end this one without naming the address."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def is_first() -> bool:
    """Whether this is the process that writes and says things for all."""
    return jax.process_index() == 0


def on_first(fn: Callable[[], Any]) -> None:
    """Calls `fn` in the first process; all wait for it.

    Raises:
        ValueError: in all of them, when it raised one (or an OSError) there.
    """
    if jax.process_count() == 1:
        fn()
        return
    words = b""
    if is_first():
        try:
            fn()
        except (ValueError, OSError) as error:
            words = str(error).encode()[:_WORDS] or b"?"
    told = multihost_utils.broadcast_one_to_all(np.frombuffer(words.ljust(_WORDS, b"\0"), np.uint8))
    if said := bytes(np.asarray(told)).rstrip(b"\0"):
        raise ValueError(said.decode(errors="replace"))


def first_says(values: Sequence[bool]) -> list[bool]:
    """What the first process says, in all of them; as many values in each."""
    if jax.process_count() == 1 or not values:
        return list(values)
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(values))).tolist()


def first_writes(text: str) -> str:
    """What the first process writes, in all of them."""
    if jax.process_count() == 1:
        return text
    written = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(written))))
    told = multihost_utils.broadcast_one_to_all(written if is_first() else np.zeros(size, np.uint8))
    return bytes(np.asarray(told)).decode()


def wait_for_all(what: str) -> None:
    """Returns when all processes have come to this point, whose name they agree on."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def meet(what: str) -> None:
    """As `wait_for_all`, for processes that may come hours after another: no device waits for that."""
    if jax.process_count() > 1:
        ocp.multihost.get_barrier_sync_fn()(key=f"{what} {next(_MEETINGS)}", timeout_ms=MEET_SECONDS * 1000)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What several processes compute together; they leave it together, however much later one comes to its end.

    When one of them is gone, the others end at once, saying so: an orderly end would wait for the one that is gone.
    """
    try:
        yield
        meet("came to the end")  # before they exit, which has HEARTBEAT_SECONDS for all of them
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
            raise
        reason = " ".join(str(error).split())[:300]
        print(
            f"videodit: process {jax.process_index()} of {jax.process_count()} stops, since another one is gone or "
            f"cannot be reached ({reason}); look for what ended it, and start all of them again: they go on from the "
            "last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)
