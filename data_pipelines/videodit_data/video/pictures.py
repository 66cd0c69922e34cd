"""Opening of pictures through Pillow: of common formats, of bounded size, and nothing but the picture's own bytes."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from videodit_data.boundary.input_files import open_regular
from videodit_data.video.opening import MOST_PIXELS, Source, VideoError

# Pillow has others, of which EPS runs a program, and some read further files.
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
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
