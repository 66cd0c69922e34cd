"""The captioner interface: any callable from a few clips to captions of the requested lengths.

    def captioner(clips: Sequence[Clip], lengths: Sequence[Length]) -> Sequence[Mapping[str, str] | Failure]

returns for every clip, in order, one text per length by the length's name, or the reason why there is none. It is
called from the configured number of threads. An exception ends the run; recorded answers are kept. A captioner may have
an `identity` (an `Identity`); without one its name and its module's source identify it.
"""

import hashlib
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from videodit_data.captioning.lengths import Length, TextError, check_text


@dataclass(frozen=True)
class Clip:
    """The input of a captioner: a few evenly spaced frames of a clip, and its known facts."""

    id: str
    sha256: str  # of the encoded file
    frames: UInt8[np.ndarray, "T Y X 3"]
    seconds: float | int  # length of the clip
    fps: float | int  # of the clip, not of these frames
    captions: tuple[str, ...] = ()  # known so far, none of them empty


@dataclass(frozen=True)
class Failure:
    """The reason why a clip got no captions.

    Attributes:
        reason: a few words, the same for all clips that fail alike: failures are counted by it.
        detail: what exactly was wrong.
        lasting: asking again would end the same, so that a resumed run does not.
    """

    reason: str
    detail: str = ""
    lasting: bool = True


Answer = Mapping[str, str] | Failure  # texts by the name of the length
Captioner = Callable[[Sequence[Clip], Sequence[Length]], Sequence[Answer]]
Keep = Literal["before", "after", "none"]  # where captions that there are stay: before the new ones, after, nowhere


@dataclass(frozen=True)
class Identity:
    """All settings that determine a captioner's captions. `settings` is plain JSON, without address or key."""

    model: str
    template: str = ""  # version of the instruction; empty where there is none of ours
    settings: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the identity as plain JSON."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """Return a short hash of the identity."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def source(self, length: str) -> str:
        """Return the entry of `Record.caption_sources` for a caption: model, template, length."""
        return ", ".join(filter(None, (self.model, self.template and f"template {self.template}", length)))


def ask(captioner: Captioner, clips: Sequence[Clip], lengths: Sequence[Length]) -> list[Answer]:
    """Return the captioner's answers, each with a good text for every length or else a `Failure`.

    ValueError when what comes back is no answer for each clip.
    """
    answers = list(captioner(clips, lengths)) if clips else []
    if len(answers) != len(clips):
        raise ValueError(
            f"The captioner was given {len(clips)} clips and gave {len(answers)} answers; one each is due."
        )
    return [_checked(clip, answer, lengths) for clip, answer in zip(clips, answers, strict=True)]


def _checked(clip: Clip, answer: object, lengths: Sequence[Length]) -> Answer:
    if isinstance(answer, Failure):
        return answer
    if not isinstance(answer, Mapping):
        raise ValueError(
            f"The captioner's answer for clip {clip.id} is a {type(answer).__name__}; expected a mapping from length "
            "to text, or a Failure."
        )
    try:
        return {length.name: check_text(answer.get(length.name), length) for length in lengths}
    except TextError as error:
        return Failure(error.reason, str(error))


def merge_captions(
    answer: Mapping[str, str], identity: Identity, captions: Sequence[str], sources: Sequence[str], keep: Keep
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the answer's captions merged with the existing ones, and the sources of all: fields of a `Record`.

    Empty captions, which stand for none, are not kept.
    """
    new = [(text, identity.source(name)) for name, text in answer.items()]
    old = [] if keep == "none" else [each for each in zip(captions, sources, strict=True) if each[0].strip()]
    texts, text_sources = zip(*(old + new if keep == "before" else new + old), strict=True)
    return texts, text_sources


def load(name: str) -> tuple[Captioner, Identity]:
    """Return the captioner that "module:function" names, and its identity. ValueError when there is none.

    The module may lie in the working directory, as for `python -m`.
    """
    module_name, _, function = name.partition(":")
    if not module_name or not function:
        raise ValueError(f"A captioner is named as module:function, not '{name}'.")
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"The captioner's module {module_name} cannot be imported: {error}.") from error
    captioner = getattr(module, function, None)
    if not callable(captioner):
        raise ValueError(f"{module_name} has no callable '{function}'.")
    return captioner, identity_of(captioner, name)


def identity_of(captioner: Captioner, name: str) -> Identity:
    """Return the captioner's `identity`, or else `name` and the hash of its source file."""
    own = getattr(captioner, "identity", None)
    if isinstance(own, Identity):
        return own
    module = inspect.getmodule(captioner)
    file = None if module is None else getattr(module, "__file__", None)
    code = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else ""
    return Identity(name, settings={"code": code})
