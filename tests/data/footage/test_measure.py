"""Properties of measures: they recover planted values, ignore size and rate, and grow with blur, speed and bars."""

import itertools

import cv2
import numpy as np
import pytest
from videodit_data import video
from videodit_data.footage import measure, still
from videodit_data.footage.text import Strokes, edges, text_mask


def to_gray(picture, size=None):
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return luma if size is None else cv2.resize(luma, size[::-1], interpolation=cv2.INTER_AREA)


def speed(frames, fps, step=0.1):
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    frames = [to_gray(frame) for frame in frames[:: round(step * fps)]]
    step = round(step * fps) / fps
    pairs = itertools.pairwise(frames)
    return float(np.mean([measure.motion(one, two, step, flow) for one, two in pairs]))


@pytest.mark.parametrize("planted", [0.1, 0.5, 1.3])
def test_the_speed_of_a_pan_is_found_whatever_size_and_rate(planted, still, pan):
    for fps, size in ((10.0, (128, 228)), (30.0, (128, 228)), (20.0, (96, 171)), (20.0, (180, 320))):
        measured = speed(pan(still, planted, fps, 0.5, size), fps)
        assert measured == pytest.approx(planted, rel=0.1), (fps, size)


def test_a_still_picture_does_not_move(still):
    assert speed([still[::4, ::4]] * 5, 10.0) == 0


def test_a_narrow_picture_is_measured_by_its_shorter_side(still, pan):
    wide = pan(still, 0.5, 20.0, 0.5)
    turned = np.rot90(wide, axes=(1, 2))
    assert speed(turned, 20.0) == pytest.approx(speed(wide, 20.0), rel=0.05)


def test_blur_lowers_sharpness_and_size_hardly_changes_it(real_clips):
    picture = video.decode(real_clips / "bigbuckbunny.mp4", 20, 1)[0]
    size = (180, 320)
    values = [measure.sharpness(to_gray(cv2.GaussianBlur(picture, (0, 0), blur), size)) for blur in (0.1, 2, 4, 8, 16)]
    assert all(sharper > 1.3 * blurred for sharper, blurred in itertools.pairwise(values))
    smaller = cv2.resize(picture, (960, 540), interpolation=cv2.INTER_AREA)
    assert measure.sharpness(to_gray(smaller, size)) == pytest.approx(values[0], rel=0.15)
    assert measure.sharpness(np.full((40, 60), 77, np.uint8)) == 0


def test_luminance_and_contrast_of_known_pictures():
    half = np.zeros((40, 60), np.uint8)
    half[:, 30:] = 255
    assert measure.brightness(half) == pytest.approx((0.5, 0.5))
    assert measure.brightness(np.full((40, 60), 51, np.uint8)) == pytest.approx((0.2, 0.0))


@pytest.mark.parametrize(
    ("top", "bottom", "left", "right"), [(0, 0, 0, 0), (45, 45, 0, 0), (0, 0, 80, 80), (9, 0, 4, 60)]
)
def test_bars_of_known_size_are_found(top, bottom, left, right, still):
    picture = to_gray(still[::2, ::2]).astype(float)
    picture[:top], picture[:, :left] = 0, 0
    picture[360 - bottom :], picture[:, 640 - right :] = 0, 0
    noisy = np.clip(picture + np.random.default_rng(0).normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
    bars = measure.bars(noisy)
    assert (bars.top, bars.bottom) == pytest.approx((top / 360, bottom / 360), abs=1.5 / 360)
    assert (bars.left, bars.right) == pytest.approx((left / 640, right / 640), abs=1.5 / 640)
    assert bars.share == pytest.approx(1 - (360 - top - bottom) * (640 - left - right) / (360 * 640), abs=0.01)


def test_only_what_stays_black_is_a_bar():
    frame_bars = [measure.Bars(0.1, 0.2, 0.0, 0.0), measure.Bars(0.1, 0.1, 0.3, 0.0), measure.Bars(1.0, 0.0, 0.0, 0.0)]
    assert measure.lasting_bars(frame_bars) == measure.Bars(0.1, 0.0, 0.0, 0.0)
    assert measure.bars(np.zeros((20, 30), np.uint8)).share == 1


def test_stillness_and_slideshows():
    step = [0.1] * 30
    moving, frozen = [9.0] * 30, [0.3] * 30
    assert still.static_share(moving, step) == 0 and still.static_share(frozen, step) == 1
    assert still.static_share(moving[:15] + frozen[:15], step) == pytest.approx(0.5)
    assert still.static_share([0.0, 9.0], [3.0, 1.0]) == pytest.approx(0.75)
    assert still.static_share([], []) is None and still.slideshow([], []) is None
    assert still.slideshow(moving, step) == 0
    assert still.slideshow(frozen, step) == 0  # one still is none
    slides = [0.0] * 9 + [50.0] + [0.0] * 10 + [20.0] * 3 + [0.0] * 7
    assert still.slideshow(slides, step) == pytest.approx(26 / 30)
    slow = [0.0] * 9 + [50.0] * 12 + [0.0] * 9  # a movement between two rests
    assert still.slideshow(slow, step) == 0
    zoom = ([1.0] * 6 + [5.0] * 2) * 3  # on and off about the threshold
    assert still.slideshow(zoom, step[: len(zoom)]) == 0
    talking = [0.0, 0.0, 9.0] * 10
    assert still.slideshow(talking, step) == 0


def test_change_is_seen_where_only_a_part_moves():
    one = np.full((128, 228), 90, np.uint8)
    two = one.copy()
    two[50:70, 100:120] = 140
    assert measure.change(one, one) == 0
    assert measure.change(one, two) > 10 * still.STILL


def caption(frames, text, scale, position, thickness=2, box=False):
    captioned = []
    for frame in frames:
        frame = frame.copy()
        where = (int(position[0] * frame.shape[1]), int(position[1] * frame.shape[0]))
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness + 3)
        if box:
            corner = (where[0] + width + 9, where[1] + below + 9)
            cv2.rectangle(frame, (where[0] - 9, where[1] - height - 9), corner, (20, 20, 90), -1)
        for color, stroke in (((0, 0, 0), thickness + 3), ((255, 255, 255), thickness)):
            cv2.putText(frame, text, where, cv2.FONT_HERSHEY_SIMPLEX, scale, color, stroke, cv2.LINE_AA)
        captioned.append(frame)
    return captioned, width * (height + below) / (frames[0].shape[0] * frames[0].shape[1])


def lasting(frames):
    return np.minimum.reduce([edges(to_gray(frame)) for frame in frames])


@pytest.mark.parametrize(
    ("file", "frames"),
    [("bigbuckbunny.mp4", (0, 6, 12, 18, 24)), ("hiker.mp4", (0, 2, 4, 6, 8)), ("nasa_13013.mp4", (0, 7, 15, 22, 30))],
)
def test_captions_are_found_on_real_footage_and_nothing_without(file, frames, real_clips):
    clip = video.decode(real_clips / file, 0, frames[-1] + 1, size=(360, 640))
    plain = [clip[frame] for frame in frames]
    assert text_mask(lasting(plain)).mean() < 0.002
    for text, scale, position in (("and then he said: never again", 0.8, (0.15, 0.9)), ("LIVE 12:45", 0.6, (0.7, 0.8))):
        captioned, share = caption(plain, text, scale, position, box=scale < 0.8)
        assert 0.5 * share < text_mask(lasting(captioned)).mean() < 1.6 * share


def test_text_that_does_not_stay_is_no_overlay(still):
    strokes = Strokes(1.0)
    picture = [np.full((360, 640, 3), 90, np.uint8)]
    fixed, _ = caption(picture, "it stays where it is", 0.8, (0.2, 0.9))
    for number in range(8):
        since, share = strokes.add_picture(to_gray(fixed[0]), number, number / 4)
        assert (share is None) == (number < 4) and since == max(0, number - 4)
    assert share > 0.01
    for number in range(8, 16):
        moved, _ = caption(picture, "it scrolls along", 0.8, (0.05, 1 - 0.05 * (number - 7)))
        _, share = strokes.add_picture(to_gray(moved[0]), number, number / 4)
    assert share == 0
