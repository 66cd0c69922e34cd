"""Toyworld clips: deterministic, the same scene at every format, and a truth that agrees with the pixels."""

import functools
import json

import numpy as np
import pytest
from videodit_data.toyworld import LEVELS, Format, Statement, clips, holds, make_clip, world
from videodit_data.toyworld.clip import scene_of
from videodit_data.toyworld.launches import DIRECTIONS
from videodit_data.toyworld.scene import frame_times
from videodit_data.toyworld.truth import truth_of
from videodit_data.toyworld.world import PALETTE, SHAPES, TONES

SMALL = Format(height=32, width=32, frames=9, fps=8.0)


@functools.cache
def truths(level: str) -> list[dict]:
    """Return the truth of 45 clips, which are not rendered."""
    scenes = (scene_of(5, level, index, height=SMALL.height, width=SMALL.width) for index in range(45))
    return [truth_of(scene, SMALL.frames, SMALL.fps) for scene in scenes]


@pytest.mark.parametrize("level", LEVELS)
def test_a_clip_is_a_pure_function_of_its_number(level):
    stream = list(clips(3, level, start=4, stop=7, format=SMALL))
    repeated = make_clip(3, level, 5, SMALL)
    np.testing.assert_array_equal(stream[1].frames, repeated.frames)
    assert (stream[1].captions, stream[1].truth) == (repeated.captions, repeated.truth)
    assert stream[0].truth != stream[1].truth
    assert make_clip(4, level, 5, SMALL).truth != repeated.truth


@pytest.mark.parametrize("level", LEVELS)
def test_resolution_length_and_rate_only_sample_the_scene(level):
    for index in range(6):
        base = make_clip(0, level, index, SMALL)
        large = make_clip(0, level, index, Format(128, 128, 9, 8.0))
        assert base.truth == large.truth
        assert base.captions == large.captions
        dense = make_clip(0, level, index, Format(32, 32, 17, 16.0))
        np.testing.assert_array_equal(base.frames, dense.frames[::2])
        for one, two in zip(base.truth["objects"], dense.truth["objects"], strict=True):
            np.testing.assert_allclose(one["centre"], two["centre"][::2], atol=1e-5)


def test_a_larger_frame_shows_the_same_picture():
    for index in range(6):
        small = make_clip(0, "hard", index, Format(32, 48, 5)).frames.astype(float)
        large = make_clip(0, "hard", index, Format(128, 192, 5)).frames.astype(float)
        reduced = large.reshape(5, 32, 4, 48, 4, 3).mean(axis=(2, 4))
        assert np.abs(small - reduced).mean() < 2.0


@pytest.mark.parametrize("format", [Format(24, 40, 1), Format(40, 24, 5, 4.0), Format(32, 32, 33, 30.0)])
def test_any_format(format):
    clip = make_clip(0, "hard", 0, format)
    assert clip.frames.shape == (format.frames, format.height, format.width, 3)
    assert clip.frames.dtype == np.uint8
    kinds = {statement["kind"] for statement in clip.truth["statements"]}
    assert ("motion" in kinds) == (format.frames >= 5)


def test_centres_agree_with_the_pixels_and_colours_with_the_palette():
    for index in range(24):
        clip = make_clip(1, "easy", index, Format(64, 64, 9))
        (thing,) = clip.truth["objects"]
        tone = np.array(TONES[clip.truth["background"]["tone"]], float)
        color = np.array(PALETTE[thing["colour"]], float)
        cover = (clip.frames - tone) @ (color - tone) / np.sum((color - tone) ** 2)
        assert cover.min() > -0.02 and cover.max() < 1.02
        y, x = np.mgrid[:64, :64] + 0.5
        mass = cover.sum(axis=(1, 2))
        centers = np.stack([(cover * x).sum(axis=(1, 2)) / mass, (cover * y).sum(axis=(1, 2)) / mass], axis=-1)
        assert np.abs(centers - 64 * np.array(thing["centre"])).max() < 0.3
        np.testing.assert_allclose(mass, np.pi * (64 * thing["radius"]) ** 2, rtol=0.02)


@pytest.mark.parametrize("level", LEVELS)
def test_motions_are_what_they_are_called(level):
    for index in range(25):
        scene = scene_of(2, level, index, height=64, width=64)
        for thing in scene.things:
            at = thing.path.at(frame_times(9))
            step = np.diff(at, axis=0)
            if thing.motion in DIRECTIONS:
                axis, sign = DIRECTIONS[thing.motion]
                assert (sign * step[:, axis] > 0).all()
                assert np.allclose(step[:, 1 - axis], 0)
                assert abs(at[-1] - at[0])[axis] >= 0.2
            elif thing.motion == "clockwise":
                turn = step[:-1, 0] * step[1:, 1] - step[:-1, 1] * step[1:, 0]
                assert (turn > 0).all()
            else:
                axis = int(np.abs(step).sum(axis=0).argmax())
                there, back = (step[:k, axis] for k in (2, None)), step[-2:, axis]
                assert all(np.sign(s[0]) == -np.sign(back[-1]) for s in there)
                assert np.sign(step[0, axis]) == np.sign(step[1, axis]) == -np.sign(back[0]) == -np.sign(back[1])


@pytest.mark.parametrize("level", LEVELS)
def test_visibility_and_events_agree(level):
    kinds = set()
    for truth in truths(level):
        times = np.arange(9) / 8
        for number, thing in enumerate(truth["objects"]):
            visible = np.array(thing["visible"])
            assert (visible >= 0).all() and (visible <= 1).all()
            events = [event for event in truth["events"] if number in event["objects"]]
            hidden = [event for event in events if event["kind"] == "occluded"]
            assert thing["occluded"] == bool(hidden)
            if hidden:
                inside = (times >= hidden[0]["time"]) & (times <= hidden[0]["until"])
                assert inside.any() and (visible[inside] == 0).all()
                assert visible[0] > 0.9 and visible[-1] > 0.9
            else:
                assert visible.min() > 0.75
            met = [event for event in events if event["kind"] != "occluded"]
            assert len(met) == (thing["motion"] == "bounce")
            kinds |= {event["kind"] for event in events}
    assert kinds == {"easy": set(), "medium": {"wall"}, "hard": {"wall", "occluded", "collision"}}[level]


@pytest.mark.parametrize("level", LEVELS)
def test_levels_hold_what_they_promise(level):
    most = LEVELS[level].most_objects
    assert {len(truth["objects"]) for truth in truths(level)} == set(range(1, most + 1))
    assert any(truth["pan"]["direction"] for truth in truths(level)) == (level != "easy")
    assert any(truth["occluder"] for truth in truths(level)) == (level == "hard")
    for truth in truths(level):
        assert len({thing["colour"] for thing in truth["objects"]}) == len(truth["objects"])
    contents = {
        thing[kind] for truth in truths(level) for thing in truth["objects"] for kind in ("colour", "shape", "motion")
    }
    assert contents == {*world(level)["palette"], *world(level)["shapes"], *world(level)["motions"]}


def test_truth_and_world_are_json_and_truth_supports_its_statements():
    for level in LEVELS:
        assert json.loads(json.dumps(world(level))) == world(level)
        truth = make_clip(0, level, 1, SMALL).truth
        assert json.loads(json.dumps(truth)) == truth
        assert all(holds(Statement(**statement), truth) for statement in truth["statements"])


def test_statements_that_are_not_so():
    truth = make_clip(0, "easy", 0, SMALL).truth
    thing = truth["objects"][0]
    for kind, values in (("colour", PALETTE), ("shape", SHAPES), ("size", ("small", "large"))):
        assert [value for value in values if holds(Statement(kind, value), truth)] == [thing[kind]]
    assert not holds(Statement("count", "2"), truth)
    assert not holds(Statement("permanence", "reappears"), truth)
    other = next(name for name in PALETTE if name != thing["colour"])
    assert not holds(Statement("shape", thing["shape"], other), truth)


def test_errors_name_what_would_be_right():
    with pytest.raises(ValueError, match="easy, medium, hard"):
        make_clip(0, "impossible", 0)
    with pytest.raises(ValueError, match="at least one frame"):
        Format(frames=0)
    with pytest.raises(ValueError, match="positive height and width"):
        Format(height=0)
    with pytest.raises(ValueError, match="positive frame rate"):
        Format(fps=0.0)
