import json
import os

import numpy as np
import pytest
from PIL import Image, ImageSequence

from videodit.checkpoint.disk_error import DiskError
from videodit.inference.clip_files import SUFFIXES, choose_gif_frames, write_clip

FRAMES = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
PROVENANCE = {"prompt": "a cube", "seed": 7}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_clip_is_written_whole_or_not_at_all(tmp_path, file_limit, suffix):
    path = tmp_path / f"clip{suffix}"
    with file_limit(2**14), pytest.raises(DiskError, match=rf"clip{suffix} could not be written, since a file may not"):
        write_clip(path, FRAMES, 8, PROVENANCE)
    assert not os.listdir(tmp_path)
    write_clip(path, FRAMES, 8, PROVENANCE)
    assert sorted(os.listdir(tmp_path)) == sorted(["clip.json", f"clip{suffix}"])
    assert json.loads((tmp_path / "clip.json").read_text()) == PROVENANCE
    before = path.read_bytes()
    with file_limit(2**14), pytest.raises(DiskError):
        write_clip(path, FRAMES[::-1], 8, PROVENANCE | {"seed": 8})
    assert path.read_bytes() == before
    assert json.loads((tmp_path / "clip.json").read_text()) == PROVENANCE


def test_provenance_that_does_not_fit_leaves_no_clip(tmp_path, file_limit):
    with file_limit(2**14), pytest.raises(DiskError, match=r"clip.json could not be written"):
        write_clip(tmp_path / "clip.mp4", FRAMES, 8, PROVENANCE | {"note": "x" * 2**15})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("fps", [0.3, 1, 8, 12.5, 15, 16, 23.976, 24, 25, 29.97, 30, 48, 50, 59.94, 60, 120, 1000])
@pytest.mark.parametrize("count", [1, 2, 5, 9, 81, 121])
def test_a_gif_lasts_as_long_as_its_clip(count, fps):
    indices, delays = choose_gif_frames(count, fps)
    assert len(indices) == len(delays) and indices[0] == 0 and indices == sorted(set(indices)) and indices[-1] < count
    assert len(indices) == count or fps > 50
    assert min(delays) >= 2 and max(delays) - min(delays) <= 1
    assert abs(sum(delays) / 100 - count / fps) <= max(0.00501, 0.02 - count / fps)


@pytest.mark.parametrize(("fps", "shown"), [(16, 9), (60, 7)])
def test_a_gif_says_which_frames_it_leaves_out(tmp_path, caplog, fps, shown):
    write_clip(tmp_path / "clip.gif", FRAMES, fps, PROVENANCE)
    with Image.open(tmp_path / "clip.gif") as image:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    assert len(durations) == shown and sum(durations) == round(900 / fps) * 10
    left_out = ["clip.gif has 7 of the 9 frames, in the same time: a GIF shows at most 50 frames per second, not 60."]
    assert [record.getMessage() for record in caplog.records] == (left_out if shown < 9 else [])
