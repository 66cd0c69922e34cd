"""Pictures are read as viewers show them, whatever their format, mode or orientation."""

import io
import itertools
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from PIL import ExifTags, Image
from videodit_data import video
from videodit_data.video.convert import planes_of
from videodit_data.video.pictures import displayed_picture, displayed_size, opened_picture

CASES = Path(__file__).parents[4] / "shared" / "cases"
QUADRANTS = np.array([[(0, 200, 0), (200, 0, 0)], [(240, 240, 240), (0, 0, 200)]], np.uint8)  # green red, white blue
SHOWN = QUADRANTS.repeat(16, 0).repeat(24, 1)  # 32 x 48
# What turns the displayed picture into the stored one, by the EXIF orientation (CIPA DC-008, 4.6.5).
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
}


def encode(pixels, kind, mode="RGB", **options):
    file = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    (picture.quantize(8) if mode == "P" else picture.convert(mode)).save(file, kind, **options)
    return file.getvalue()


def read(data):
    with opened_picture(data) as picture:
        return displayed_size(picture), np.asarray(displayed_picture(picture))


@pytest.mark.parametrize(
    ("orientation", "kind", "mode"),
    [
        (orientation, kind, mode)
        for orientation, (kind, modes) in itertools.product(
            STORED,
            {
                "JPEG": ("RGB", "CMYK"),
                "PNG": ("RGB", "RGBA", "P"),
                "WEBP": ("RGB", "RGBA"),
                "TIFF": ("RGB", "CMYK", "P"),
            }.items(),
        )
        for mode in modes
    ],
)
def test_every_orientation_is_applied(orientation, kind, mode):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    data = encode(STORED[orientation](SHOWN), kind, mode, exif=exif, **options)
    size, pixels = read(data)
    assert size == pixels.shape[:2] == SHOWN.shape[:2] and pixels.dtype == np.uint8
    info = video.verify(data)
    assert (info.height, info.width) == size and info == video.probe(data)
    assert np.array_equal(video.decode(data), pixels[None])
    centres = pixels[8::16, 12::24].astype(int)
    assert np.abs(centres - QUADRANTS).max() < 24, centres


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_the_background(mode):
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:, 3:, 3] = 255  # the left half is clear, and black beneath
    picture, file = Image.fromarray(pixels), io.BytesIO()
    (picture.quantize(4) if mode == "P" else picture.convert(mode)).save(file, "PNG")
    found = read(file.getvalue())[1]
    assert (found[:, :3] == 255).all() and (found[:, 3:] == 0).all()


def test_half_transparent_is_half_of_the_background():
    picture = Image.new("RGBA", (2, 2), (0, 100, 200, 128))
    assert np.abs(np.asarray(displayed_picture(picture)).astype(int) - (127, 177, 227)).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(kind):
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    found = read(file.getvalue())[1]
    assert np.array_equal(found, np.arange(256).reshape(16, 16, 1).repeat(3, -1))


@pytest.mark.parametrize(
    ("mode", "value", "message"), [("F", 0.5, "floating point"), ("I", 70000, "70000"), ("I", -1, "-1 to -1")]
)
def test_values_without_a_known_range_are_refused(mode, value, message):
    with pytest.raises(ValueError, match=message):
        displayed_picture(Image.new(mode, (2, 2), value))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_picture_is_taken(kind):
    first, *rest = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (200, 100, 0)]
    file = io.BytesIO()
    first.save(
        file, kind, save_all=True, append_images=rest, duration=100, **({} if kind == "GIF" else {"lossless": True})
    )
    assert np.abs(read(file.getvalue())[1].astype(int) - 200).max() <= 2


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_rotation_is_known_without_the_display_matrix(orientation):
    """FFmpeg gives frames of JPEG files kinds of side data that PyAV may not know, and then lists none."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    with av.open(io.BytesIO(encode(STORED[orientation](SHOWN), "JPEG", quality=95, exif=exif))) as container:
        (frame,) = container.decode(video=0)
    pixels = cv2.merge(planes_of(frame, None, VideoReformatter()))
    assert np.abs(pixels[8::16, 12::24].astype(int) - QUADRANTS).max() < 24


R, G, B, W = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the pictures of ../shared/cases")
@pytest.mark.parametrize(
    ("name", "quadrants"),
    [("exif3.jpg", [[W, B], [G, R]]), ("exif5.jpg", [[R, B], [G, W]]), ("alpha.png", [[W, G], [B, W]])],
)
def test_odd_pictures_are_read_as_a_viewer_shows_them(name, quadrants):
    pixels = read((CASES / name).read_bytes())[1].astype(int)
    height, width = pixels.shape[:2]
    centres = pixels[height // 4 :: height // 2, width // 4 :: width // 2]
    assert np.abs(centres - quadrants).max() < 8
