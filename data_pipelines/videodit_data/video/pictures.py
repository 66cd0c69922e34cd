"""Pictures through Pillow: opened (common formats, bounded size, nothing but their own bytes), and as displayed."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import av
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from videodit_data.boundary.input_files import open_regular
from videodit_data.video.opening import MOST_PIXELS, Opened, Source, VideoError

# Pillow has others, of which EPS runs a program, and some read further files.
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
BACKGROUND = (255, 255, 255)
"""The colour behind what is transparent: that of a page."""
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, struct.error)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)  # the latter where warnings are errors


@contextmanager
def opened_picture(source: Source, most_pixels: int = MOST_PIXELS) -> Iterator[Image.Image]:
    """Open a picture, to be decoded inside of the context. VideoError, without a name, for what cannot be decoded.

    `most_pixels` is the limit of a picture. FileNotFoundError when there is no such file.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file:
        try:
            with Image.open(file, formats=FORMATS) as picture:
                if picture.width * picture.height > most_pixels:
                    raise VideoError(f"{picture.width} x {picture.height} is more than {most_pixels} pixels")
                yield picture
        except VideoError:
            raise
        except UnidentifiedImageError as error:
            raise VideoError("no picture of a known format") from error
        except _BOMBS as error:
            raise VideoError(f"more than {most_pixels} pixels") from error
        except _DAMAGE as error:
            raise VideoError(str(error) or type(error).__name__) from error


def displayed_picture(picture: Image.Image) -> Image.Image:
    """Return a picture as a viewer shows it, in RGB: turned and mirrored as its EXIF data says, over `BACKGROUND`.

    Grey values of 16 bits become 8 bits. Of an animation it is the picture that is shown first. ValueError for values
    that no range is known of (floating point, or more than 16 bits).
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its values, {values.min()} to {values.max()}, have more than 16 bits")
        picture = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif picture.mode == "F":
        raise ValueError("its values are of floating point, and no range of them is known")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    colours = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colours.size, BACKGROUND), colours).convert("RGB")


def displayed_size(picture: Image.Image) -> tuple[int, int]:
    """Return the height and width of a picture as it is displayed, from its header."""
    if picture.format == "TIFF" or (picture.format == "PNG" and "exif" not in picture.info):
        return picture.size[
            ::-1
        ]  # Pillow turns TIFF files itself, and would decode a PNG to find data behind the pixels
    is_turned = picture.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return picture.size if is_turned else picture.size[::-1]


def read_still(clip: Opened) -> av.VideoFrame | None:
    """Return the displayed picture of a file that is one, None for a video; VideoError when it cannot be decoded."""
    if not clip.container.format.name.endswith(("_pipe", "image2")):
        return None
    position = clip.file.tell()  # where FFmpeg reads on
    try:
        clip.file.seek(0)
        with opened_picture(clip.file.read(), clip.most_pixels) as picture:
            return av.VideoFrame.from_ndarray(np.asarray(displayed_picture(picture)))
    except ValueError as error:
        raise VideoError(f"{clip.label}: {error}.") from error
    finally:
        clip.file.seek(position)
