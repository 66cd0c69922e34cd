"""Fixtures: small real pictures and shots, and pans over them."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from videodit_data import video

from tests.data.footage.building import built, contents, footage, processes  # noqa: F401

# Shots of the real clips: file, first frame, frames. None of them holds a cut or a dissolve.
REAL = {
    "rabbit": ("bigbuckbunny.mp4", 0, 60),
    "hiker": ("hiker.mp4", 0, 49),
    "street": ("maxtext_test_video.mp4", 0, 60),
    "mirror": ("nasa_13013.mp4", 0, 60),
    "worker": ("nasa_13013.mp4", 185, 50),
    "lift": ("nasa_13013.mp4", 240, 60),
}


@pytest.fixture(scope="session")
def real_shots(real_clips: Path) -> dict[str, np.ndarray]:
    """Return frames of real shots, 128 x 228, by name."""
    return {
        name: video.decode(real_clips / file, start, count, size=(128, 228))
        for name, (file, start, count) in REAL.items()
    }


@pytest.fixture(scope="session")
def still(real_clips: Path) -> np.ndarray:
    """Return one detailed real frame, 720 x 1280."""
    return video.decode(real_clips / "bigbuckbunny.mp4", 20, 1)[0]


@pytest.fixture(scope="session")
def pan() -> Callable[..., np.ndarray]:
    """Return a function that renders a pan: half of the picture moves right by `speed` of its heights per second."""

    def make(
        picture: np.ndarray, speed: float, fps: float = 25.0, seconds: float = 2.0, size: tuple[int, int] = (128, 228)
    ) -> np.ndarray:
        height, width = picture.shape[0] // 2, picture.shape[1] // 2
        frames = []
        for number in range(round(seconds * fps)):
            along = (speed * height * number / fps) % (2 * width)
            along = min(along, 2 * width - along)  # and back again
            window = cv2.warpAffine(picture, np.float32([[1, 0, -along], [0, 1, -height / 2]]), (width, height))
            frames.append(cv2.resize(window, size[::-1], interpolation=cv2.INTER_AREA))
        return np.stack(frames)

    return make
