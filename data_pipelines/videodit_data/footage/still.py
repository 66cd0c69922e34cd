"""Measures of stillness: the static share of a clip, and whether it is a slideshow of stills."""

from collections.abc import Sequence

import numpy as np

STILL = 3.0  # greatest change, in levels of 255, of a spot of a static picture: encoding alone causes less
_JUMP = 12.0  # least change in a jump to another still: a slow zoom alternates around the limit of stillness
_STILL_SECONDS, _JUMP_SECONDS = 0.5, 1.0  # shortest still, longest jump of a slideshow


def static_share(changes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Return the share of time in steps without change, 0 to 1; None without steps. `seconds` is each step's."""
    return float(np.average(np.asarray(changes) <= STILL, weights=seconds)) if len(changes) else None


def slideshow(changes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Return the share of time in stills that short jumps join, 0 to 1; 0 unless there are two stills at least.

    A still lasts half a second or more, a jump (a cut or a dissolve) one second at most. `seconds` is each step's.
    """
    if not len(changes):
        return None
    still = np.asarray(changes) <= STILL
    lengths = np.asarray(seconds)
    edges = np.flatnonzero(np.diff(still)) + 1
    parts = np.split(np.arange(len(still)), edges)
    runs = [(bool(still[part[0]]), float(lengths[part].sum())) for part in parts]
    most = [float(np.asarray(changes)[part].max()) for part in parts]
    joined: set[int] = set()
    for at in range(1, len(runs) - 1):
        (one, before), (_, jump), (_, after) = runs[at - 1 : at + 2]
        if one and most[at] >= _JUMP and jump <= _JUMP_SECONDS + 1e-6 and min(before, after) >= _STILL_SECONDS - 1e-6:
            joined |= {at - 1, at + 1}
    return sum(runs[at][1] for at in joined) / float(lengths.sum())
