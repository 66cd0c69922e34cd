"""One law: a loss and all its gradients are the same on every mesh."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videodit.models.dit import DiT, DiTConfig
from videodit.parallel.mesh import AXES, MeshConfig, make_mesh
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


def shapes(devices: int) -> list[dict[str, int]]:
    """All meshes of so many devices."""
    sizes = [n for n in range(1, devices + 1) if devices % n == 0]
    every = itertools.product(sizes, repeat=len(AXES))
    return [dict(zip(AXES, shape, strict=True)) for shape in every if math.prod(shape) == devices]


EVERY = [sizes for devices in (2, 4, 8) for sizes in shapes(devices)]
QUICK = (
    "fsdp8",
    "context8",
    "ulysses8",
    "tensor8",
    "context4-ulysses2",
    "data2-context2-tensor2",
    "fsdp2-ulysses2-tensor2",
)


def named(sizes: dict[str, int]) -> str:
    return "-".join(f"{axis}{size}" for axis, size in sizes.items() if size > 1)


def random_model():
    """Parameters that are all random, so that nothing hides behind a zero initialisation."""
    graph, state = nnx.split(DiT(CONFIG, rngs=nnx.Rngs(0)))
    leaves, tree = jax.tree.flatten(state)
    rng = np.random.default_rng(1)
    return graph, jax.tree.unflatten(tree, [x + 0.2 * rng.normal(size=x.shape).astype(np.float32) for x in leaves])


GRAPH, STATE = random_model()


def batch():
    """Tokens, a time for each clip and for each token, positions and text; and segments of text and tokens."""
    rng = np.random.default_rng(2)
    packed = [np.sort(rng.integers(1, 4, (CLIPS, n)), axis=1).astype(np.int32) for n in (TEXT, TOKENS)]
    for ids, padding in zip(packed, (1, 7), strict=True):
        ids[:, -padding:] = 0
    normal, uniform = (lambda *shape: rng.normal(size=shape)), (lambda *shape: rng.uniform(size=shape))
    floats = normal(CLIPS, TOKENS, 12), uniform(CLIPS), uniform(CLIPS, TOKENS), normal(CLIPS, TOKENS, 3)
    return [jnp.asarray(x, jnp.float32) for x in (*floats, normal(CLIPS, TEXT, 16))], map(jnp.asarray, packed)


def losses(state):
    """One clip a row, and several packed into a row."""
    (x, t, t_each, positions, text), (text_segments, segments) = batch()
    model = nnx.merge(GRAPH, state)
    alone = model.tokens(x, t, positions, text, jnp.ones_like(text_segments))
    packed = model.tokens(x, t_each, positions, text, text_segments, segments) * (segments > 0)[..., None]
    return jnp.stack([jnp.mean(jnp.sin(alone)), jnp.mean(jnp.cos(3 * packed))])


def results(state):
    """Both losses, and the gradient of a sum of them."""
    found, back = jax.vjp(losses, state)
    return found, back(jnp.array([1.0, -0.7]))[0]


@pytest.fixture(scope="module")
def expected():
    return jax.jit(results)(STATE)


@pytest.mark.parametrize(
    "sizes", [pytest.param(s, id=named(s), marks=[] if named(s) in QUICK else pytest.mark.slow) for s in EVERY]
)
def test_losses_and_gradients_on_a_mesh_are_those_of_one_device(sizes, expected):
    mesh = make_mesh(MeshConfig(**sizes), jax.devices()[: math.prod(sizes.values())])
    with jax.set_mesh(mesh):
        found = jax.jit(results)(jax.device_put(STATE, shard_tree(STATE, mesh)))
    for here, there in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-5 * float(jnp.abs(there).max()))
