"""Memory of a long run: bytes that a process grows by a step, an evaluation, a picture, a save.

    JAX_PLATFORMS=cpu .venv/bin/python experiments/bench/memory.py [--steps 20000] [--case NAME ...] [--out FILE.json]

Each case trains a tiny autoencoder in a process of its own, with one part of the loop turned on. Resident memory is
read after garbage is collected and the C library has given back free pages; the slope is fitted to the second half
of the run. Prints a table; `--trace` adds the lines of Python that allocated what stayed.
"""

import argparse
import ctypes
import gc
import io
import json
import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

SAMPLES = 40  # of a run's memory
EVENTS = {
    "step": {},
    "terminal": {},
    "loader": {},
    "metrics": {"log_every": 1},
    "evaluation": {"eval_every": 10},
    "picture": {"sample_every": 40},
    "save": {"save_every": 40},
}
"""By case, the settings of its run, of which one at most says how many steps lie between two events."""


class MemoryProbe:
    """Passes batches of an iterator on, and reads the process's memory every so many of them."""

    def __init__(self, batches, every: int, trace: bool):
        self._batches, self._every, self._trace, self._number = batches, every, trace, 0
        self.samples: list[tuple[int, int]] = []
        self._before = None
        self._types: Counter[str] = Counter()

    def __next__(self):
        if self._number % self._every == 0:
            self._measure()
        self._number += 1
        return next(self._batches)

    def __getattr__(self, name: str):
        return getattr(self._batches, name)

    def _measure(self) -> None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.samples.append((self._number, pages * os.sysconf("SC_PAGE_SIZE")))
        if self._trace and len(self.samples) == SAMPLES // 4:
            tracemalloc.start(1)
            self._before, self._types = tracemalloc.take_snapshot(), _count_types()

    def print_growth(self) -> None:
        """Print what lines allocated and which types have more objects since a quarter of the run."""
        for line in tracemalloc.take_snapshot().compare_to(self._before, "lineno")[:15]:
            print(line, file=sys.stderr)
        print(_count_types() - self._types, file=sys.stderr)


def _count_types() -> "Counter[str]":
    gc.collect()
    return Counter(f"{type(x).__module__}.{type(x).__name__}" for x in gc.get_objects())


class SyntheticBatches:
    """An endless iterator of one batch."""

    def __init__(self, run):
        from videodit_data.reading.batch import Batch, HostBatch

        size, shape = run.data.batch_size, (run.data.frames, run.data.height, run.data.width, 3)
        ids = np.ones((size, 4), np.int32)
        arrays = Batch(
            video=np.random.default_rng(0).integers(0, 256, (size, *shape), np.uint8),
            latent_mean=None,
            latent_logvar=None,
            text_ids=ids,
            text_mask=ids > 0,
            fps=np.full(size, 8, np.float32),
            valid=np.ones(size, bool),
        )
        self._batch, self._number = HostBatch(arrays, ("clip",) * size, ("caption",) * size), 0

    def __next__(self):
        self._number += 1
        return self._batch

    def __iter__(self):
        return iter([self._batch])

    def get_state(self):
        return {"number": self._number}

    def set_state(self, state):
        self._number = state["number"]


def run_case(case: str, steps: int, trace: bool) -> None:
    """Train with one part of the loop turned on, and print the samples of memory as JSON."""
    from rich.console import Console

    from videodit.config.data import DataConfig
    from videodit.config.run import VAERun
    from videodit.models.vae import VAEConfig
    from videodit.train.loop import train
    from videodit.train.tasks.vae import VAETask

    data = DataConfig(path="none", frames=1, height=8, width=8, fps=8.0, batch_size=2, num_threads=1)
    model = VAEConfig(latent_channels=2, channels=(4, 4), strides=((1, 2),), time_kernel=(1, 1), blocks=1)
    quiet = {"log_every": steps, "eval_every": 0, "save_every": 0, "sample_every": 0}
    run = replace(VAERun(steps=steps, data=data, model=model, **quiet), **EVENTS[case])
    with tempfile.TemporaryDirectory() as workdir, open(os.devnull, "w") as null:
        batches = heldout = SyntheticBatches(run)
        if case == "loader":
            batches = _open_loader(Path(workdir), run)
        probe = MemoryProbe(batches, max(1, steps // SAMPLES), trace)
        console = Console(file=null if case == "terminal" else io.StringIO(), force_terminal=case == "terminal")
        train(run, VAETask(run, {}, None), probe, heldout, Path(workdir) / "run", console=console)
    if trace:
        probe.print_growth()
    print(json.dumps(probe.samples))


def _open_loader(folder: Path, run):
    from videodit_data.reading.batch_iterator import BatchIterator
    from videodit_data.reading.buckets import OneSize
    from videodit_data.reading.mixture import WeightedDataset
    from videodit_data.reading.reader_config import ReaderConfig
    from videodit_data.reading.text_inputs import TokenizedText
    from videodit_data.storage import manifest, records
    from videodit_data.tokenizer import NoTokenizer
    from videodit_data.video import encode

    data, frames = run.data, np.zeros((2, run.data.height * 2, run.data.width * 2, 3), np.uint8)
    facts = {"fps": data.fps, "frames": 2, "height": 2 * data.height, "width": 2 * data.width}

    def make(part: range):
        for number in part:
            video = encode(None, frames, data.fps)
            yield records.from_video(f"clip-{number}", video, ["black"], **facts, source="bench", licence="unknown")

    manifest.build(folder / "data", make, 16, info={})
    shape = OneSize(data.frames, data.height, data.width, data.fps)
    datasets = (WeightedDataset(str(folder / "data")),)
    return BatchIterator(
        ReaderConfig(datasets, shape, batch_size=data.batch_size, num_threads=1), TokenizedText(NoTokenizer())
    )


def fit_slope(samples: list[tuple[int, int]]) -> tuple[float, float]:
    """Return the bytes per step and their standard error over the second half of the samples."""
    step, size = np.array(samples[len(samples) // 2 :], float).T
    (slope, _), covariance = np.polyfit(step, size, 1, cov=True)
    return slope, covariance[0, 0] ** 0.5


def main() -> None:
    """Run the cases and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--case", nargs="*", choices=EVENTS, default=list(EVENTS))
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--out", type=Path, help="file of the samples, JSON")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return run_case(args.case[0], args.steps, args.trace)
    results = {}
    print("| case | events | MiB halfway, at the end | bytes a step | bytes an event |\n|---|---|---|---|---|")
    for case in args.case:
        command = [sys.executable, __file__, "--child", "--case", case, "--steps", str(args.steps)]
        child = subprocess.run(command + ["--trace"] * args.trace, stdout=subprocess.PIPE, check=True)
        samples = json.loads(child.stdout.splitlines()[-1])
        slope, error = fit_slope(samples)
        every = next(iter(EVENTS[case].values()), 1)
        sizes = [samples[index][1] / 2**20 for index in (len(samples) // 2, -1)]
        results[case] = {"every": every, "slope": slope, "error": error, "samples": samples}
        print(
            f"| {case} | {args.steps // every} | {sizes[0]:.1f}, {sizes[1]:.1f} | {slope:.1f} ± {error:.1f} "
            f"| {slope * every:.0f} ± {error * every:.0f} |",
            flush=True,
        )
    if args.out:
        args.out.write_text(json.dumps(results) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
