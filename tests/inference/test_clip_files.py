import json
import os

import numpy as np
import pytest

from videodit.checkpoint.disk_error import DiskError
from videodit.inference.clip_files import SUFFIXES, write_clip

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
