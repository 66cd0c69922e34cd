"""Strict parsing of chat endpoints' replies: anything but the requested captions is refused with a reason."""

import re
from collections.abc import Sequence
from typing import Any

from videodit_data.boundary.typed_json import load_json, shorten
from videodit_data.captioning.lengths import Length, TextError, check_text

_FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*)\n[ \t]*```\s*", re.DOTALL | re.IGNORECASE)
_EXCERPT_LENGTH = 80


class NotChat(ValueError):
    """A body that is no chat completion. `reason` is the same for all bodies with the same fault."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def chat_text(body: bytes) -> str:
    """Return the model's text in the body of a chat completion.

    NotChat when it is none; TextError when the model refused, or was cut short.
    """
    try:
        values = load_json(body.decode("utf-8"), "the reply")
    except UnicodeDecodeError as error:
        raise NotChat("not UTF-8", "The reply is not UTF-8.") from error
    except ValueError as error:
        raise NotChat("not JSON", f"The reply is not JSON: {excerpt(body)!r}.") from error
    try:
        choice = values["choices"][0]
        message = choice["message"]
        text, ended, refusal = message.get("content"), choice.get("finish_reason"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise NotChat("not a chat reply", f"The reply has no message in 'choices': {excerpt(body)!r}.") from error
    if ended == "content_filter" or (isinstance(refusal, str) and refusal):
        raise TextError("refusal", "The model refused.")
    if ended == "length":
        raise TextError("cut short", "The reply was cut short at its limit of tokens.")
    if not isinstance(text, str):
        raise NotChat("not a chat reply", f"The message holds no text: {excerpt(body)!r}.")
    return text


def parse_reply(text: str, lengths: Sequence[Length], instruction: str = "") -> dict[str, str]:
    """Parse captions by name of length from one JSON object with exactly these keys; one code fence may enclose it.

    TextError, and no other, when it is anything else, or a caption is none (`check_text`).
    """
    fenced = _FENCED.fullmatch(text)
    try:
        values = load_json(fenced[1] if fenced else text, "the reply")
    except ValueError as error:
        if lengths:
            _raise_refusal(text, lengths[0])
        raise TextError("no captions", f"The model's reply is not JSON: {text[:_EXCERPT_LENGTH]!r}.") from error
    if not isinstance(values, dict):
        raise TextError("no captions", f"The model's reply is {shorten(values)}, not a JSON object.")
    names = [length.name for length in lengths]
    if set(values) != set(names):
        raise TextError("other keys", f"The model's reply has the keys {_keys(values)}, not {', '.join(names)}.")
    return {length.name: check_text(values[length.name], length, instruction) for length in lengths}


def _raise_refusal(text: str, length: Length) -> None:
    """Raise the TextError of a refusal or of an empty text: it is more specific than that of invalid JSON."""
    try:
        check_text(text, length)
    except TextError as error:
        if error.reason in ("refusal", "empty"):
            raise


def _keys(values: dict[str, Any]) -> str:
    return ", ".join(repr(key[:20]) for key in list(values)[:5]) or "none"


def excerpt(body: bytes) -> str:
    """Return the start of a body, safe to print on a terminal."""
    text = body[: 4 * _EXCERPT_LENGTH].decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_EXCERPT_LENGTH]
