"""Named conditioning inputs: functions that make one array from a clip, registered by name.

A reader computes those that its configuration names for every clip, and `Batch.conditions` holds them stacked. A new
conditioning input needs one function here or in any module that is imported before the reader is made.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from videodit_data.function_registry import FunctionRegistry
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

_CONDITIONS: FunctionRegistry[ConditionFn] = FunctionRegistry("condition", "videodit_data.conditions")


def register_condition(name: str, fn: ConditionFn) -> None:
    """Make `fn` available to readers as the condition `name`.

    `fn` returns a float32 or int32 array whose shape is the same for all clips of a bucket. It is called on several
    threads at once, and its result must depend on nothing but its argument: resumed runs compute it anew. The same
    function defined once more replaces what it was (`FunctionRegistry.register`).

    Raises:
        ValueError: for a name that is no identifier, or that another function has.
    """
    if not name.isidentifier():
        raise ValueError(f"A condition's name is an identifier, not {name!r}.")
    _CONDITIONS.register(name, fn)


def get_condition(name: str) -> ConditionFn:
    """Return the function registered under a name, or that of a module of `videodit_data.conditions`.

    Raises:
        ValueError: when there is none; the message lists the registered names.
    """
    fn = _CONDITIONS.find(name)
    if fn is None:
        registered = ", ".join(_CONDITIONS.names()) or "none"
        raise ValueError(f"No condition {name!r} is registered; registered conditions: {registered}.")
    return fn


def compute_condition(name: str, clip: SampledClip) -> Float32[np.ndarray, "..."] | Int32[np.ndarray, "..."]:
    """Return the condition of a clip.

    Raises:
        ValueError: when the function returns anything but a float32 or int32 array.
    """
    value = get_condition(name)(clip)
    if isinstance(value, np.generic):  # a scalar such as np.float32(1.5)
        value = np.asarray(value)
    if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.int32):
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(
            f"The condition {name!r} of clip {clip.record.id} is {kind}; expected a float32 or int32 array."
        )
    return value
