"""Near copies have similar fingerprints and share a band; other clips do not."""

import itertools
import random

import cv2
import numpy as np
import pytest
from videodit_data import video
from videodit_data.footage.fingerprint import BITS, FRAMES, banding, bands, distance, frame_hash, sample_indices


def fingerprint(frames):
    return tuple(frame_hash(cv2.cvtColor(frames[at], cv2.COLOR_RGB2GRAY)) for at in sample_indices(0, len(frames)))


COPIES = {
    "crf 45": lambda frames: video.decode(video.encode(None, frames, 25, crf=45)),
    "rescaled": lambda frames: np.stack([cv2.resize(frame, (96, 54)) for frame in frames]),
    "brighter": lambda frames: np.clip(frames * 1.2 + 10, 0, 255).astype(np.uint8),
    "cropped": lambda frames: frames[:, 3:-3, 5:-5],
    "half the rate": lambda frames: frames[::2],
}


@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_near_and_found(copy, real_shots):
    for name, frames in real_shots.items():
        one, two = fingerprint(frames[:40]), fingerprint(COPIES[copy](frames[:40]))
        assert distance(one, two) < 8, name
        assert set(bands(one)) & set(bands(two)), name


def test_other_clips_are_far_and_share_nothing(real_shots):
    prints = [fingerprint(frames[:40]) for frames in real_shots.values()]
    for one, two in itertools.combinations(prints, 2):
        assert distance(one, two) > 16
        assert not set(bands(one)) & set(bands(two))


def test_distance_counts_bits():
    rng = random.Random(0)
    one, two = (tuple(rng.getrandbits(BITS) for _ in range(FRAMES)) for _ in range(2))
    assert distance(one, one) == 0 and distance(one, two) == distance(two, one)
    assert distance((0,) * 4, (7,) * 4) == 3 and distance((0, 0), (0, 2**64 - 1)) == 32
    with pytest.raises(ValueError, match="of 4 and 8 hashes"):
        distance((0,) * 4, (0,) * 8)


@pytest.mark.parametrize(("bits", "rows"), [(4, 20), (8, 20), (12, 20), (8, 28)])
def test_recall_follows_the_stated_curve(bits, rows):
    rng, trials, matches = random.Random(bits), 200, 0
    for _ in range(trials):
        one = [rng.getrandbits(BITS) for _ in range(FRAMES)]
        two = list(one)
        for flip in rng.sample(range(BITS * FRAMES), bits * FRAMES):
            two[flip // BITS] ^= 1 << flip % BITS
        matches += bool(set(bands(one, rows=rows)) & set(bands(two, rows=rows)))
    expected = 1 - (1 - (1 - bits / BITS) ** rows) ** 32
    assert matches / trials == pytest.approx(expected, abs=0.1)


def test_the_frames_lie_evenly_in_the_clip():
    assert sample_indices(100, 80) == [105, 115, 125, 135, 145, 155, 165, 175]
    assert sample_indices(3, 1) == [3] * 8
    assert all(0 <= at < frames for frames in range(1, 40) for at in sample_indices(0, frames))


def test_a_hash_is_of_the_picture_alone(real_shots):
    luma = cv2.cvtColor(real_shots["rabbit"][0], cv2.COLOR_RGB2GRAY)
    assert frame_hash(luma) == frame_hash(luma.copy()) < 2**64
    assert frame_hash(np.full((40, 60), 9, np.uint8)) == frame_hash(np.full((90, 30), 9, np.uint8))
    assert bands((1, 2, 3), 2, 5) == bands((1, 2, 3), 2, 5)


@pytest.mark.parametrize("bits", [0, 4, 8, 9, 12, 16, 31])
def test_bands_find_what_is_asked_for(bits):
    count, rows = banding(bits)
    rng, matches = random.Random(bits), 0
    for _ in range(200):
        one = [rng.getrandbits(BITS) for _ in range(FRAMES)]
        two = list(one)
        for flip in rng.sample(range(BITS * FRAMES), bits * FRAMES):
            two[flip // BITS] ^= 1 << flip % BITS
        matches += bool(set(bands(one, count, rows)) & set(bands(two, count, rows)))
    assert matches / 200 > 0.83
    assert banding(8) == (32, 20) and banding(12) == (64, 16)
