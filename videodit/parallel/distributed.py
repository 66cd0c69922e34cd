"""Several processes as one run: joining, work of the main process for all, and failures of peers."""

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

from videodit.parallel.supervisor import PEER_LOST, describe_lost_peer

HEARTBEAT_SECONDS = 30  # of silence after which a process is taken for dead, and ends the others
JOIN_SECONDS = 300
BARRIER_SECONDS = 7 * 24 * 3600
_BARRIERS = itertools.count()  # a name serves for one barrier
_MESSAGE_BYTES = 1024  # of an error that the main process sends to the others
_SENT_ERRORS: dict[str, type[Exception]] = {"V": ValueError, "O": OSError, "R": RuntimeError}


def join(address: str | None, processes: int | None, index: int | None, *, seconds: int = JOIN_SECONDS) -> None:
    """Join the other processes of a run, before anything asks JAX for its devices.

    Args:
        address: `HOST:PORT` of the first process. processes, index: how many there are, and which this one is. All
            three None: JAX finds out, on TPU pods, under Slurm, Open MPI and Kubernetes.
        seconds: to wait for the others.

    Raises:
        RuntimeError: when they cannot be joined, with the address and what to check. Where JAX ends the process by
            itself, a message is printed before.
    """
    where = address or os.environ.get("JAX_COORDINATOR_ADDRESS") or "the address that the cluster names"
    who = "this process" if index is None else f"process {index} of {processes}"
    check = (
        "check that process 0 is up on that host, that its port is open to all hosts, and that all of them were "
        "started with one address and one count"
    )
    try:
        if address and index:
            _wait_for_listener(address, seconds)
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


def _wait_for_listener(address: str, seconds: float) -> None:
    """Wait until the first process listens: otherwise JAX's client would end this one without naming the address."""
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


def is_main_process() -> bool:
    """Return whether this process writes files and messages for all."""
    return jax.process_index() == 0


def on_main_process(fn: Callable[[], Any]) -> None:
    """Call `fn` in the main process; all wait for it, however long it takes.

    Raises:
        ValueError, OSError: in all of them, when it raised one there.
        RuntimeError: in the others, when it raised any other error there, which the main process raises itself.
    """
    if jax.process_count() == 1:
        fn()
        return
    message, failure = b"", None
    if is_main_process():
        try:
            fn()
        except Exception as error:
            message, failure = _encode_error(error), error
    barrier("called in the main process")  # a broadcast waits half an hour on CPUs, and keeps a GPU busy
    received = multihost_utils.broadcast_one_to_all(np.frombuffer(message.ljust(_MESSAGE_BYTES, b"\0"), np.uint8))
    if failure is not None:
        raise failure
    if message := bytes(np.asarray(received)).rstrip(b"\0"):
        kind, text = message[:1].decode(), message[1:].decode(errors="replace")
        raise _SENT_ERRORS[kind](text)


def _encode_error(error: Exception) -> bytes:
    """Return the key in `_SENT_ERRORS` of what the other processes raise, and its text."""
    kind = "V" if isinstance(error, ValueError) else "O" if isinstance(error, OSError) else "R"
    text = f"the main process failed ({type(error).__name__}: {error})" if kind == "R" else str(error)
    return f"{kind}{text}".encode(errors="backslashreplace")[:_MESSAGE_BYTES]


def broadcast_from_main(values: Sequence[bool]) -> list[bool]:
    """Return the values of the main process in all processes, which pass as many each."""
    if jax.process_count() == 1 or not values:
        return list(values)
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(values))).tolist()


def broadcast_text_from_main(text: str) -> str:
    """Return the text of the main process in all processes."""
    if jax.process_count() == 1:
        return text
    encoded = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(encoded))))
    received = multihost_utils.broadcast_one_to_all(encoded if is_main_process() else np.zeros(size, np.uint8))
    return bytes(np.asarray(received)).decode()


def sync_devices(name: str) -> None:
    """Wait until the devices of all processes have come to this point, whose name they agree on."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def barrier(name: str) -> None:
    """Wait as `sync_devices`, but hours if need be, and without occupying a device."""
    if jax.process_count() > 1:
        ocp.multihost.get_barrier_sync_fn()(key=f"{name} {next(_BARRIERS)}", timeout_ms=BARRIER_SECONDS * 1000)


@contextlib.contextmanager
def guard_peer_failures() -> Iterator[None]:
    """Guard a computation of several processes, which leave it together, however late the last one.

    When one of them is gone, the others end at once with a message: an orderly end would wait for the one that is gone.
    """
    try:
        yield
        barrier("came to the end")  # before they exit, which has HEARTBEAT_SECONDS for all of them
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
            raise
        reason = " ".join(str(error).split())[:300]
        who = f"process {jax.process_index()} of {jax.process_count()}"
        print(describe_lost_peer(who, reason), file=sys.stderr, flush=True)
        os._exit(PEER_LOST)
