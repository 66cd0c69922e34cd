"""Attention masks of a transformer: against masks written out, on meshes, in training, and counted."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.train.toy import init_model
from videodit.models.conditioning import Conditioning
from videodit.models.dit import DiT, DiTConfig
from videodit.models.flops import adapted_train_flops, dit_cost
from videodit.nn.attention_spec import AttentionSpec, Mask
from videodit.parallel import context
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.parallel.rules import shard_tree

GRID = (4, 5, 3)  # tokens; no mesh divides them
WINDOWS = {"tile": (2, 2, 2), "local_window": (3, 3, 1), "tile_window": (1, 3, 1)}
SPECS = {
    "frame_causal": AttentionSpec(kind="frame_causal", window=2, sinks=1),
    "factorized": AttentionSpec(kind="factorized"),
    "local_window": AttentionSpec(kind="local_window", **WINDOWS),
    "sliding_tiles": AttentionSpec(kind="sliding_tiles", **WINDOWS),
    "mixed": AttentionSpec(pattern=("frame_causal", "sliding_tiles", "full"), **WINDOWS),
}
FULL = DiTConfig(depth=3, width=32, num_heads=4, mlp_width=16, in_channels=2, text_width=4, time_freq_dim=8)


def with_attention(spec: AttentionSpec, **changes) -> DiTConfig:
    return dataclasses.replace(FULL, attention=spec, **changes)


@functools.cache
def random_state():
    """Draw all parameters at random, since zero-initialised ones would hide mistakes."""
    leaves, tree = jax.tree.flatten(init_model(lambda: DiT(FULL, rngs=nnx.Rngs(0)))[1])
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [x + 0.2 * rng.normal(size=x.shape).astype(np.float32) for x in leaves])


def graph(cfg: DiTConfig) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: DiT(cfg, rngs=nnx.Rngs(0))))


def inputs(clips: int = 2):
    """Draw noisy latents, a time for every token, and text."""
    rng = np.random.default_rng(2)
    shape = clips, GRID[0], 2 * GRID[1], 2 * GRID[2], 2
    arrays = rng.normal(size=shape), rng.uniform(size=(clips, math.prod(GRID))), rng.normal(size=(clips, 3, 4))
    x, t, text = (jnp.asarray(x, jnp.float32) for x in arrays)
    return x, t, Conditioning(text, jnp.ones((clips, 3), bool))


def write_out_mask(spec: AttentionSpec, kind: str, grid=GRID) -> np.ndarray:
    """Write a mask out by its definition, bool [L, L], tokens in raster order."""
    at = np.indices(grid).reshape(3, -1)
    (q_t, q_y, q_x), (k_t, k_y, k_x) = at[:, :, None], at[:, None, :]

    def around(at: np.ndarray, counts: tuple[int, ...], window: tuple[int, ...]) -> np.ndarray:
        allowed = True
        for position, count, size in zip(at, counts, window, strict=True):
            size = min(size, count)
            first = np.clip(position - size // 2, 0, count - size)[:, None]
            allowed = allowed & (position >= first) & (position < first + size)
        return allowed

    tiles = tuple(-(-size // step) for size, step in zip(grid, spec.tile, strict=True))
    return {
        "full": lambda: np.ones((at.shape[1],) * 2, bool),
        "frame_causal": lambda: (k_t <= q_t) & ((q_t - k_t < (spec.window or grid[0])) | (k_t < spec.sinks)),
        "spatial": lambda: q_t == k_t,
        "temporal": lambda: (q_y == k_y) & (q_x == k_x),
        "local_window": lambda: around(at, grid, spec.local_window),
        "sliding_tiles": lambda: around(at // np.array(spec.tile)[:, None], tiles, spec.tile_window),
    }[kind]()


class WrittenOut(Mask, parsed=False):
    """A mask stored as its matrix."""

    rule = ()

    def __init__(self, allowed: np.ndarray):
        self.allowed = allowed

    def labels(self, q_len, kv_len):
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class WrittenOutSpec(AttentionSpec):
    """The same attention with masks stored as matrices, tokens in raster order."""

    @property
    def order(self):
        return None

    def build_masks(self, grid):
        return tuple(WrittenOut(write_out_mask(self, kind, grid)) for kind in self.kinds)


def attend_by_matrix(scale, mask, offsets, q, part, segments, **_):
    assert offsets is None and segments is None
    k, v, _ = part
    logits = jnp.where(mask.allowed, scale * jnp.einsum("blnh,bsnh->bnls", q, k), -jnp.inf)
    return jnp.einsum("bnls,bsnh->blnh", jax.nn.softmax(logits), v)


@pytest.mark.parametrize("name", SPECS)
def test_a_masked_model_is_one_with_its_masks_written_out(name, monkeypatch):
    cfg = with_attention(SPECS[name])
    found = jax.jit(nnx.merge(graph(cfg), random_state()).__call__)(*inputs())
    monkeypatch.setattr(context, "_attend", attend_by_matrix)
    reference = with_attention(WrittenOutSpec(**dataclasses.asdict(cfg.attention)))
    expected = jax.jit(nnx.merge(graph(reference), random_state()).__call__)(*inputs())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("remat", ["none", pytest.param("full", marks=pytest.mark.slow)])
def test_frames_do_not_depend_on_later_ones(remat):
    cfg = with_attention(AttentionSpec(kind="frame_causal"), remat=remat)
    model, (x, *rest) = nnx.merge(graph(cfg), random_state()), inputs(1)
    early = jax.jit(jax.grad(lambda x: jnp.sum(model(x, *rest)[:, :2] ** 2)))(x)
    assert not np.any(early[:, 2:]) and np.all(np.any(early[:, :2], axis=(2, 3, 4)))


MESHES = {
    "ring": MeshConfig(context=4, ulysses=1, data=1),
    "ulysses": MeshConfig(context=4, ulysses=4, data=1),
    "both": MeshConfig(context=4, ulysses=2, tensor=2, data=1),
}
QUICK = {("mixed", "both")}


@pytest.mark.parametrize(
    ("name", "mesh"),
    [
        pytest.param(name, mesh, marks=[] if (name, mesh) in QUICK else pytest.mark.slow)
        for name in SPECS
        for mesh in MESHES
    ],
)
def test_losses_and_gradients_on_a_mesh_are_those_of_one_device(name, mesh):
    blueprint, state, cfg = graph(with_attention(SPECS[name])), random_state(), MESHES[mesh]

    def loss(state):
        return jnp.mean(jnp.sin(1 + 3 * nnx.merge(blueprint, state)(*inputs())))

    expected = jax.jit(jax.value_and_grad(loss))(state)
    devices = make_mesh(cfg, jax.devices()[: cfg.context * cfg.tensor], heads=FULL.num_heads)
    with jax.set_mesh(devices):
        found = jax.jit(jax.value_and_grad(loss))(jax.device_put(state, shard_tree(state, devices)))
    for here, there in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-5 * float(jnp.abs(there).max()))


@pytest.mark.parametrize("name", SPECS)
def test_flops_count_the_pairs_of_the_mask_written_out(name):
    spec, tokens = SPECS[name], math.prod(GRID)
    kinds = [spec.kinds[block % len(spec.kinds)] for block in range(FULL.depth)]
    pairs = sum(int(write_out_mask(spec, kind).sum()) for kind in kinds) - FULL.depth * tokens**2
    cfg = with_attention(spec)
    found, full = dit_cost(cfg, tokens, 3, grid=GRID), dit_cost(FULL, tokens, 3)
    assert (found.params, found.macs - full.macs) == (full.params, 2 * FULL.width * pairs)
    adapted = adapted_train_flops(cfg, tokens, 3, 100, grid=GRID) - adapted_train_flops(FULL, tokens, 3, 100)
    assert adapted == 2 * 6 * FULL.width * pairs
    with pytest.raises(ValueError, match="which of 60 tokens attend to each other depends on their grid, got None"):
        dit_cost(cfg, tokens, 3)


def test_packed_sequences_have_full_attention_only():
    model = nnx.merge(graph(with_attention(SPECS["frame_causal"])), random_state())
    shapes = [(1, 6, 8), (1,), (1, 6, 3), (1, 3, 4)]
    arrays = [jnp.zeros(shape) for shape in shapes]
    segments = jnp.ones((1, 6), jnp.int32)
    with pytest.raises(ValueError, match="packed sequences have full attention only"):
        model.tokens(*arrays, jnp.ones((1, 3), jnp.int32), segments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile": (2, 0, 2)}, r"^tile is \(2, 0, 2\): each of its numbers must be from 1"),
        ({"window": 0}, "^window is 0: it must be from 1"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        AttentionSpec(**change)
