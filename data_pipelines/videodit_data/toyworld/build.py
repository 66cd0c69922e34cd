"""The build of a toyworld data set: renders and encodes clips in any number of processes, with the same bytes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from videodit_data import video
from videodit_data.boundary import child_process
from videodit_data.storage import manifest
from videodit_data.storage.records import Record, from_video
from videodit_data.toyworld.clip import Format, make_clip
from videodit_data.toyworld.world import world

LICENCE = "CC0-1.0"

# Clips per task of a process: enough to hide the transfer, few enough to stop soon.
CHUNK = 8


@dataclass(frozen=True)
class Recipe:
    """The settings that determine a data set's clips; called with a clip's number it makes that clip's record."""

    level: str
    seed: int
    format: Format
    crf: int

    def __call__(self, index: int) -> Record:
        clip = make_clip(self.seed, self.level, index, self.format)
        return from_video(
            f"toyworld-{self.level}-{self.seed}-{index:06d}",
            video.encode(None, clip.frames, self.format.fps, crf=self.crf),
            clip.captions,
            **asdict(self.format),
            source=f"videodit toyworld, level {self.level}, seed {self.seed}",
            licence=LICENCE,
            truth=clip.truth,
        )


def build(
    out_dir: str | os.PathLike[str],
    *,
    clips: int,
    level: str,
    seed: int = 0,
    height: int = 64,
    width: int = 64,
    frames: int = 9,
    fps: float = 8.0,
    shards: int = 1,
    processes: int = 1,
    crf: int = 18,
    progress: manifest.Progress | None = None,
) -> manifest.Manifest:
    """Write the first `clips` clips of a seed and level as one data set; interrupted, it resumes by shard.

    The manifest's `info` holds the recipe and the `world` that judges need. More than one process means that the main
    module is imported by each (so a script needs its `if __name__ == "__main__"`). `ValueError`, before anything is
    written, for an unknown level, a format that is no clip, or an `out_dir` that holds something else.
    """
    if processes < 1:
        raise ValueError(f"Building toyworld clips needs at least one process, not {processes}.")
    recipe = Recipe(level, seed, Format(height, width, frames, fps), crf)
    # The first clip's hash identifies the generator's code: another release's clips are another data set.
    first = hashlib.sha256(recipe(0).pack()).hexdigest()
    generator_info = {"generator": "toyworld", "clips": clips, "shards": shards, "first_clip": first}
    info = generator_info | asdict(recipe) | {"world": world(level)}
    with _workers(min(processes, clips)) as workers:

        def make(numbers: range) -> Iterable[Record]:
            if workers is None:
                return map(recipe, numbers)
            with _leave_interrupts_to_this_process():
                return workers.map(recipe, numbers, chunksize=CHUNK)

        return manifest.build(out_dir, make, clips, shards=shards, name=level, info=info, progress=progress)


@contextmanager
def _workers(processes: int) -> Iterator[ProcessPoolExecutor | None]:
    """Yield a pool that an interrupt stops at once, dropping tasks that have not started; None for one process."""
    if processes <= 1:
        yield None
        return
    # Spawned, not forked: the caller may have threads.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, spawn, child_process.end_with_parent, (os.getpid(),))
    others = set(multiprocessing.active_children())
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _leave_interrupts_to_this_process() -> Iterator[None]:
    """Block SIGINT in the processes that are started in this context, which inherit the mask."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
