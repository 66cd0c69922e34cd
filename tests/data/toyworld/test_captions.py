"""Captions: reading is the exact inverse of writing, and every statement is true."""

import numpy as np
import pytest
from videodit_data.toyworld import LEVELS, Format, Statement, holds, make_clip, parse
from videodit_data.toyworld.captions import MOVING, write

SMALL = Format(height=16, width=16, frames=9)


@pytest.mark.parametrize("level", LEVELS)
def test_parse_inverts_every_wording(level):
    for index in range(30):
        truth = make_clip(0, level, index, SMALL).truth
        for caption in write(truth, np.random.default_rng(index), 2 * len(MOVING)):
            assert parse(caption.text) == list(caption.statements), caption.text
            assert all(holds(statement, truth) for statement in caption.statements), caption.text


def test_captions_differ_and_easy_ones_say_colour_shape_and_motion():
    left_out = 0
    for index in range(30):
        clip = make_clip(1, "easy", index, SMALL)
        assert len(set(clip.captions)) == len(clip.captions) >= 4
        for caption in clip.captions:
            kinds = {statement.kind for statement in parse(caption)}
            assert {"colour", "shape", "motion", "count"} <= kinds
            left_out += "size" not in kinds
    assert left_out > 20


def test_a_still_image_claims_no_motion():
    for caption in make_clip(0, "hard", 3, Format(16, 16, 1)).captions:
        assert {statement.kind for statement in parse(caption)} <= {"colour", "shape", "size", "count"}


def test_one_object_is_the_main_one_and_several_go_by_their_colours():
    assert parse("A small red disc moves to the left.") == [
        Statement("colour", "red"),
        Statement("shape", "circle"),
        Statement("size", "small"),
        Statement("motion", "left"),
        Statement("count", "1"),
    ]
    two = parse("the blue diamond rebounds off the wall, while a box in cyan slides up behind the bar")
    assert two == [
        Statement("colour", "blue", "blue"),
        Statement("shape", "diamond", "blue"),
        Statement("motion", "bounce", "blue"),
        Statement("colour", "cyan", "cyan"),
        Statement("shape", "square", "cyan"),
        Statement("motion", "up", "cyan"),
        Statement("permanence", "reappears", "cyan"),
        Statement("count", "2"),
    ]


@pytest.mark.parametrize(
    "text", ["", "a red dog moves left", "a red circle moves left and", "red circle moves sideways"]
)
def test_what_the_grammar_does_not_make_is_refused(text):
    with pytest.raises(ValueError, match="Not a toyworld caption"):
        parse(text)


def test_a_wrong_announcement_is_refused():
    with pytest.raises(ValueError, match="another number of objects"):
        parse("three objects: a red circle moves left and a blue diamond bounces")


def test_the_vocabulary_is_small():
    words = {
        word
        for level in LEVELS
        for index in range(20)
        for caption in make_clip(2, level, index, SMALL).captions
        for word in caption.replace(",", "").replace(":", "").split()
    }
    assert 60 < len(words) < 110
