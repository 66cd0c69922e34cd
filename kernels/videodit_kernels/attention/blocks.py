"""Which blocks of the attention matrix a mask leaves empty, whole, or in part.

Judged from ranges of labels over short runs of tokens, so that nothing of size T x S is ever made; in numpy where the
labels are known when tracing, as those of masks are, else in jax.numpy, as for segment ids.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from videodit_kernels.attention.masks import Rule

EMPTY, PARTIAL, WHOLE = 0, 1, 2

# Tokens whose labels are judged together: blocks are multiples of it.
RUN = 128


def classify(rule: Rule, q_labels, kv_labels, q_block: int, kv_block: int):
    """EMPTY, PARTIAL or WHOLE for each block, int32 [..., T / q_block, S / kv_block].

    Args:
        q_labels, kv_labels: int32 [..., rows, T] and [..., rows, S], T and S multiples of the blocks, those of `RUN`.

    A block may be called PARTIAL that is EMPTY or WHOLE, if its runs mix labels; never the other way round.
    """
    xp = np if isinstance(q_labels, np.ndarray) and isinstance(kv_labels, np.ndarray) else jnp
    some = every = None
    q, kv = _ranges(xp, q_labels), _ranges(xp, kv_labels)
    for clause in rule:
        any_some = any_every = None
        for label, low, high in clause:
            least = kv[0][..., label, None, :] - q[1][..., label, :, None]
            most = kv[1][..., label, None, :] - q[0][..., label, :, None]
            this_some, this_every = (most >= low) & (least <= high), (least >= low) & (most <= high)
            any_some = this_some if any_some is None else any_some | this_some
            any_every = this_every if any_every is None else any_every | this_every
        some = any_some if some is None else some & any_some
        every = any_every if every is None else every & any_every
    a, b = q_block // RUN, kv_block // RUN

    def split(x):
        return x.reshape(*x.shape[:-2], x.shape[-2] // a, a, x.shape[-1] // b, b)

    return split(some).any((-3, -1)).astype(np.int32) + split(every).all((-3, -1)).astype(np.int32)


def _ranges(xp, labels):
    runs = labels.reshape(*labels.shape[:-1], labels.shape[-1] // RUN, RUN)
    return xp.min(runs, -1), xp.max(runs, -1)
