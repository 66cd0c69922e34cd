"""Fixtures: tiny clips whose frames encode their own number, files of any container, and data sets of them."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from videodit_data import video
from videodit_data.storage import manifest, records

STEP = 10  # grey levels from one numbered frame to the next


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """Return the folder of real footage; tests that need it are skipped where it is missing."""
    folder = Path(__file__).parents[3] / "shared" / "data" / "videos"
    if not folder.is_dir():
        pytest.skip(f"no real footage at {folder}")
    return folder


@pytest.fixture(scope="session")
def numbered() -> Callable[..., np.ndarray]:
    """Return a function numbered(count, height, width) -> uint8 frames, 24 at most, frame i of grey level 8 + 10 i."""

    def make(count: int, height: int = 32, width: int = 48) -> np.ndarray:
        levels = (8 + STEP * np.arange(count)).astype(np.uint8)
        return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()

    return make


@pytest.fixture(scope="session")
def numbers() -> Callable[[np.ndarray], list[int]]:
    """Return a function numbers(video) -> the number that each frame encodes, from bytes or from [-1, 1]."""

    def read(clip: np.ndarray) -> list[int]:
        levels = (clip + 1) * 127.5 if clip.dtype == np.float32 else clip.astype(float)
        return [round(level) for level in (levels.mean(axis=(1, 2, 3)) - 8) / STEP]

    return read


@pytest.fixture(scope="session")
def write_file() -> Callable[..., Path]:
    """Return a function that writes a video file with PyAV; `ticks` are the frames' times in 1/1000 s."""

    def write(
        path: Path,
        frames: np.ndarray,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        fps: int = 8,
        options: dict[str, str] | None = None,
        ticks: Sequence[int] | None = None,
    ) -> Path:
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=fps, options={"threads": "1", **(options or {})})
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
            if ticks is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for number, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
                if ticks is not None:
                    frame.pts, frame.time_base = ticks[number], Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture(scope="session")
def data_set(numbered: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """Return a function data_set(directory, lengths, fps, height, width) that writes one clip per length."""

    def make(
        directory: Path, lengths: Sequence[int], fps: float = 8.0, height: int = 32, width: int = 48, shards: int = 1
    ) -> Path:
        encoded = {length: video.encode(None, numbered(length, height, width), fps) for length in set(lengths)}

        def record(number: int) -> records.Record:
            return records.from_video(
                f"clip-{number:03d}",
                encoded[lengths[number]],
                [f"clip {number} gets brighter", f"a grey field, number {number}"],
                fps=fps,
                height=height,
                width=width,
                frames=lengths[number],
                source="tests",
                licence="CC0-1.0",
            )

        info = {"lengths": list(lengths), "fps": fps}
        manifest.build(directory, lambda part: map(record, part), len(lengths), shards=shards, info=info)
        return directory

    return make
