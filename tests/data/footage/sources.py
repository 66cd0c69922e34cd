"""Footage for the tests: scrolling textures, a different scene for every seed."""

import json
from pathlib import Path

import numpy as np
from videodit_data import video

RATE = 12


def scene(seed: int, frames: int = 30, height: int = 64, width: int = 96) -> np.ndarray:
    """Return a smooth random texture that moves by two pixels per frame; a seed is the same scene at any size."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(30, 225, (9, 24, 3))
    rows = np.linspace(0, 8, height)
    columns = np.linspace(0, 12, width)[None] + np.arange(frames)[:, None] * 24 / 96
    low, part = np.floor(rows).astype(int).clip(max=7), rows - np.floor(rows).clip(max=7)
    tall = coarse[low] * (1 - part)[:, None, None] + coarse[low + 1] * part[:, None, None]
    at = np.floor(columns).astype(int)
    share = (columns - at)[:, None, :, None]
    pictures = (
        tall[:, at % 24].transpose(1, 0, 2, 3) * (1 - share) + tall[:, (at + 1) % 24].transpose(1, 0, 2, 3) * share
    )
    return pictures.round().astype(np.uint8)


def make_footage(folder: Path) -> None:
    """Write two shots in one file, a scene and two copies of it, files to drop for each reason, and other files."""
    (folder / "sub").mkdir(parents=True)
    clips = {
        "two.mp4": np.concatenate([scene(1), scene(2)]),
        "one.mp4": scene(3),
        "more.mp4": scene(4, 60),
        "dark.mp4": scene(5) // 24,
        "still.mp4": np.repeat(scene(6, 1), 30, axis=0),
        "short.mp4": scene(7, 10),
        "silent.mp4": scene(8),
    }
    for name, frames in clips.items():
        video.encode(folder / name, frames, RATE)
    video.encode(folder / "sub" / "copy.mp4", scene(3, 30, 48, 72), RATE, crf=26)
    video.encode(folder / "sub" / "bright.mp4", (scene(3) * 0.9 + 20).astype(np.uint8), RATE, crf=24)
    video_bytes = (folder / "one.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(video_bytes[: len(video_bytes) // 2])
    (folder / "text.mp4").write_text("not a video\n" * 50)
    (folder / "notes.md").write_text("notes")
    rows = [{"file": name, "caption": f"what {name} shows"} for name in clips if name not in ("two.mp4", "silent.mp4")]
    rows += [{"file": f"sub/{name}.mp4", "caption": name} for name in ("copy", "bright")]
    rows += [{"file": "two.mp4", "start": 0, "stop": 2.5, "caption": "the first shot", "licence": "CC0-1.0"}]
    rows += [{"file": "two.mp4", "clip": "two.mp4#30-60", "caption": "the second shot"}]
    rows += [{"file": "gone.mp4", "caption": "nothing"}]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
