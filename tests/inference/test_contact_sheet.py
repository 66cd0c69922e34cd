import numpy as np

from videodit.inference.contact_sheet import contact_sheet
from videodit.models.pixels import to_uint8


def test_pixels_become_bytes_and_are_clipped():
    assert to_uint8(np.array([-2.0, -1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]


def test_a_sheet_has_a_row_a_clip_and_its_caption_below():
    red, blue = np.full((2, 9, 8, 16, 3), -1.0, np.float32)
    red[..., 0], blue[..., 2] = 1.0, 1.0
    sheet = contact_sheet([red, blue], ["a red clip", ""], max_frames=3, height=20)
    assert sheet.width == 3 * 40 + 2 * 4
    pixels = np.asarray(sheet)
    assert pixels[10, 10].tolist() == pixels[10, -10].tolist() == [255, 0, 0]
    assert pixels[10, 42].tolist() == [255, 255, 255], "between two frames"
    assert pixels[-10, 10].tolist() == [0, 0, 255]
    caption = pixels[20:34, :40]
    assert (caption < 128).any(), "some ink"
