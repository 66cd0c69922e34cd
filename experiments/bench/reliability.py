"""What safety costs: the time of steps, saves and restores in this tree, relative to another one.

    git worktree add /tmp/before COMMIT
    .venv/bin/python experiments/bench/reliability.py --before /tmp/before --out experiments/bench/reliability.json

Both trees take turns, each time in a new process: a training of small steps with a line of metrics each and saves, and
a state of the given size that is saved and restored. Ratios are of medians over the rounds.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]


def measure(mebibytes: int, steps: int) -> dict[str, float]:
    """Return seconds of a step, of a save (the part that holds the loop up, and all of it) and of a restore."""
    import jax
    import jax.numpy as jnp

    from tests.train.toy import ToyLoader, ToyTask, toy_run
    from videodit.checkpoint.checkpoints import Checkpoints
    from videodit.train.loop import train

    times: dict[str, list[float]] = {"save_blocking": [], "save": [], "restore": []}
    # Arrays of the sizes that a transformer of this many bytes has.
    shapes = [(512, 512), (512, 2048), (512,), (1, 512)]
    bytes_of_all = sum(4 * jnp.zeros(shape).size for shape in shapes)
    keys = jax.random.split(jax.random.key(0), mebibytes * 2**20 // bytes_of_all)
    state = {f"block{i}": [jax.random.normal(key, shape) for shape in shapes] for i, key in enumerate(keys)}
    jax.block_until_ready(state)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder) / "checkpoints", 1) as checkpoints:
        for step in range(1, 7):
            start = time.perf_counter()
            checkpoints.save(step, state, {"number": step})
            blocked = time.perf_counter()
            checkpoints.latest_step()
            saved = time.perf_counter()
            jax.block_until_ready(checkpoints.restore(abstract)[0])
            restored = time.perf_counter()
            for name, value in zip(times, (blocked - start, saved - start, restored - saved), strict=True):
                times[name].append(value)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first one warms up
    with tempfile.TemporaryDirectory() as folder:
        log: list[float] = []

        class Loader(ToyLoader):
            def __next__(self):
                log.append(time.perf_counter())
                return super().__next__()

        run = toy_run(steps=steps, save_every=steps, log_every=10)
        train(run, ToyTask(), Loader(size=256), None, Path(folder), devices=jax.devices()[:1])
        intervals = [later - earlier for earlier, later in itertools.pairwise(log[20:])]
    return medians | {"step": statistics.median(intervals)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="the other tree")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mebibytes", type=int, default=256, help="size of the state that is saved")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(measure(args.mebibytes, args.steps)))
        return
    trees = {"before": args.before.resolve(), "after": TREE}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for number in range(args.rounds):
        for name in sorted(trees, reverse=bool(number % 2)):
            path = os.pathsep.join(str(trees[name] / part) for part in ("", "data_pipelines", "kernels"))
            command = [sys.executable, __file__, "--worker", f"--mebibytes={args.mebibytes}", f"--steps={args.steps}"]
            environment = os.environ | {"PYTHONPATH": path}
            done = subprocess.run(command, env=environment, cwd=trees[name], check=True, capture_output=True, text=True)
            rounds[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, {key: round(value, 5) for key, value in rounds[name][-1].items()}, flush=True)
    seconds = {
        name: {key: statistics.median(each[key] for each in values) for key in values[0]}
        for name, values in rounds.items()
    }
    ratios = {key: seconds["after"][key] / seconds["before"][key] for key in seconds["after"]}
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "arguments": {"mebibytes": args.mebibytes, "steps": args.steps, "rounds": args.rounds},
        "seconds": seconds,
        "after_to_before": ratios,
    }
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
