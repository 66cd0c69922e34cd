"""Images that clips begin or end with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from videodit_data.video.pictures import displayed_picture, opened_picture

from videodit.models.pixels import to_float

ImageLike = str | Path | Image.Image | UInt8[np.ndarray, "Y X 3"]
"""A file, an image of PIL's, or pixels as bytes."""


def open_image(image: ImageLike) -> Image.Image:
    """Return an image as viewers show it, in RGB (`displayed_picture`); ValueError when it is missing or no image."""
    if isinstance(image, Image.Image):
        return displayed_picture(image)
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    try:
        with opened_picture(image) as opened:
            return displayed_picture(opened)
    except FileNotFoundError:
        raise ValueError(f"there is no image {image}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{image} is not an image that can be read: {error}") from error


def resize(image: Image.Image, height: int, width: int) -> Float[np.ndarray, "1 Y X 3"]:
    """Return the pixels scaled to that size (Lanczos), in [-1, 1]."""
    return _pixels(image.resize((width, height), Image.Resampling.LANCZOS))


def crop_square(image: Image.Image, side: int) -> Float[np.ndarray, "1 Y X 3"]:
    """Return the pixels of the middle square scaled to that side (bicubic, as CLIP has it), in [-1, 1]."""
    width, height = image.size
    scale = side / min(width, height)
    size = max(side, int(width * scale)), max(side, int(height * scale))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    scaled = image.resize(size, Image.Resampling.BICUBIC)
    return _pixels(scaled.crop((left, top, left + side, top + side)))


@dataclass(frozen=True)
class ConditionImages:
    """The first frame of a clip, and the last or None."""

    first: Image.Image
    last: Image.Image | None = None

    @classmethod
    def open(cls, image: ImageLike | None, last_image: ImageLike | None) -> "ConditionImages | None":
        """Open the images of a clip, None for none; ValueError for a last one alone."""
        if image is None:
            if last_image is not None:
                raise ValueError("a last image goes with a first one")
            return None
        return cls(open_image(image), None if last_image is None else open_image(last_image))


def _pixels(image: Image.Image) -> Float[np.ndarray, "1 Y X 3"]:
    return to_float(np.asarray(image)[None])
