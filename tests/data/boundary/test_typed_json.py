import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videodit_data.boundary.typed_json import Rate, Sha256, Size, convert, parse_json, shorten, show_key

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@dataclass(frozen=True)
class Part:
    name: str
    frames: tuple[Size, ...]
    rate: Rate = 8.0
    sha256: Sha256 = "0" * 64
    size: tuple[int, int] | str = "unknown"

    def __post_init__(self) -> None:
        if len(self.frames) > 3:
            raise ValueError(f"frames has {len(self.frames)} items; expected three at most")


@dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    texts: Mapping[str, str] = field(default_factory=dict)
    info: Mapping[str, object] = field(default_factory=dict)


def part(**values: object) -> str:
    return json.dumps({"parts": [{"name": "a", "frames": [1]}, {"name": "b", "frames": [2, 3]} | values]})


def test_what_fits_is_read_and_numbers_stay_as_they_are():
    text = part(rate=25, size=[3, 4], sha256="a" * 64)[:-1] + ', "texts": {"a": "é"}, "info": {"x": [null, 1.5]}}'
    read = parse_json(text, Whole, "f.json")
    assert read == parse_json(text.encode(), Whole, "f.json") == convert(json.loads(text), Whole, "f.json")
    assert read.parts[1] == Part("b", (2, 3), 25, "a" * 64, (3, 4)) and type(read.parts[1].rate) is int
    assert read.texts == {"a": "é"} and read.info == {"x": [None, 1.5]} and type(read.parts[0].rate) is float
    assert parse_json('"a\\u0000"', str, "f.json", nul=True) == "a\0"
    assert convert({"parts": [], "more": 1}, Whole, "f.json", more=True) == Whole(())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (part(frames=[1, None]), "parts[1].frames[1] is null; expected a whole number."),
        (part(frames=[1, True]), "parts[1].frames[1] is true; expected a whole number."),
        (part(frames=[1.0]), "parts[1].frames[0] is 1.0; expected a whole number."),
        (part(frames=[0]), "parts[1].frames[0] is 0; expected a whole number >= 1."),
        (part(frames=[10**400]), "parts[1].frames[0] is a number of 1329 bits; expected a whole number <= 2147483647."),
        (part(frames="12"), 'parts[1].frames is "12"; expected a list.'),
        (part(frames=[1] * 4), "parts[1]: frames has 4 items; expected three at most."),
        (part(rate=0), "parts[1].rate is 0; expected a whole number >= 1."),
        (part(rate=math.nan), "parts[1].rate is NaN; expected a finite number."),
        (part(name=5), "parts[1].name is 5; expected a text."),
        (part(name="\0"), 'parts[1].name is "\\u0000"; expected a text without U+0000.'),
        (part(name="\ud800\x1b"), 'parts[1].name is "\\ud800\\u001b"; expected a text without half a surrogate pair.'),
        (part(sha256="\x1b[31m"), 'parts[1].sha256 is "\\u001b[31m"; expected the 64 digits of a sha256.'),
        (part(sha256="0" * 64 + "\n"), f'parts[1].sha256 is "{"0" * 40}..."; expected the 64 digits of a sha256.'),
        (part(size=[1]), "parts[1].size is a list of 1; expected a list of length 2."),
        (part(size=None), "parts[1].size is null; expected a text or a list."),
        (part(**{"size ": 5}), 'parts[1] has the key "size "; expected only name, frames, rate, sha256, size.'),
        ('{"parts": [{"name": "a"}]}', "parts[0] lacks the key 'frames'."),
        ('{"parts": [], "texts": {"a": "b", "c": 1}}', "texts.c is 1; expected a text."),
        ('{"parts": [], "info": {"a\\n": [1e999]}}', 'info["a\\n"][0] is Infinity; expected a finite number.'),
        ('{"parts": [], "info": {"a\\u0000": 1}}', r'info has the key "a\u0000", which is "a\u0000"; expected a text'),
        ('{"parts": [], "parts": []}', 'not JSON (the key "parts" stands twice in one JSON object).'),
        ('{"parts": [], "info": ' + "[" * 200 + "]" * 200 + "}", "info" + "[0]" * 65),
        ("[" * 100_000, "not JSON (nested too deeply)."),
        ("[]", "it is a list of 0; expected a JSON object."),
        ("", "not JSON (Expecting value: line 1 column 1 (char 0))."),
        (b'{"\xff": 1}', "not UTF-8 (byte 2)."),
        ("9" * 5000, "not JSON (Exceeds the limit"),
    ],
)
def test_what_does_not_fit_is_one_sentence_with_the_key_its_value_and_what_is_right(text: str | bytes, message: str):
    with pytest.raises(ValueError) as refused:
        parse_json(text, Whole, "f.json")
    assert str(refused.value).startswith(f"f.json: {message}") and "\n" not in str(refused.value)


@settings(deadline=None, max_examples=200)
@given(VALUES)
def test_a_value_is_shown_short_and_without_control_characters(value: object):
    for shown in (shorten(value), show_key(str(value))):
        assert shown.isascii() and shown.isprintable() and len(shown) < 600


@settings(deadline=None, max_examples=200)
@given(VALUES.map(lambda value: json.dumps(value, default=repr)) | st.text() | st.binary())
def test_any_text_is_what_it_says_or_refused(text: str | bytes):
    try:
        value = parse_json(text, object, "f.json")
    except ValueError as error:
        assert str(error).startswith("f.json: ") and "\n" not in str(error)
    else:
        assert value == json.loads(text)
