"""Classification of the blocks of the attention matrix under a mask: empty, whole, or partial.

The test compares ranges of labels over short runs of tokens, so that no array of size T x S is needed. It runs in numpy
where the labels are known when tracing, as those of masks are, else in jax.numpy, as for segment ids.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from videodit_kernels.attention.masks import Rule, allows

EMPTY, PARTIAL, WHOLE = 0, 1, 2

# Tokens whose labels are tested together: blocks are multiples of it.
RUN = 128


def classify_blocks(rule: Rule, q_labels, kv_labels, q_block: int, kv_block: int):
    """Return EMPTY, PARTIAL or WHOLE for each block, int32 [..., T / q_block, S / kv_block].

    Args:
        q_labels, kv_labels: int32 [..., rows, T] and [..., rows, S], T and S multiples of the blocks, those of `RUN`.

    A block may be called PARTIAL that is EMPTY or WHOLE, if its runs mix labels; never the other way round.
    """
    (q_least, q_most), (kv_least, kv_most) = _ranges(q_labels, -1), _ranges(kv_labels, -2)
    every = allows(rule, q_least, kv_least, q_most, kv_most)
    some = allows(rule, q_most, kv_most, q_least, kv_least)
    a, b = q_block // RUN, kv_block // RUN

    def split(x):
        return x.reshape(*x.shape[:-2], x.shape[-2] // a, a, x.shape[-1] // b, b)

    return split(some).any((-3, -1)).astype(np.int32) + split(every).all((-3, -1)).astype(np.int32)


def _ranges(labels, dim: int):
    """Return the least and greatest labels of runs: two lists of a row [..., runs] each, with a new dim at `dim`."""
    xp = np if isinstance(labels, np.ndarray) else jnp
    runs = labels.reshape(*labels.shape[:-1], labels.shape[-1] // RUN, RUN)
    return [
        [xp.expand_dims(bound[..., row, :], dim) for row in range(labels.shape[-2])]
        for bound in (runs.min(-1), runs.max(-1))
    ]
