import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videodit_data.captioning.lengths import LENGTHS, TextError, check_text, parse_lengths
from videodit_data.captioning.replies import NotChat, chat_text, parse_reply

from tests.data.captioning.stub import completion, text_of

SHORT, LONG = LENGTHS["short"], LENGTHS["long"]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(["short", "long"]), inner),
    max_leaves=8,
)


def good(text: str, low: int, high: int) -> bool:
    return text.isprintable() and low / 1.5 <= len(text.split()) <= high * 1.5 and "  " not in text


@settings(deadline=None, max_examples=60)
@given(st.text() | JSON.map(json.dumps) | JSON.map(lambda value: f"```json\n{json.dumps(value)}\n```"))
def test_any_text_is_captions_or_refused(text):
    try:
        captions = parse_reply(text, [SHORT, LONG])
    except TextError as error:
        assert error.reason and str(error).isprintable()
    else:
        assert list(captions) == ["short", "long"] and good(captions["short"], *SHORT.words)


@settings(deadline=None, max_examples=60)
@given(st.fixed_dictionaries({"short": st.text(max_size=200)}))
def test_any_caption_is_good_or_refused(values):
    try:
        captions = parse_reply(json.dumps(values), [SHORT])
    except TextError as error:
        assert error.reason
    else:
        assert good(captions["short"], *SHORT.words)
        captions["short"].encode()  # which half a letter could not


@settings(deadline=None, max_examples=60)
@given(st.binary() | st.text().map(str.encode) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_chat_completion_or_refused(body):
    with pytest.raises(NotChat):
        chat_text(body)


@settings(deadline=None, max_examples=60)
@given(JSON, st.sampled_from(["choices", "message", "content", "finish_reason", "refusal"]))
def test_any_part_of_a_body_may_be_wrong(value, part):
    message, choice = {"content": "text"}, {"finish_reason": "stop"}
    for name, where in (("content", message), ("refusal", message), ("finish_reason", choice)):
        if part == name:
            where[name] = value
    choices = value if part == "choices" else [choice | {"message": value if part == "message" else message}]
    try:
        assert isinstance(chat_text(json.dumps({"choices": choices}).encode()), str)
    except (NotChat, TextError) as error:
        assert error.reason


def test_a_good_reply_survives():
    texts = {name: text_of(name) for name in ("short", "long")}
    for reply in (json.dumps(texts), f"\n{json.dumps(texts, indent=1)} ", f"```\n{json.dumps(texts)}\n```\n"):
        assert parse_reply(chat_text(completion(reply)), [SHORT, LONG]) == texts


def test_white_space_becomes_spaces_and_letters_of_all_scripts_stay():
    text = "Ein roter Würfel\n\trollt über\u00a0die  große Wiese 🙂"
    assert check_text(text, SHORT) == "Ein roter Würfel rollt über die große Wiese 🙂"
    persian = "\u0633\u06af\u06cc \u062f\u0631 \u067e\u0627\u0631\u06a9 \u0645\u06cc\u200c\u062f\u0648\u062f"
    assert check_text(persian, SHORT) == persian


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no text"),
        (3, "no text"),
        ("", "empty"),
        ("... -- !", "empty"),
        ("one two", "too short"),
        ("word " * 31, "too long"),
        ("x" * 1000 + " y z a b", "too long"),
        ("a cube rolls\x00 down a hill", "control characters"),
        ("a cube rolls\x1b[31m down a hill", "control characters"),
        ("a cube \u202erolls down a hill", "control characters"),
        ("a cube \ud800 rolls down a hill", "control characters"),
        ("I'm sorry, I can't help with this clip", "refusal"),
        ("I\u2019m sorry, I can\u2019t help with this clip", "refusal"),
        ("Sorry, these frames are too dark for me", "refusal"),
        ("As an AI language model, this is a cube", "refusal"),
        ("The frames are dark and I cannot see them", "refusal"),
        ("Sure! A cube rolls down a long hill", "chatter"),
        ("Here is a caption of the clip: a cube rolls", "chatter"),
        ("a clip with ONE TWO three four five six seven eight in it", "echo"),
    ],
)
def test_what_is_no_caption_is_refused_with_its_reason(text, reason):
    with pytest.raises(TextError) as refused:
        check_text(text, SHORT, "zero one two three four five six seven eight nine")
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "text",
    [
        "A dog that cannot see its ball searches the lawn",
        "I-beams hang from a crane above a street",
        "A sorry old house stands by the road",
        "Images of a robot with an AI chip scroll by",
        "Surely the tallest tower stands beside a river",
    ],
)
def test_captions_that_look_like_refusals_pass(text):
    assert check_text(text, SHORT) == text


def test_keys_given_twice_and_talk_around_the_json_are_refused():
    caption = json.dumps(text_of("short"))
    for reply in (
        f'{{"short": "x", "short": {caption}}}',
        f'Here: {{"short": {caption}}}',
        f'{{"short": {caption}}} ok',
    ):
        with pytest.raises(TextError, match="not JSON"):
            parse_reply(reply, [SHORT])


def test_lengths_are_named():
    assert [each.name for each in parse_lengths("long, short")] == ["long", "short"]
    with pytest.raises(ValueError, match="No length is named 'tiny'; there are short, medium, long"):
        parse_lengths("short,tiny")
    with pytest.raises(ValueError, match="given once"):
        parse_lengths("short,short")
