import os

import numpy as np
import pytest
from PIL import Image

from videodit.inference.images import open_image


def save(path, side=8):
    Image.new("RGB", (side, side), (10, 20, 30)).save(path, "PNG")


@pytest.mark.parametrize("name", ["a.png", "http:/127.0.0.1:9/a.png", "-a.png", "pipe:0", "data:image/png;base64,AA"])
def test_an_image_is_the_file_of_that_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    save(name)
    assert np.array_equal(np.asarray(open_image(name))[0, 0], (10, 20, 30))


ODD = {
    "missing": (lambda path: None, "there is no image"),
    "pipe": (os.mkfifo, "a pipe, not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device, not a regular file"),
    "folder": (os.mkdir, "a folder, not a regular file"),
    "text": (lambda path: path.write_text("none"), "no picture of a known format"),
    "script": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "no picture of a known format"),
    "large": (lambda path: save(path, 9000), "9000 x 9000 is more than 67108864 pixels"),
    "cut": (lambda path: (save(path), path.write_bytes(path.read_bytes()[:-30])), "can be read"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_image_is_refused_by_name(kind, tmp_path):
    make, message = ODD[kind]
    make(tmp_path / "x.png")
    with pytest.raises(ValueError, match=rf"x\.png.*{message}|{message}.*x\.png"):
        open_image(tmp_path / "x.png")
