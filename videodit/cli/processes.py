"""The options with which the same command, started on every host, becomes one."""

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--distributed`, or `--coordinator`, `--processes` and `--process`."""
    several = parser.add_argument_group("several processes", "start the same command on every host")
    several.add_argument("--distributed", action="store_true", help="join the others, as the cluster says")
    several.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, where no cluster says it")
    several.add_argument("--processes", type=int, metavar="N", help="how many there are")
    several.add_argument("--process", type=int, metavar="I", help="which one this is, from 0 up")


def join_if_requested(args: argparse.Namespace) -> bool:
    """Join the other processes if the options say that there are some; returns whether they do.

    Raises:
        ValueError: when an option lacks the others that go with it.
        RuntimeError: as `distributed.join`.
    """
    from videodit.parallel.distributed import join

    address = args.coordinator, args.processes, args.process
    if any(x is not None for x in address):
        if None in address:
            raise ValueError("--coordinator, --processes and --process go together: give all three")
        join(*address)
    elif args.distributed:
        join(None, None, None)
    else:
        return False
    return True
