"""Contact sheets: clips as rows of frames, a caption under each."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from videodit.models.pixels import to_uint8

_GAP, _LINE, _INK, _PAPER = 4, 14, (32, 32, 32), (255, 255, 255)


def contact_sheet(
    clips: Sequence[Float[np.ndarray, "T Y X 3"]], captions: Sequence[str], *, max_frames: int = 8, height: int = 96
) -> Image.Image:
    """Draw several clips in [-1, 1] as one picture, a row each, at most `max_frames` frames evenly spaced in time.

    captions: a line under each row; "" leaves none.
    height: pixels of a frame in the picture, which keeps its proportions.
    """
    strips = [_strip(frames, max_frames, height) for frames in clips]
    width = max(strip.width for strip in strips)
    depths = [strip.height + (_LINE if caption else 0) + _GAP for strip, caption in zip(strips, captions, strict=True)]
    sheet = Image.new("RGB", (width, sum(depths)), _PAPER)
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(11), 0
    for strip, caption, depth in zip(strips, captions, depths, strict=True):
        sheet.paste(strip, (0, top))
        draw.text((2, top + strip.height), caption, _INK, font)
        top += depth
    return sheet


def _strip(frames: Float[np.ndarray, "T Y X 3"], max_frames: int, height: int) -> Image.Image:
    chosen = np.linspace(0, len(frames) - 1, min(max_frames, len(frames))).round().astype(int)
    width = max(1, round(height * frames.shape[2] / frames.shape[1]))
    strip = Image.new("RGB", (len(chosen) * (width + _GAP) - _GAP, height), _PAPER)
    for column, frame in enumerate(to_uint8(frames[chosen])):
        strip.paste(
            Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC), (column * (width + _GAP), 0)
        )
    return strip
