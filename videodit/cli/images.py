"""Images that clips begin or end with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image


@dataclass(frozen=True)
class Picture:
    """An image file, read as RGB."""

    image: Image.Image

    @classmethod
    def open(cls, path: Path) -> "Picture":
        """Reads a file; `ValueError` when it is no image."""
        try:
            with Image.open(path) as image:
                return cls(image.convert("RGB"))
        except FileNotFoundError:
            raise ValueError(f"there is no image {path}") from None
        except OSError as error:
            raise ValueError(f"{path} is not an image that can be read: {error}") from error

    def pixels(self, height: int, width: int) -> Float[np.ndarray, "1 Y X 3"]:
        """Scaled to that size (Lanczos), in [-1, 1]."""
        return _floats(self.image.resize((width, height), Image.Resampling.LANCZOS))

    def cropped(self, side: int) -> Float[np.ndarray, "1 Y X 3"]:
        """The middle square, scaled to that side (bicubic, as CLIP has it), in [-1, 1]."""
        width, height = self.image.size
        scale = side / min(width, height)
        size = max(side, int(width * scale)), max(side, int(height * scale))
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        scaled = self.image.resize(size, Image.Resampling.BICUBIC)
        return _floats(scaled.crop((left, top, left + side, top + side)))


@dataclass(frozen=True)
class Images:
    """The first frame of a clip, and the last or None."""

    first: Picture
    last: Picture | None = None


def _floats(image: Image.Image) -> Float[np.ndarray, "1 Y X 3"]:
    return np.asarray(image, np.float32)[None] / 127.5 - 1.0
