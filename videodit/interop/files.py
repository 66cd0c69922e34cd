"""What weights come with: their configuration, tensors that are there twice, and prefixes."""

from collections.abc import Mapping

import numpy as np

from videodit.interop.safetensors import Tensor


def without_ties(weights: Mapping[str, Tensor], tied: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors without those that are others again; `tied` has the names of such, and of what they are.

    Raises:
        ValueError: when two that should be one differ.
    """
    kept = dict(weights)
    for copy, name in tied.items():
        if copy not in kept or name not in kept:
            continue
        a, b = kept[copy], kept[name]
        if a.shape != b.shape or not np.array_equal(a.read(), b.read()):
            raise ValueError(f"{copy} and {name} should be one tensor, and differ")
        del kept[copy]
    return kept
