"""A loss and all its gradients are the same on every mesh."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.train.toy import init_model
from videodit.models.dit import DiT, DiTConfig
from videodit.parallel.mesh import SIZES, MeshConfig, make_mesh
from videodit.parallel.rules import shard_tree

CONFIG = DiTConfig(
    depth=2,
    width=64,
    num_heads=8,
    mlp_width=32,
    in_channels=3,
    text_width=16,
    time_freq_dim=8,
    pooled_text=True,
    qk_norm="full",
    cross_attn_norm=True,
    remat="full",
)
CLIPS, TOKENS, TEXT = 8, 62, 6  # of which 62 divide over none of the meshes


def meshes(devices: int) -> list[MeshConfig]:
    """Return all meshes of `devices` devices: context parallelism in rings, by Ulysses' all-to-all, and by both."""
    divisors = [n for n in range(1, devices + 1) if devices % n == 0]
    shapes = [shape for shape in itertools.product(divisors, repeat=len(SIZES)) if math.prod(shape) == devices]
    every = [MeshConfig(*shape, ulysses=group) for shape in shapes for group in divisors]
    return [cfg for cfg in every if cfg.context % cfg.ulysses == 0]


def format_mesh(cfg: MeshConfig) -> str:
    return "-".join(f"{name}{size}" for name, size in dataclasses.asdict(cfg).items() if size > 1)


EVERY = [cfg for devices in (2, 4, 8) for cfg in meshes(devices)]
QUICK = ("data2-context2-tensor2",)


@functools.cache
def random_model():
    """Draw all parameters of a model at random, since zero-initialised ones would hide mistakes."""
    graph, state = init_model(lambda: DiT(CONFIG, rngs=nnx.Rngs(0)))
    leaves, tree = jax.tree.flatten(state)
    rng = np.random.default_rng(1)
    return graph, jax.tree.unflatten(tree, [x + 0.2 * rng.normal(size=x.shape).astype(np.float32) for x in leaves])


def batch():
    """Draw tokens, a time for each clip and for each token, positions and text; and segments of text and tokens."""
    rng = np.random.default_rng(2)
    packed = [np.sort(rng.integers(1, 4, (CLIPS, n)), axis=1).astype(np.int32) for n in (TEXT, TOKENS)]
    for ids, padding in zip(packed, (1, 7), strict=True):
        ids[:, -padding:] = 0
    normal, uniform = (lambda *shape: rng.normal(size=shape)), (lambda *shape: rng.uniform(size=shape))
    floats = normal(CLIPS, TOKENS, 12), uniform(CLIPS), uniform(CLIPS, TOKENS), normal(CLIPS, TOKENS, 3)
    return [jnp.asarray(x, jnp.float32) for x in (*floats, normal(CLIPS, TEXT, 16))], map(jnp.asarray, packed)


def losses(state):
    """Return the losses of one clip per sequence, and of several packed into a sequence."""
    (x, t, t_each, positions, text), (text_segments, segments) = batch()
    model = nnx.merge(random_model()[0], state)
    alone = model.tokens(x, t, positions, text, jnp.ones_like(text_segments))
    packed = model.tokens(x, t_each, positions, text, text_segments, segments) * (segments > 0)[..., None]
    return jnp.stack([jnp.mean(jnp.sin(alone)), jnp.mean(jnp.cos(3 * packed))])


def results(state):
    """Return both losses, and the gradient of a weighted sum of them."""
    found, back = jax.vjp(losses, state)
    return found, back(jnp.array([1.0, -0.7]))[0]


@pytest.fixture(scope="module")
def expected():
    return jax.jit(results)(random_model()[1])


@pytest.mark.parametrize(
    "cfg",
    [pytest.param(c, id=format_mesh(c), marks=[] if format_mesh(c) in QUICK else pytest.mark.slow) for c in EVERY],
)
def test_losses_and_gradients_on_a_mesh_are_those_of_one_device(cfg, expected):
    devices = math.prod(getattr(cfg, name) for name in SIZES)
    mesh = make_mesh(cfg, jax.devices()[:devices], heads=CONFIG.num_heads)
    with jax.set_mesh(mesh):
        state = random_model()[1]
        found = jax.jit(results)(jax.device_put(state, shard_tree(state, mesh)))
    for here, there in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-5 * float(jnp.abs(there).max()))
