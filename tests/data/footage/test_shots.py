"""Cuts are found to the frame; pans and flashes are none; fades are boundaries, and their dark part is apart."""

import random

import numpy as np
import pytest
from videodit_data.footage.shots import ShotConfig, ShotFinder
from videodit_data.toyworld import Format, make_clip


def boundaries(frames, fps=25.0, **config):
    finder = ShotFinder(ShotConfig(**config))
    for number, picture in enumerate(frames):
        finder.add_frame(picture, number / fps)
    shots = finder.shots()
    assert [shot.start for shot in shots] == [0, *(shot.stop for shot in shots[:-1])]
    assert shots[-1].stop == len(frames)
    return [shot.start for shot in shots[1:]]


def fade(frames, count, level, at_end):
    ramp = np.linspace(1, 0, count)[:, None, None, None]
    frames = frames.astype(float)
    part = np.s_[-count:] if at_end else np.s_[:count]
    weight = ramp if at_end else ramp[::-1]
    frames[part] = frames[part] * weight + level * (1 - weight)
    return frames.astype(np.uint8)


@pytest.mark.parametrize(("detector", "share"), [("adaptive", 1.0), ("content", 1.0), ("histogram", 0.8)])
def test_planted_cuts_are_found_to_the_frame(detector, share, real_shots):
    rng, hits, planted = random.Random(0), 0, 0
    for _ in range(3):
        names = rng.sample(sorted(real_shots), 5)
        lengths = [rng.choice([1, 2, 8]), *(rng.choice([7, 12, 30]) for _ in range(3)), rng.choice([1, 2, 8])]
        parts = [real_shots[name][:length] for name, length in zip(names, lengths, strict=True)]
        cuts, planted_cuts = boundaries(np.concatenate(parts), detector=detector), np.cumsum(lengths)[:-1].tolist()
        assert set(cuts) <= set(planted_cuts)
        hits, planted = hits + len(cuts), planted + len(planted_cuts)
    assert hits >= share * planted


def test_a_shot_has_no_cut(real_shots):
    assert all(boundaries(frames) == [] for frames in real_shots.values())


def test_toyworld_clips_are_separated():
    clips = [make_clip(0, "hard", number, Format(96, 128, 17, 8.0)).frames for number in range(6)]
    assert boundaries(np.concatenate(clips), fps=8.0) == list(range(17, 6 * 17, 17))


@pytest.mark.parametrize("speed", [0.5, 3.0])
@pytest.mark.parametrize("fps", [8.0, 25.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_a_pan_is_no_cut(speed, fps, still, pan):
    assert boundaries(pan(still, speed, fps, 1.0), fps) == []


@pytest.mark.parametrize("kind", ["white", "black", "bright"])
@pytest.mark.parametrize("length", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_a_flash_is_no_cut(kind, length, real_shots):
    for name, frames in real_shots.items():
        flashed = frames[:36].copy()
        for at in (4, 20):
            part = flashed[at : at + length]
            level = {"white": 250, "black": 0, "bright": np.clip(part * 2.0 + 60, 0, 255)}[kind]
            flashed[at : at + length] = level
        assert boundaries(flashed) == [], name


def test_what_stays_longer_than_a_flash_is_a_shot(real_shots):
    frames = real_shots["rabbit"][:60].copy()
    frames[20:30] = real_shots["worker"][:10]
    assert boundaries(frames) == [20, 30]
    assert boundaries(frames, flash_seconds=0.5) == []


@pytest.mark.parametrize("level", [0, 255], ids=["black", "white"])
@pytest.mark.parametrize("length", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_fades_are_boundaries_and_what_is_between_stands_apart(level, length, real_shots):
    for one, two in (("hiker", "street"), ("street", "rabbit")):
        before = fade(real_shots[one][:40], length, level, at_end=True)
        after = fade(real_shots[two][:40], length, level, at_end=False)
        between = np.full((10, *before.shape[1:]), level, np.uint8)
        cuts = boundaries(np.concatenate([before, between, after]))
        assert any(40 - length <= cut <= 40 for cut in cuts)
        assert any(50 <= cut <= 50 + length for cut in cuts)
        assert all(40 - length <= cut <= 50 + length for cut in cuts)
        assert boundaries(np.concatenate([before, after]))  # nothing between


def test_black_leader_and_trailer_stand_apart(real_shots):
    black = np.zeros((30, 128, 228, 3), np.uint8)
    assert boundaries(np.concatenate([black, real_shots["rabbit"], black])) == [30, 90]
    assert boundaries(black) == []


def test_times_may_be_far_apart(real_shots):
    slides = np.stack([real_shots[name][0] for name in ("rabbit", "street", "rabbit", "hiker")])
    assert boundaries(slides.repeat(4, axis=0), fps=2.0) == [4, 8, 12]


def test_a_wrong_configuration_is_refused():
    with pytest.raises(ValueError, match="one of adaptive, content, histogram or none, not 'best'"):
        ShotConfig("best")
    with pytest.raises(ValueError, match="flash_seconds of 0 or more"):
        ShotConfig(flash_seconds=-1)
