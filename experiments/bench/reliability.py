"""What safety costs: the time of steps, saves and restores in this tree, relative to another one.

    git worktree add /tmp/before COMMIT
    .venv/bin/python experiments/bench/reliability.py --before /tmp/before --out experiments/bench/reliability.json

A process of each tree saves and restores one state, and another trains; all are warm, and those of one kind take turns
of a second or two. A ratio is the median over the turns' ratios, with the 95% interval of a bootstrap over the turns.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

TREE = Path(__file__).resolve().parents[2]
STEPS_PER_TURN = 25


def save_and_restore(mebibytes: int, end_turn: Callable[[dict[str, float]], None]) -> None:
    """Save and restore arrays of the sizes that a transformer of this many bytes has, once a turn."""
    import jax

    from videodit.checkpoint.checkpoints import Checkpoints

    shapes = [(512, 512), (512, 2048), (512,), (1, 512)]
    keys = jax.random.split(jax.random.key(0), mebibytes * 2**20 // sum(4 * int(np.prod(shape)) for shape in shapes))
    state = {f"block{i}": [jax.random.normal(key, shape) for shape in shapes] for i, key in enumerate(keys)}
    jax.block_until_ready(state)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder) / "checkpoints", 1) as checkpoints:
        step, seconds = 0, {}
        while True:
            end_turn(seconds)
            step, start = step + 1, time.perf_counter()
            checkpoints.save(step, state, {"number": step})
            blocked = time.perf_counter()
            checkpoints.latest_step()
            saved = time.perf_counter()
            jax.block_until_ready(checkpoints.restore(abstract)[0])
            restored = time.perf_counter()
            seconds = {"save": saved - start, "save_blocking": blocked - start, "restore": restored - saved}


def train_steps(end_turn: Callable[[dict[str, float]], None]) -> None:
    """Train a small model, with a line of metrics every ten steps, `STEPS_PER_TURN` steps a turn."""
    import jax

    from tests.train.toy import ToyLoader, ToyModel, ToyTask, toy_run
    from videodit.train.loop import train

    class Task(ToyTask):
        def init(self, rngs):
            return ToyModel(2048, rngs)

    class Loader(ToyLoader):
        start = time.perf_counter()

        def __next__(self):
            if self.number % STEPS_PER_TURN == 0:
                end_turn({"step": (time.perf_counter() - self.start) / STEPS_PER_TURN})
                self.start = time.perf_counter()
            return super().__next__()

    run = toy_run(steps=10**6, save_every=10**6, log_every=10)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        train(run, Task(), Loader(size=256), None, Path(folder), devices=jax.devices()[:1])


def run_worker(kind: str, mebibytes: int) -> None:
    """Measure one turn for each line of standard input."""
    output = sys.stdout

    def end_turn(seconds: dict[str, float]) -> None:
        time.sleep(0.3)  # what the turn started may end
        print(json.dumps(seconds), file=output, flush=True)
        if not sys.stdin.readline():
            os._exit(0)

    train_steps(end_turn) if kind == "steps" else save_and_restore(mebibytes, end_turn)


def measure(kind: str, trees: dict[str, Path], turns: int, mebibytes: int) -> dict[str, dict[str, np.ndarray]]:
    """Return the seconds of every turn of each tree."""
    command = [sys.executable, __file__, "--worker", kind, f"--mebibytes={mebibytes}"]
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, tree in trees.items():
            path = os.pathsep.join(str(tree / part) for part in ("", "data_pipelines", "kernels"))
            options = {"env": os.environ | {"PYTHONPATH": path}, "cwd": tree, "text": True}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            workers[name] = stack.enter_context(subprocess.Popen(command, **options, **pipes))
            workers[name].stdout.readline()  # of the turn before the first
        seconds: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
        for turn in range(turns + 2):  # the first two warm up
            for name in sorted(trees, reverse=bool(turn % 2)):
                print(file=workers[name].stdin, flush=True)
                seconds[name].append(json.loads(workers[name].stdout.readline()))
        for worker in workers.values():
            worker.stdin.close()
    names = seconds["after"][-1]
    return {
        key: {name: np.array([turn[key] for turn in values[2:]]) for name, values in seconds.items()} for key in names
    }


def compare(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Return the median seconds, and the median ratio with its 95% interval."""
    ratios = after / before
    resampled = np.random.default_rng(0).choice(ratios, (10000, len(ratios)))
    low, high = np.quantile(np.median(resampled, axis=1), [0.025, 0.975])
    figures = {"before": np.median(before), "after": np.median(after), "ratio": np.median(ratios)}
    return {name: round(float(value), 5) for name, value in (figures | {"low": low, "high": high}).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="the other tree")
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--mebibytes", type=int, default=256, help="size of the state that is saved")
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    parser.add_argument("--worker", choices=("saves", "steps"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return run_worker(args.worker, args.mebibytes)
    trees = {"before": args.before.resolve(), "after": TREE}
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "arguments": {"mebibytes": args.mebibytes, "turns": args.turns},
    }
    for kind in ("saves", "steps"):
        for name, seconds in measure(kind, trees, args.turns, args.mebibytes).items():
            result[name] = compare(seconds["before"], seconds["after"])
            print(name, result[name], flush=True)
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
