"""Self-attention over tokens that several devices share: rings, all-to-all, and rings of all-to-all groups.

With the tokens of a row divided over the mesh axes `ring` x `ulysses`, every group along `ulysses` exchanges its
tokens for heads (DeepSpeed Ulysses, arXiv:2309.14509), and keys and values then travel around `ring` (ring
attention, arXiv:2310.01889; both together: arXiv:2405.07719). No device ever holds all keys of all heads.
"""

import dataclasses
import functools
import math

import einops
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int
from videodit_kernels import attention as kernels
from videodit_kernels.attention.tiles import Grid

from videodit.parallel.rules import count_shards, current_mesh, partition_spec
from videodit.shapes import Heads, Segments

HEADS = ("batch", "tokens", "heads", "head_dim")  # of queries, and of the keys of self-attention
RING, GROUP = "ring", "ulysses"
RESIDUALS = "attention"  # by which policies of `jax.checkpoint` keep outputs and their log-sum-exp
ROUNDS = 8  # in which the tokens of packed sequences are dealt to the devices of a ring

Ids = Int[Array, "B L"] | None
Part = tuple[Array, Array, Ids]  # keys, values and segments of a device
Offsets = kernels.SequenceOffsets | None


@dataclasses.dataclass(frozen=True)
class TokenSharding:
    """How the tokens of a sequence are divided over the devices that share it, padded to divide evenly.

    Attributes:
        length, padded: tokens of a sequence, without and with padding.
        ring: the devices that packed sequences are dealt to like cards, `ROUNDS` times around, so that each gets its
            share of long and of short clips, and none waits for another; 1 leaves the order alone.
        tiles: grid of the tokens and the tile in whose order devices hold them; None for the order that they come in.
    """

    length: int
    padded: int
    ring: int
    tiles: tuple[Grid, Grid] | None = None

    @classmethod
    def for_length(cls, length: int, *, packed: bool, tiles: tuple[Grid, Grid] | None = None) -> "TokenSharding":
        """Return the sharding of sequences of a length on the current mesh."""
        mesh = current_mesh()
        ring = mesh.shape[RING] if packed and mesh is not None else 1
        unit = math.lcm(count_shards("stream"), ring * ROUNDS if ring > 1 else 1)
        return cls(length, -(-length // unit) * unit, ring, tiles)

    def shard_tokens(self, x: Float[Array, "B L *dims"] | Int[Array, "B L *dims"]) -> Array:
        """Pad and order tokens as devices hold them: [B, padded, ...], zeros for padding."""
        x = x if self.tiles is None else kernels.to_tiles(x, *self.tiles)
        x = jnp.pad(x, [(0, self.padded - self.length) if dim == 1 else (0, 0) for dim in range(x.ndim)])
        return einops.rearrange(x, "b (rounds ring k) ... -> b (ring rounds k) ...", ring=self.ring, rounds=self.rounds)

    def gather_tokens(self, x: Float[Array, "B padded *dims"]) -> Float[Array, "B L *dims"]:
        """Invert `shard_tokens`."""
        x = einops.rearrange(x, "b (ring rounds k) ... -> b (rounds ring k) ...", ring=self.ring, rounds=self.rounds)
        x = x[:, : self.length]
        return x if self.tiles is None else kernels.from_tiles(x, *self.tiles)

    @property
    def rounds(self) -> int:
        return ROUNDS if self.ring > 1 else 1


def self_attention(
    q_BLNH: Heads,
    k_BLNH: Heads,
    v_BLNH: Heads,
    segments_BL: Segments | None = None,
    *,
    mask: kernels.Mask | None = None,
    scale: float | None = None,
) -> Heads:
    """Compute `softmax(scale q k') v` within segments and a mask, in the type of `q`; the softmax is float32.

    A length that does not divide over the devices is whole on each of them; `TokenSharding` pads it.

    Args:
        segments_BL: of every token; 0 is padding, which nothing attends to, and whose own result is zero.
        mask: which of the L tokens attend to which; None for all.
        scale: 1 / sqrt(H) by default.

    Raises:
        ValueError: when the heads do not divide over `ulysses`.
    """
    mesh = current_mesh()
    run = functools.partial(_attend_on_device, mask=mask, scale=scale, ring=False, exchange=False)
    if mesh is None:
        return run(q_BLNH, k_BLNH, v_BLNH, segments_BL)
    heads = partition_spec(HEADS, q_BLNH.shape, mesh)
    if heads[1] is not None:
        if q_BLNH.shape[2] // count_shards("heads") % mesh.shape[GROUP]:
            raise ValueError(
                f"{q_BLNH.shape[2]} heads do not divide over a mesh of {dict(mesh.shape)}: see `make_mesh`"
            )
        run = functools.partial(run, ring=mesh.shape[RING] > 1, exchange=mesh.shape[GROUP] > 1)
    ids = None if segments_BL is None else partition_spec(("batch", "tokens"), segments_BL.shape, mesh)
    divided = jax.shard_map(run, mesh=mesh, in_specs=(heads, heads, heads, ids), out_specs=heads, check_vma=False)
    return divided(q_BLNH, k_BLNH, v_BLNH, segments_BL)


def mark_padding(segments: Int[Array, "B S"]) -> Int[Array, "B S"]:
    """Return key segments for the kernels, with -1 for padding, so that nothing attends to it."""
    return jnp.where(segments == 0, -1, segments)


def _attend_on_device(
    q: Array,
    k: Array,
    v: Array,
    segments: Ids,
    *,
    mask: kernels.Mask | None,
    scale: float | None,
    ring: bool,
    exchange: bool,
):
    """Compute attention of one device's tokens and heads, exchanged for more tokens of fewer heads."""
    if exchange:
        q, k, v = (lax.all_to_all(x, GROUP, split_axis=2, concat_axis=1, tiled=True) for x in (q, k, v))
        segments = None if segments is None else lax.all_gather(segments, GROUP, axis=1, tiled=True)
    keys = None if segments is None else mark_padding(segments)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if ring:
        out = _ring(scale, mask, q, (k, v, keys), segments)
    else:
        out = _attend(scale, mask, None, q, (k, v, keys), segments, residuals=RESIDUALS)
    return lax.all_to_all(out, GROUP, split_axis=1, concat_axis=2, tiled=True) if exchange else out


def _attend(scale: float, mask: kernels.Mask | None, offsets: Offsets, q: Array, part: Part, segments: Ids, **options):
    k, v, keys = part
    ids = None if keys is None else (segments, keys)
    return kernels.attention(q, k, v, mask=mask, offsets=offsets, segment_ids=ids, scale=scale, **options)


def _ring_offsets(mask: kernels.Mask | None, q: Array, part: Part, step: Array | int | None) -> Offsets:
    """Locate a device's queries, and the keys that it holds after `step` exchanges, in the whole sequence."""
    if mask is None:
        return None
    ring, index = lax.axis_size(RING), lax.axis_index(RING)
    q_len, kv_len = q.shape[1], part[0].shape[1]
    return kernels.SequenceOffsets(index * q_len, (index - step) % ring * kv_len, ring * q_len, ring * kv_len)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _ring(scale: float, mask: kernels.Mask | None, q: Array, part: Part, segments: Ids) -> Array:
    """Compute attention of a device's queries to the keys of every device of its ring, as they come by."""
    return _ring_fwd(scale, mask, q, part, segments)[0]


def _ring_fwd(scale: float, mask: kernels.Mask | None, q: Array, part: Part, segments: Ids):
    def attend(part: Part, step: Array | int | None):
        return _attend(scale, mask, _ring_offsets(mask, q, part, step), q, part, segments, return_lse=True)

    def exchange(carry, step):
        merged, part = carry
        next_part = _send_to_next(part)  # sent while this one is attended to
        return (kernels.merge(merged, attend(part, step)), next_part), None

    empty = jnp.zeros(q.shape, jnp.float32), jnp.full(q.shape[:3], -jnp.inf)
    last_step, steps = _ring_steps(mask)
    (merged, last), _ = lax.scan(exchange, (empty, part), steps, length=last_step)
    out, lse = kernels.merge(merged, attend(last, last_step))
    out, lse = (checkpoint_name(x, RESIDUALS) for x in (out.astype(q.dtype), lse))
    return out, (q, part, segments, out, lse)


def _ring_bwd(scale: float, mask: kernels.Mask | None, residuals, d_out: Array):
    """Send gradients of keys and values behind them, a step late, so that they too are sent during computation."""
    q, part, segments, out, lse = residuals
    delta = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1)

    def differentiate(part: Part, step: Array | int | None):
        k, v, keys = part
        ids, offsets = None if keys is None else (segments, keys), _ring_offsets(mask, q, part, step)
        return kernels.gradients(q, k, v, d_out, lse, delta, mask=mask, offsets=offsets, segment_ids=ids, scale=scale)

    def exchange(carry, step):
        dq, part, d_previous = carry
        next_part, d_part = _send_to_next(part), _send_to_next(d_previous)
        dq_part, *d_more = differentiate(part, step)
        return (dq + dq_part, next_part, jax.tree.map(jnp.add, d_part, d_more)), None

    k, v, _ = part
    zeros = [jnp.zeros(x.shape, jnp.float32) for x in (k, v)]
    start = jnp.zeros(q.shape, jnp.float32), part, zeros
    last_step, steps = _ring_steps(mask)
    (dq, last, d_previous), _ = lax.scan(exchange, start, steps, length=last_step)
    d_part = _send_to_next(d_previous)
    dq_part, *d_more = differentiate(last, last_step)
    dk, dv = _send_to_next(jax.tree.map(jnp.add, d_part, d_more))  # back to their own device
    return (dq + dq_part).astype(q.dtype), (dk.astype(k.dtype), dv.astype(v.dtype), None), None


def _ring_steps(mask: kernels.Mask | None) -> tuple[int, Array | None]:
    """Return how many exchanges a ring makes, and their numbers if a mask depends on them."""
    count = lax.axis_size(RING) - 1
    return count, None if mask is None else jnp.arange(count)


_ring.defvjp(_ring_fwd, _ring_bwd)


def _send_to_next(x):
    """Send arrays to the next device of the ring."""
    size = lax.axis_size(RING)
    return jax.tree.map(lambda x: lax.ppermute(x, RING, [(i, (i + 1) % size) for i in range(size)]), x)
