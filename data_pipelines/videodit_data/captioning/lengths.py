"""Lengths of captions in words, and checks that every caption must pass."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from videodit_data.caption_files import JOINERS

_SLACK = 1.5  # models count badly: only texts that are off by more than this factor are refused
_BLANKS = "\t\n\r" + JOINERS
_REFUSAL = re.compile(
    r"(i('m| am| was| can| could| do| did| will| would| have| apolog)|sorry\b|unfortunately,? (i|we)\b|apologies\b)"
    r"|.*\b(as an ai\b|an ai (language )?model\b|i (can't|cannot|can not|am unable to)\b|i'm (sorry|unable)\b)",
    re.IGNORECASE,
)
_CHATTER = re.compile(r"(sure\b[,!.]|certainly\b[,!.]|of course\b[,!.]|here('s| is| are) (the|a|an|your|my)\b)", re.I)


@dataclass(frozen=True)
class Length:
    """A length of captions: its name, its range of words (from, to), and what it describes."""

    name: str
    words: tuple[int, int]
    description: str


LENGTHS = {
    length.name: length
    for length in (
        Length("short", (5, 20), "subject and action alone, in one sentence"),
        Length("medium", (25, 70), "all six points, in one to three sentences"),
        Length("long", (80, 200), "all six points in detail, in one paragraph"),
    )
}


class TextError(ValueError):
    """A text that is not a valid caption. `reason` is the same for all texts with the same fault."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def parse_lengths(names: str) -> tuple[Length, ...]:
    """Parse a list of lengths like "short,long", in that order. ValueError lists the known names."""
    length_names = [name.strip() for name in names.split(",")]
    if unknown := [name for name in length_names if name not in LENGTHS]:
        raise ValueError(f"No length is named '{unknown[0]}'; there are {', '.join(LENGTHS)}.")
    if len(set(length_names)) < len(length_names):
        raise ValueError(f"Each length is given once, not as in '{names}'.")
    return tuple(LENGTHS[name] for name in length_names)


def check_text(text: object, length: Length, instruction: str = "") -> str:
    """Return the caption on one line.

    TextError when it is none: no text, empty, too short or too long by half, holding control characters, a refusal,
    talk around a caption, or words of its `instruction`.
    """
    if not isinstance(text, str):
        raise TextError("no text", f"The {length.name} caption is missing or no text.")
    if bad := next((c for c in text if not (c.isprintable() or c in _BLANKS or unicodedata.category(c) == "Zs")), ""):
        raise TextError("control characters", f"The {length.name} caption holds the character U+{ord(bad):04X}.")
    text = " ".join(text.split())
    words = text.split()
    if not any(c.isalnum() for c in text):
        raise TextError("empty", f"The {length.name} caption is empty.")
    plain = text.replace("\u2019", "'")
    if _REFUSAL.match(plain):
        raise TextError("refusal", f"The {length.name} caption is a refusal: {text[:80]!r}.")
    if _CHATTER.match(plain):
        raise TextError("chatter", f"The {length.name} caption begins with talk: {text[:80]!r}.")
    low, high = length.words
    # Characters too: an endless word would count as one.
    if len(words) > high * _SLACK or len(text) > 16 * high * _SLACK:
        raise TextError("too long", f"The {length.name} caption has {len(words)} words, not {low} to {high}.")
    if len(words) < low / _SLACK:
        raise TextError("too short", f"The {length.name} caption has {len(words)} words, not {low} to {high}.")
    if echo := _shared_run(words, instruction.split()):
        raise TextError("echo", f"The {length.name} caption repeats its instruction: '{echo}'.")
    return text


def _shared_run(words: Sequence[str], others: Sequence[str], run: int = 8) -> str:
    """Return a run of `run` words that both texts share, ignoring case; empty when there is none."""
    other_runs = {tuple(word.lower() for word in others[at : at + run]) for at in range(len(others) - run + 1)}
    for at in range(len(words) - run + 1):
        if tuple(word.lower() for word in words[at : at + run]) in other_runs:
            return " ".join(words[at : at + run])
    return ""
