"""Public TPU kernels behind the interface of `attention`, for comparison: JAX's splash attention, and tokamax's."""

from __future__ import annotations

import importlib
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from videodit_kernels.attention.masks import Mask, Rule, SequenceOffsets, materialize_rule
from videodit_kernels.attention.tpu.labels import LANES, Labels, label_tokens

MODULES = {
    "splash": "jax.experimental.pallas.ops.tpu.splash_attention",
    "tokamax": "tokamax._src.ops.experimental.tpu.splash_attention",
}


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask | None,
    segments: tuple[Array, Array] | None,
    scale: float,
    offsets: SequenceOffsets | None = None,
    package: str = "splash",
    block: int = 512,
    interpret: bool = False,
) -> tuple[Array, None]:
    """Compute `reference.attention`, without a log-sum-exp: neither package has its gradient.

    Raises:
        ValueError: where a query might have no key, which the packages do not define, or where `package` is missing.
    """
    if (mask is not None or segments is not None) and q.shape[1] != k.shape[1]:
        raise ValueError(f"implementation {package!r} has masks and segments only for as many queries as keys")
    if offsets is not None:
        raise ValueError(f"implementation {package!r} has no masks for a part of a sequence")
    kernel, masks = (_load(package, part) for part in ("kernel", "mask"))
    lengths = [-(-x.shape[1] // LANES) * LANES for x in (q, k)]
    if segments is not None:
        segments = [_pad(ids, 1, length, "edge") for ids, length in zip(segments, lengths, strict=True)]
    rule, _, labels = label_tokens(mask, None, q.shape[1], k.shape[1], *lengths)
    splash_mask = masks.FullMask(tuple(lengths)) if labels is None else _mask_class(masks.Mask)(rule, labels)
    attend = _make_kernel(package, kernel, masks, splash_mask, q.shape[2], lengths, block, interpret)

    def one(q, k, v, ids):
        return attend(q, k, v, segment_ids=None if ids is None else kernel.SegmentIds(*ids))

    heads = -(-q.shape[3] // LANES) * LANES
    padded = [
        _pad(_pad(x.swapaxes(1, 2), 2, length), 3, heads)
        for x, length in ((q * scale, lengths[0]), (k, lengths[1]), (v, lengths[1]))
    ]
    out = jax.vmap(one)(*padded, segments)
    return out[:, :, : q.shape[1], : q.shape[3]].swapaxes(1, 2).astype(q.dtype), None


def _load(package: str, part: str) -> ModuleType:
    try:
        return importlib.import_module(f"{MODULES[package]}.splash_attention_{part}")
    except ImportError as error:
        raise ValueError(f"implementation {package!r} needs the package {package}: {error}") from None


def _make_kernel(package, kernel, masks, mask, heads: int, lengths: list[int], block: int, interpret: bool):
    q, kv = (max(size for size in range(LANES, block + 1, LANES) if length % size == 0) for length in lengths)
    sizes = {"block_q": q, "block_kv": kv, "block_kv_compute": kv}
    sizes |= {"block_q_dkv": q, "block_kv_dkv": kv, "block_kv_dkv_compute": kv, "use_fused_bwd_kernel": True}
    if package == "tokamax":
        config = kernel.SplashConfig(**sizes, use_base2_exp=True, interpret=interpret)
        return kernel.make_splash_mha(mask, config=config, q_seq_shards=1)
    return kernel.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=kernel.BlockSizes(**sizes),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )


def _mask_class(base: type) -> type:
    """Return a subclass of the package's mask class that writes out the requested slices of our masks."""

    class MaterializedMask(base):
        def __init__(self, rule: Rule, labels: Labels):
            self.rule, self.labels = rule, labels

        @property
        def shape(self) -> tuple[int, int]:
            return self.labels.q.shape[-1], self.labels.kv.shape[-1]

        def __getitem__(self, at) -> np.ndarray:
            return materialize_rule(self.rule, self.labels.q[0][:, at[0]], self.labels.kv[0][:, at[1]])

        def __eq__(self, other: object) -> bool:
            return self is other

        def __hash__(self) -> int:
            return id(self)

    return MaterializedMask


def _pad(x: Array, dim: int, length: int, mode: str = "constant") -> Array:
    return jnp.pad(x, [(0, length - x.shape[dim]) if d == dim else (0, 0) for d in range(x.ndim)], mode=mode)
