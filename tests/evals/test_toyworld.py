"""The oracle against the truth: it accepts true statements of real and disturbed clips, and rejects false ones."""

from collections import Counter
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from videodit_data import toyworld, video
from videodit_data.toyworld.clip import scene_of
from videodit_data.toyworld.render import render
from videodit_data.toyworld.scene import frame_times

from videodit.evals.toyworld import World, adherence, observe, verify

SETS = {"easy": 60, "medium": 50, "hard": 60}
WORLDS = {level: World(**toyworld.world(level)) for level in SETS}
NEUTRAL = np.array([40.0, 41.0, 44.0])


@lru_cache
def real_clips(level: str, resolution: int, count: int):
    """Return frames after H.264, captions and truth of `count` clips."""
    clips = []
    for clip in toyworld.clips(11, level, stop=count, format=toyworld.Format(resolution, resolution, 9, 8.0)):
        clips.append((video.decode(video.encode(None, clip.frames, 8.0)), clip.captions, clip.truth))
    return clips


def true_statements(truth):
    return [toyworld.Statement(**fields) for fields in truth["statements"]]


def blurred(frames, sigma=1.0):
    taps = np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2)
    frames = frames.astype(float)
    for axis in (1, 2):
        padded = np.pad(frames, [(3, 3) if k == axis else (0, 0) for k in range(4)], mode="edge")
        size = frames.shape[axis]
        frames = sum(tap * padded.take(range(k, k + size), axis=axis) for k, tap in enumerate(taps / taps.sum()))
    return frames.round().astype(np.uint8)


def agreement(clips, level, disturb=lambda frames: frames):
    """Return by kind the share of true statements that the oracle accepts, and the verdicts that reject one."""
    verdicts = [
        (index, verdict)
        for index, (frames, _, truth) in enumerate(clips)
        for verdict in verify(disturb(frames), true_statements(truth), WORLDS[level])
    ]
    return adherence(verdict for _, verdict in verdicts), [pair for pair in verdicts if not pair[1].holds]


@pytest.mark.parametrize(("level", "resolution"), [("easy", 64), ("medium", 64), ("hard", 64), ("easy", 32)])
def test_real_clips_agree_with_their_truth(level, resolution):
    agreed_shares, wrong = agreement(real_clips(level, resolution, SETS[level]), level)
    assert set(agreed_shares) == {"colour", "shape", "size", "motion", "count"} | (
        {"permanence"} if level == "hard" else set()
    )
    assert min(agreed_shares.values()) >= 0.98, (agreed_shares, wrong)


@pytest.mark.parametrize("level", SETS)
def test_other_clips_captions_are_denied(level):
    clips = real_clips(level, 64, SETS[level])
    verdicts = []
    for index, (frames, _, truth) in enumerate(clips):
        subject = truth["objects"][0]["colour"] if len(truth["objects"]) > 1 else None
        others = [toyworld.Statement("permanence", "reappears", subject)]
        for step in (1, 2, 3):
            others += toyworld.parse(clips[(index + step) % len(clips)][1][0])
        false = [statement for statement in others if not toyworld.holds(statement, truth)]
        verdicts += [(index, verdict) for verdict in verify(frames, false, WORLDS[level])]
    counts = Counter(verdict.kind for _, verdict in verdicts)
    assert set(counts) >= {"colour", "shape", "size", "motion", "permanence"} and min(counts.values()) >= 20
    accepted = adherence(verdict for _, verdict in verdicts)
    assert max(accepted.values()) <= 0.02, (accepted, [pair for pair in verdicts if pair[1].holds])


@pytest.mark.parametrize("level", SETS)
@pytest.mark.parametrize("disturbance", ["noise", "blur", "float and faded"])
def test_noise_blur_and_fading_do_not_matter(level, disturbance):
    rng = np.random.default_rng(0)
    disturb = {
        "noise": lambda frames: np.clip(frames + rng.normal(0, 10, frames.shape), 0, 255).astype(np.uint8),
        "blur": blurred,
        "float and faded": lambda frames: (0.75 * (frames / 127.5 - 1) - 0.1).astype(np.float32),
    }[disturbance]
    agreed_shares, wrong = agreement(real_clips(level, 64, SETS[level])[:20], level, disturb)
    assert min(agreed_shares.values()) >= 0.95, (agreed_shares, wrong)


@pytest.mark.parametrize("kind", ["black", "grey", "red", "noise", "coloured noise", "not a number", "backgrounds"])
def test_a_clip_without_an_object_gets_no_for_everything(kind):
    rng = np.random.default_rng(0)
    empty = np.zeros((9, 64, 64, 3), np.uint8)
    frames = {
        "black": empty,
        "grey": empty + np.uint8(90),
        "red": empty + np.array([230, 40, 40], np.uint8),
        "noise": np.repeat(rng.integers(0, 256, (9, 64, 64, 1), np.uint8), 3, axis=-1),
        "coloured noise": rng.integers(0, 256, empty.shape, np.uint8),
        "not a number": np.full(empty.shape, np.nan, np.float32),
        "backgrounds": render(replace(scene_of(0, "hard", 4, height=64, width=64), things=()), frame_times(9), 64, 64),
    }[kind]
    every = {statement for *_, truth in real_clips("hard", 64, SETS["hard"]) for statement in true_statements(truth)}
    every |= {statement for *_, truth in real_clips("easy", 64, SETS["easy"]) for statement in true_statements(truth)}
    assert not any(verdict.holds for verdict in verify(frames, sorted(every, key=str), WORLDS["easy"]))


def easy(index):
    """Return the rendered frames of an easy clip, and its object's truth."""
    clip = toyworld.make_clip(21, "easy", index)
    return clip.frames, clip.truth["objects"][0]


def observe_one(frames, level="easy"):
    (sighting,) = observe(frames, WORLDS[level])
    return sighting


def test_reversed_mirrored_and_halted_clips_move_otherwise():
    backwards = {"left": "right", "right": "left", "up": "down", "down": "up", "clockwise": "anticlockwise"}
    mirrored = {"left": "right", "right": "left", "clockwise": "anticlockwise"}
    for index in range(12):
        frames, thing = easy(index)
        motion = thing["motion"]
        assert observe_one(frames[::-1]).motion[0] == backwards.get(motion, motion)
        assert observe_one(frames[:, :, ::-1]).motion[0] == mirrored.get(motion, motion)
        assert observe_one(frames[:1].repeat(9, axis=0)).motion[0] == "still"
        assert observe_one(frames[[4, 0, 7, 2, 8, 1, 5, 3, 6]]).motion[0] not in WORLDS["easy"].motions


def test_exchanged_channels_change_the_color_and_nothing_else():
    exchanged = {"red": "green", "green": "blue", "blue": "red"}
    checked = 0
    for index in range(30):
        frames, thing = easy(index)
        if thing["colour"] in exchanged:
            sighting = observe_one(frames[..., [2, 0, 1]])
            assert sighting.colour[0] == exchanged[thing["colour"]]
            assert (sighting.shape[0], sighting.motion[0]) == (thing["shape"], thing["motion"])
            checked += 1
    assert checked > 5


def test_two_alike_are_two():
    for index in range(10):
        frames, _ = easy(index)
        doubled = np.concatenate([frames, frames], axis=2)
        assert len(observe(doubled, WORLDS["easy"])) == 2
        assert not verify(doubled, [toyworld.Statement("count", "1")], WORLDS["easy"])[0].holds


def hiding_scene():
    """Return a scene with one object that passes behind an occluder."""
    for index in range(60):
        scene = scene_of(31, "hard", index, height=64, width=64)
        if scene.occluder and len(scene.things) == 1:
            return scene
    raise AssertionError("no scene hides an object")


def test_permanence_wants_the_same_thing_behind_something_and_out_on_the_far_side():
    scene = hiding_scene()
    (thing,) = scene.things
    times = frame_times(9)

    def shown(scene=scene, times=times):
        return render(scene, times, 64, 64)

    def judge(frames):
        statement = toyworld.Statement("permanence", "reappears")
        verdict = verify(frames, [statement], WORLDS["hard"])[0]
        return verdict.holds, verdict.measured

    assert judge(shown()) == (True, "reappears")
    bare = replace(scene, occluder=None)
    assert judge(shown(bare)) == (False, "always in view")
    without_objects = shown(replace(scene, things=()))
    assert judge(np.concatenate([shown()[:5], without_objects[5:]]))[0] is False
    assert judge(np.concatenate([shown()[:4], shown()[3::-1]]))[0] is False
    nothing = shown(replace(bare, things=()))
    flicker = shown(bare)
    flicker[4:6] = nothing[4:6]
    assert judge(flicker) == (False, "vanishes with nothing before it")
    for changed in (
        replace(thing, colour="red" if thing.colour != "red" else "blue"),
        replace(thing, shape="diamond" if thing.shape != "diamond" else "square"),
    ):
        assert judge(np.concatenate([shown()[:5], shown(replace(scene, things=(changed,)))[5:]]))[0] is False


def test_verdicts_have_the_measurement():
    frames, thing = easy(3)
    world = WORLDS["easy"]
    wrong = next(name for name in world.palette if name != thing["colour"])
    false, right, other = verify(
        frames,
        [
            toyworld.Statement("colour", wrong),
            toyworld.Statement("colour", thing["colour"]),
            toyworld.Statement("shape", thing["shape"], wrong),
        ],
        world,
    )
    assert (false.holds, false.measured) == (False, thing["colour"])
    assert (right.holds, right.measured) == (True, thing["colour"])
    assert not other.holds and f"no {wrong} object" in other.measured
    assert all(0 <= verdict.confidence <= 1 for verdict in (false, right, other))


def test_errors_name_what_is_known():
    with pytest.raises(ValueError, match="'spiral'"):
        World(**{**toyworld.world("easy"), "motions": ["spiral"]})
    with pytest.raises(ValueError, match="at least one entry in shapes"):
        World(**{**toyworld.world("easy"), "shapes": {}})
    with pytest.raises(ValueError, match="'mood'"):
        verify(easy(0)[0], [toyworld.Statement("mood", "good")], WORLDS["easy"])


@pytest.mark.parametrize("seed", range(4))
def test_any_clip_gets_an_answer(seed):
    rng = np.random.default_rng(seed)
    statements = [toyworld.Statement(kind, "red") for kind in toyworld.KINDS]
    for _ in range(15):
        frames, block = int(rng.choice([1, 2, 5, 9])), int(rng.choice([1, 4, 8]))
        height, width = (int(cells) * 8 for cells in rng.integers(1, 5, 2))
        coarse = rng.integers(0, 256, (frames, height // block, width // block, 3))
        coarse[rng.random(coarse.shape[:3]) < 0.7] = rng.integers(0, 256)
        clip = np.kron(coarse, np.ones((1, block, block, 1), int)).astype(np.uint8)
        for verdict in verify(clip, statements, WORLDS["easy"]):
            assert 0 <= verdict.confidence <= 1 and verdict.measured
