"""Values of a model's further inputs, made from clips by the functions that its run names."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Shaped, UInt8
from videodit_data.reading.conditions import SampledClip, compute_condition, register_condition
from videodit_data.storage.records import Record

from videodit.registry import import_attribute


def register_conditions(entries: Iterable[str]) -> tuple[str, ...]:
    """Register the functions of `NAME=MODULE:FUNCTION`; returns the names, which may also stand alone.

    Raises:
        ValueError: when there is no such module or function.
    """
    names = []
    for entry in entries:
        name, _, function = entry.partition("=")
        if function:
            register_condition(name, import_attribute(function, "condition"))
        names.append(name)
    return tuple(names)


def measure_conditions(
    entries: Iterable[str], records: Sequence[Record], videos: Sequence[UInt8[np.ndarray, "T Y X 3"]], fps: float
) -> dict[str, Shaped[np.ndarray, "B ..."]]:
    """Return the values of conditions for clips, as training sees them, by name.

    Args:
        entries: of `DataConfig.conditions`.
        videos: the frames of the records, as they are served.
    """
    clips = [
        SampledClip(record, record.captions[0], fps, video=video, latent_mean=None, rng=None)
        for record, video in zip(records, videos, strict=True)
    ]
    return {name: np.stack([compute_condition(name, clip) for clip in clips]) for name in register_conditions(entries)}
