"""Captions: a small grammar that words a clip's truth in many ways, and its exact inverse.

    caption = [count] clause {joint clause} [background] [camera]

Each clause is one of the patterns below about one object. Patterns and word lists serve both directions: a caption is
made by filling the slots, and read by matching each slot against the very words that may fill it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from videodit_data.toyworld.statements import REAPPEARS, Statement
from videodit_data.toyworld.world import PALETTE, TEXTURES, TONES

SIZES = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
SHAPES = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "rectangle": ("rectangle", "oblong"),
    "triangle": ("triangle",),
    "diamond": ("diamond",),
}
COLORS = {name: (name,) for name in PALETTE}
COUNTS = {"2": ("two objects: ", "there are two objects: "), "3": ("three objects: ", "there are three objects: ")}

PARTICIPLES = {
    "moves": "moving",
    "drifts": "drifting",
    "slides": "sliding",
    "glides": "gliding",
    "turns": "turning",
    "travels": "travelling",
    "bounces": "bouncing",
    "rebounds": "rebounding",
}
STRAIGHT = ("moves", "drifts", "slides", "glides")
VERBS = {"clockwise": ("moves", "turns", "travels"), "bounce": ("bounces", "rebounds")}
WAYS = {
    "left": (" left", " to the left"),
    "right": (" right", " to the right"),
    "up": (" up", " upwards"),
    "down": (" down", " downwards"),
    "clockwise": (" clockwise", " in a clockwise circle"),
    "bounce": ("",),
}
OFF = {"wall": (" off the wall", " off the edge"), "collision": (" off another object",)}
BEHIND = (" behind the bar", " behind the grey bar", ", hidden for a moment by the bar")

BACKGROUNDS = (" on a {} background", " against a {} background")
CAMERAS = (", as the camera pans {}", ", seen by a camera panning {}")
JOINTS = (" and ", ", while ")

# The patterns of a caption's first clause, and of the clauses that may follow it in the same form.
MOVING = (
    "a {size}{colour} {shape} {does}",
    "the {size}{colour} {shape} {does}",
    "a {size}{colour} {shape} {doing}",
    "there is a {size}{colour} {shape} {doing}",
    "{size}{colour} {shape}, {doing}",
    "{colour} {shape}, {sized}, {doing}",
    "a {size}{shape} in {colour} {does}",
)
STILL = (
    "a {size}{colour} {shape}",
    "the {size}{colour} {shape}",
    "there is a {size}{colour} {shape}",
    "{size}{colour} {shape}",
    "{colour} {shape}, {sized}",
    "a {size}{shape} in {colour}",
)
FOLLOWING = {
    "{does}": (
        "a {size}{colour} {shape} {does}",
        "the {size}{colour} {shape} {does}",
        "a {size}{shape} in {colour} {does}",
    ),
    "{doing}": ("a {size}{colour} {shape} {doing}",),
    "": ("a {size}{colour} {shape}",),
}


@dataclass(frozen=True)
class Caption:
    """A caption and its statements."""

    text: str
    statements: tuple[Statement, ...]


def write(truth: Mapping[str, Any], rng: np.random.Generator, count: int = 4) -> list[Caption]:
    """Write a clip's truth in `count` ways, each led by another pattern as long as they last."""
    patterns = MOVING if truth["moving"] else STILL
    leading: list[str] = []
    while len(leading) < count:
        leading.extend(patterns[index] for index in rng.permutation(len(patterns)))
    return [_write(truth, rng, pattern) for pattern in leading[:count]]


def parse(text: str) -> list[Statement]:
    """Return a caption's statements, in the order of its words and the count last; case and a full stop do not matter.

    Raises `ValueError` for a text that the grammar does not make.
    """
    match = _caption_pattern().fullmatch(text.strip().lower().removesuffix("."))
    clauses = re.split("|".join(map(re.escape, JOINTS)), match["clauses"]) if match else []
    read = [_read_clause(clause) for clause in clauses]
    if match is None or any(clause is None for clause in read):
        raise ValueError(f"Not a toyworld caption: {text!r}; one is 'a small red circle moves left'.")
    count = match["count"]
    if count and _meaning(COUNTS, count) != str(len(clauses)):
        raise ValueError(f"The toyworld caption {text!r} announces another number of objects than it describes.")
    statements = [
        Statement(kind, value, clause["colour"] if len(clauses) > 1 else None)
        for clause in read
        for kind, value in (clause or {}).items()
    ]
    return [*statements, Statement("count", str(len(clauses)))]


def _write(truth: Mapping[str, Any], rng: np.random.Generator, leading: str) -> Caption:
    things = truth["objects"]
    voice = next(slot for slot in FOLLOWING if slot in leading)
    clauses: list[str] = []
    statements: list[Statement] = []
    for position, index in enumerate(rng.permutation(len(things))):
        pattern = leading if position == 0 else _pick(rng, FOLLOWING[voice])
        causes = [event["kind"] for event in truth["events"] if int(index) in event["objects"]]
        clause, asserted = _write_clause(things[index], causes, rng, pattern)
        clauses.append(clause)
        statements += [Statement(k, v, asserted["colour"] if len(things) > 1 else None) for k, v in asserted.items()]
    statements.append(Statement("count", str(len(things))))
    text = clauses[0] + "".join(
        _pick(rng, JOINTS if voice == "{does}" else JOINTS[:1]) + clause for clause in clauses[1:]
    )
    if len(things) > 1 and rng.random() < 0.4:
        text = _pick(rng, COUNTS[str(len(things))]) + text
    if rng.random() < 0.35:
        background = truth["background"]
        name = background["tone"] if background["texture"] == "plain" else background["texture"]
        text += _pick(rng, BACKGROUNDS).format(name)
    if truth["pan"]["direction"] and rng.random() < 0.5:
        text += _pick(rng, CAMERAS).format(truth["pan"]["direction"])
    return Caption(text, tuple(statements))


def _write_clause(
    thing: Mapping[str, Any], causes: Sequence[str], rng: np.random.Generator, pattern: str
) -> tuple[str, dict[str, str]]:
    """Fill a pattern's slots; returns the words and the kinds and values that they assert."""
    asserted = {"colour": thing["colour"], "shape": thing["shape"]}
    size = _pick(rng, SIZES[thing["size"]]) if "{sized}" in pattern or rng.random() < 0.6 else ""
    if size:
        asserted["size"] = thing["size"]
    motion = thing["motion"]
    verb, way = _pick(rng, VERBS.get(motion, STRAIGHT)), _pick(rng, WAYS[motion])
    if "{do" in pattern:
        asserted["motion"] = motion
        if motion == "bounce" and rng.random() < 0.5:
            way = _pick(rng, OFF["collision" if "collision" in causes else "wall"])
        if thing["occluded"] and rng.random() < 0.7:
            asserted["permanence"] = REAPPEARS
            way += _pick(rng, BEHIND)
    words = {"size": size and size + " ", "sized": size, "colour": thing["colour"]}
    words |= {"shape": _pick(rng, SHAPES[thing["shape"]]), "does": verb + way, "doing": PARTICIPLES[verb] + way}
    return pattern.format(**words), asserted


def _pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _meaning(words: Mapping[str, Sequence[str]], wording: str) -> str:
    return next(name for name, wordings in words.items() if wording in wordings)


def _either(words: Sequence[str]) -> str:
    return "|".join(map(re.escape, words))


def _all(words: Mapping[str, Sequence[str]]) -> str:
    return _either([word for wordings in words.values() for word in wordings])


@lru_cache
def _caption_pattern() -> re.Pattern[str]:
    names = f"(?:{_either((*TONES, *TEXTURES))})"
    background = "|".join(_either([wording]).replace(r"\{\}", names) for wording in BACKGROUNDS)
    camera = "|".join(_either([wording]).replace(r"\{\}", "(?:left|right|up|down)") for wording in CAMERAS)
    return re.compile(f"(?P<count>{_all(COUNTS)})?(?P<clauses>.+?)(?:{background})?(?:{camera})?")


@lru_cache
def _clause_patterns() -> tuple[re.Pattern[str], ...]:
    ways = []
    for motion, wordings in WAYS.items():
        verbs = VERBS.get(motion, STRAIGHT)
        off = "".join(f"|{_either(words)}" for words in OFF.values()) if motion == "bounce" else ""
        forms = _either([*verbs, *(PARTICIPLES[verb] for verb in verbs)])
        ways.append(f"(?P<{motion}>(?:{forms})(?:{_either(wordings)}{off}))")
    does = f"(?:{'|'.join(ways)})(?P<permanence>{_either(BEHIND)})?"
    slots = {
        "{size}": f"(?:(?P<size>{_all(SIZES)}) )?",
        "{sized}": f"(?P<size>{_all(SIZES)})",
        "{colour}": f"(?P<colour>{_all(COLORS)})",
        "{shape}": f"(?P<shape>{_all(SHAPES)})",
        "{does}": does,
        "{doing}": does,
    }
    patterns = []
    for pattern in (*MOVING, *STILL):
        for slot, words in slots.items():
            pattern = pattern.replace(slot, words)
        patterns.append(re.compile(pattern))
    return tuple(patterns)


def _read_clause(clause: str) -> dict[str, str] | None:
    """Return the kinds and values that a clause asserts, or None if no pattern makes it."""
    clause_match = next((match for pattern in _clause_patterns() if (match := pattern.fullmatch(clause))), None)
    if clause_match is None:
        return None
    words = {kind: word for kind, word in clause_match.groupdict().items() if word is not None}
    asserted = {"colour": _meaning(COLORS, words["colour"]), "shape": _meaning(SHAPES, words["shape"])}
    if "size" in words:
        asserted["size"] = _meaning(SIZES, words["size"])
    asserted.update(("motion", motion) for motion in WAYS if motion in words)
    if "permanence" in words:
        asserted["permanence"] = REAPPEARS
    return asserted
