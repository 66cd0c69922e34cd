"""Named conditioning inputs: functions that make one array from a clip, registered by name.

A reader computes those that its configuration names for every clip, and `Batch.conditions` holds them stacked. A new
conditioning input needs one function here or in any module that is imported before the reader is made.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from videodit_data.storage.records import Record


@dataclass(frozen=True)
class SampledClip:
    """One clip as it is served in a batch, for condition functions; not to be changed by them.

    Attributes:
        record: the stored clip with its captions and `truth`.
        caption: the chosen caption, "" where it is dropped.
        fps: frames per second of what is served.
        video: the frames, where pixels are served.
        latent_mean: the posterior's mean as stored, where latents are served.
        rng: draws for this clip and condition alone; None in evaluation.
    """

    record: Record
    caption: str
    fps: float
    video: UInt8[np.ndarray, "T Y X 3"] | None
    latent_mean: Float[np.ndarray, "t y x C"] | None
    rng: np.random.Generator | None


ConditionFn = Callable[[SampledClip], Float32[np.ndarray, "..."] | Int32[np.ndarray, "..."]]

_CONDITIONS: dict[str, ConditionFn] = {}
_PACKAGE = "videodit_data.conditions"  # whose modules register a function of their own name


def register_condition(name: str, fn: ConditionFn) -> None:
    """Make `fn` available to readers as the condition `name`.

    `fn` returns a float32 or int32 array whose shape is the same for all clips of a bucket. It is called on several
    threads at once, and its result must depend on nothing but its argument: resumed runs compute it anew. The same
    function defined once more, by a notebook's cell or a reloaded module, replaces what it was.

    Raises:
        ValueError: for a name that is no identifier, or that another function has.
    """
    if not name.isidentifier():
        raise ValueError(f"A condition's name is an identifier, not {name!r}.")
    if name in _CONDITIONS and _origin(_CONDITIONS[name]) != _origin(fn):
        raise ValueError(f"The condition {name!r} is registered already.")
    _CONDITIONS[name] = fn


def _origin(fn: ConditionFn) -> tuple[str, str]:
    return getattr(fn, "__module__", ""), getattr(fn, "__qualname__", repr(fn))


def get_condition(name: str) -> ConditionFn:
    """Return the function registered under a name, or that of a module of `videodit_data.conditions`.

    Raises:
        ValueError: when there is none; the message lists the registered names.
    """
    if name not in _CONDITIONS and importlib.util.find_spec(f"{_PACKAGE}.{name}"):
        importlib.import_module(f"{_PACKAGE}.{name}")
    if name not in _CONDITIONS:
        registered = ", ".join(sorted(_CONDITIONS)) or "none"
        raise ValueError(f"No condition {name!r} is registered; registered conditions: {registered}.")
    return _CONDITIONS[name]


def compute_condition(name: str, clip: SampledClip) -> Float32[np.ndarray, "..."] | Int32[np.ndarray, "..."]:
    """Return the condition of a clip.

    Raises:
        ValueError: when the function returns anything but a float32 or int32 array.
    """
    value = get_condition(name)(clip)
    if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.int32):
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(
            f"The condition {name!r} of clip {clip.record.id} is {kind}; expected a float32 or int32 array."
        )
    return value
