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

from videodit.parallel.rules import mesh_in_force, parts, spec
from videodit.shapes import Heads, Segments

HEADS = ("batch", "tokens", "heads", "head_dim")  # of queries, and of the keys of self-attention
RING, GROUP = "ring", "ulysses"
RESIDUALS = "attention"  # by which policies of `jax.checkpoint` keep outputs and their log-sum-exp
ROUNDS = 8  # in which the tokens of packed rows are dealt to the devices of a ring

Ids = Int[Array, "B L"] | None
Part = tuple[Array, Array, Ids]  # keys, values and segments of a device


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the tokens of a row lie over the devices that share it, padded to divide evenly.

    length, padded: of a row, as it is and as it is spread.
    ring: the devices that packed rows are dealt to like cards, `ROUNDS` times around, so that each gets its share of
        long and of short clips, and none waits for another; 1 leaves the order alone.
    """

    length: int
    padded: int
    ring: int

    @classmethod
    def of(cls, length: int, *, packed: bool) -> "Layout":
        """That for the mesh in force."""
        mesh = mesh_in_force()
        ring = mesh.shape[RING] if packed and mesh is not None else 1
        unit = math.lcm(parts("stream"), ring * ROUNDS if ring > 1 else 1)
        return cls(length, -(-length // unit) * unit, ring)

    def spread(self, x: Float[Array, "B L *dims"] | Int[Array, "B L *dims"]) -> Array:
        """[B, padded, ...], zeros for padding."""
        x = jnp.pad(x, [(0, self.padded - self.length) if dim == 1 else (0, 0) for dim in range(x.ndim)])
        return einops.rearrange(x, "b (rounds ring k) ... -> b (ring rounds k) ...", ring=self.ring, rounds=self.rounds)

    def collect(self, x: Float[Array, "B padded *dims"]) -> Float[Array, "B L *dims"]:
        """The way back."""
        x = einops.rearrange(x, "b (ring rounds k) ... -> b (rounds ring k) ...", ring=self.ring, rounds=self.rounds)
        return x[:, : self.length]

    @property
    def rounds(self) -> int:
        return ROUNDS if self.ring > 1 else 1


def self_attention(
    q_BLNH: Heads, k_BLNH: Heads, v_BLNH: Heads, segments_BL: Segments | None = None, *, scale: float | None = None
) -> Heads:
    """`softmax(scale q k') v` within segments, in the type of `q`; the softmax is float32.

    A length that does not divide over the devices is whole on each of them; `Layout` pads it.

    Args:
        segments_BL: of every token; 0 is padding, which nothing attends to, and whose own result is zero.
        scale: 1 / sqrt(H) by default.

    Raises:
        ValueError: when the heads do not divide over `ulysses`.
    """
    mesh = mesh_in_force()
    run = functools.partial(_on_device, scale=scale, ring=False, exchange=False)
    if mesh is None:
        return run(q_BLNH, k_BLNH, v_BLNH, segments_BL)
    heads = spec(HEADS, q_BLNH.shape, mesh)
    if heads[1] is not None:
        if q_BLNH.shape[2] // parts("heads") % mesh.shape[GROUP]:
            raise ValueError(
                f"{q_BLNH.shape[2]} heads do not divide over a mesh of {dict(mesh.shape)}: see `make_mesh`"
            )
        run = functools.partial(run, ring=mesh.shape[RING] > 1, exchange=mesh.shape[GROUP] > 1)
    ids = None if segments_BL is None else spec(("batch", "tokens"), segments_BL.shape, mesh)
    divided = jax.shard_map(run, mesh=mesh, in_specs=(heads, heads, heads, ids), out_specs=heads, check_vma=False)
    return divided(q_BLNH, k_BLNH, v_BLNH, segments_BL)


def unseen_padding(segments: Int[Array, "B S"]) -> Int[Array, "B S"]:
    """Segments of keys for the kernels, to which padding is a segment of its own; here nothing attends to it."""
    return jnp.where(segments == 0, -1, segments)


def _on_device(q: Array, k: Array, v: Array, segments: Ids, *, scale: float | None, ring: bool, exchange: bool):
    """Attention of one device's tokens and heads, exchanged for more tokens of fewer heads."""
    if exchange:
        q, k, v = (lax.all_to_all(x, GROUP, split_axis=2, concat_axis=1, tiled=True) for x in (q, k, v))
        segments = None if segments is None else lax.all_gather(segments, GROUP, axis=1, tiled=True)
    keys = None if segments is None else unseen_padding(segments)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if ring:
        out = _ring(scale, q, (k, v, keys), segments)
    else:
        out = _attend(scale, q, (k, v, keys), segments, residuals=RESIDUALS)
    return lax.all_to_all(out, GROUP, split_axis=1, concat_axis=2, tiled=True) if exchange else out


def _attend(scale: float, q: Array, part: Part, segments: Ids, **options):
    k, v, keys = part
    return kernels.attention(q, k, v, segment_ids=None if keys is None else (segments, keys), scale=scale, **options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ring(scale: float, q: Array, part: Part, segments: Ids) -> Array:
    """Attention of a device's queries to the keys of every device of its ring, as they come by."""
    return _ring_fwd(scale, q, part, segments)[0]


def _ring_fwd(scale: float, q: Array, part: Part, segments: Ids):
    def step(carry, _):
        so_far, here = carry
        ahead = _pass_on(here)  # on its way while this one is attended to
        return (kernels.merge(so_far, _attend(scale, q, here, segments, return_lse=True)), ahead), None

    nothing = jnp.zeros(q.shape, jnp.float32), jnp.full(q.shape[:3], -jnp.inf)
    (so_far, last), _ = lax.scan(step, (nothing, part), length=lax.axis_size(RING) - 1)
    out, lse = kernels.merge(so_far, _attend(scale, q, last, segments, return_lse=True))
    out, lse = (checkpoint_name(x, RESIDUALS) for x in (out.astype(q.dtype), lse))
    return out, (q, part, segments, out, lse)


def _ring_bwd(scale: float, kept, d_out: Array):
    """Gradients of keys and values travel behind them, a step late, so that they too are on their way meanwhile."""
    q, part, segments, out, lse = kept
    delta = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1)

    def through(here: Part):
        k, v, keys = here
        ids = None if keys is None else (segments, keys)
        return kernels.gradients(q, k, v, d_out, lse, delta, segment_ids=ids, scale=scale)

    def step(carry, _):
        dq, here, behind = carry
        ahead, so_far = _pass_on(here), _pass_on(behind)
        dq_here, *d_here = through(here)
        return (dq + dq_here, ahead, jax.tree.map(jnp.add, so_far, d_here)), None

    k, v, _ = part
    nothing = [jnp.zeros(x.shape, jnp.float32) for x in (k, v)]
    start = jnp.zeros(q.shape, jnp.float32), part, nothing
    (dq, last, behind), _ = lax.scan(step, start, length=lax.axis_size(RING) - 1)
    so_far = _pass_on(behind)
    dq_here, *d_here = through(last)
    dk, dv = _pass_on(jax.tree.map(jnp.add, so_far, d_here))  # home
    return (dq + dq_here).astype(q.dtype), (dk.astype(k.dtype), dv.astype(v.dtype), None), None


_ring.defvjp(_ring_fwd, _ring_bwd)


def _pass_on(x):
    """To the next device of the ring."""
    size = lax.axis_size(RING)
    return jax.tree.map(lambda x: lax.ppermute(x, RING, [(i, (i + 1) % size) for i in range(size)]), x)
