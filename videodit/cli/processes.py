"""The options of commands that run in several processes, one per host."""

import argparse

from videodit.cli.number_options import COUNT, SIZE
from videodit.parallel.supervisor import supervise


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--distributed`, or `--coordinator`, `--processes` and `--process`."""
    several = parser.add_argument_group("several processes", "start the same command on every host")
    several.add_argument(
        "--distributed", action="store_true", help="join the other processes, as the cluster is configured"
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, without a cluster")
    several.add_argument("--processes", type=SIZE, metavar="N", help="number of processes")
    several.add_argument("--process", type=COUNT, metavar="I", help="index of this process, from 0 up")


def supervise_if_several(args: argparse.Namespace) -> None:
    """Go on in a child process, as `supervisor.supervise`, if the options request to join others."""
    if getattr(args, "distributed", False) or getattr(args, "coordinator", None) is not None:
        index = f" {args.process} of {args.processes}" if args.process is not None else ""
        supervise(f"process{index}" if index else "this process", hold=not args.debug)


def join_if_requested(args: argparse.Namespace) -> bool:
    """Join the other processes if the options request it; returns whether they do.

    Raises:
        ValueError: if only some of `--coordinator`, `--processes` and `--process` are passed.
        RuntimeError: as `distributed.join`.
    """
    import jax

    from videodit.parallel.distributed import join

    # JAX keeps SIGTERM to itself, for a step at which all save, which only training has.
    jax.config.update("jax_enable_preemption_service", args.name == "train")
    address = args.coordinator, args.processes, args.process
    if any(x is not None for x in address):
        if None in address:
            raise ValueError("--coordinator, --processes and --process go together: pass all three")
        join(*address)
    elif args.distributed:
        join(None, None, None)
    else:
        return False
    return True
