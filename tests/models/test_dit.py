import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tests.train.toy import init_model
from videodit.models.conditioning import Conditioning
from videodit.models.dit import DiT, DiTConfig
from videodit.nn.embed import grid_positions, patchify

TINY = DiTConfig(
    depth=2, width=24, num_heads=2, mlp_width=32, in_channels=3, text_width=5, time_freq_dim=8, pooled_text=True
)


def fresh_model(cfg):
    return init_model(lambda: DiT(cfg, rngs=nnx.Rngs(0)))


def random_model(cfg):
    """Draw all parameters of a model at random, since zero-initialised ones would hide mistakes."""
    graph, state = fresh_model(cfg)
    leaves, tree = jax.tree.flatten(state)
    rng = np.random.default_rng(1)
    noisy = [leaf + 0.2 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return graph, jax.tree.unflatten(tree, noisy)


def clip(shape, text=4, seed=0, channels=3):
    """Draw latents, time, text and its mask for clips of shape (B, T, Y, X)."""
    keys = jax.random.split(jax.random.key(seed), 3)
    x = jax.random.normal(keys[0], (*shape, channels))
    t = jax.random.uniform(keys[1], shape[:1])
    return x, t, Conditioning(jax.random.normal(keys[2], (shape[0], text, 5)), jnp.ones((shape[0], text), bool))


def test_every_block_is_the_identity_at_first_and_the_velocity_is_zero():
    model = nnx.merge(*fresh_model(TINY))
    inputs = clip((1, 1, 4, 4))
    assert not np.any(jax.jit(model.__call__)(*inputs))
    x = jax.random.normal(jax.random.key(1), (1, 4, 24))
    _, modulation = model.time_embedding(inputs[1][:, None], None)
    ones = jnp.ones((1, 4), jnp.int32)
    rope = (jnp.ones((1, 4, 6)), jnp.zeros((1, 4, 6)))
    text = model.text_embedding(inputs[2].text)
    np.testing.assert_array_equal(jax.jit(model.stack.__call__)(x, modulation, text, rope, None, ones), x)


@jax.jit
def tokens(state, *args):
    return nnx.merge(random_tiny()[0], state).tokens(*args)


@jax.jit
def tokens_grad(state, ct, *args):
    return jax.grad(lambda state: jnp.sum(ct * nnx.merge(random_tiny()[0], state).tokens(*args)))(state)


@functools.cache
def random_tiny():
    return random_model(TINY)


def clip_tokens(x, t, conditioning, time_step=1.0):
    """Return the arguments of `tokens` for one clip in a sequence of its own."""
    grid = x.shape[1], x.shape[2] // 2, x.shape[3] // 2
    positions = grid_positions(grid, jnp.full(x.shape[:1], time_step))
    length = positions.shape[1]
    return (
        patchify(x, (1, 2, 2)),
        jnp.broadcast_to(t[:, None], (x.shape[0], length)),
        positions,
        conditioning.text,
        conditioning.text_mask.astype(jnp.int32),
        jnp.ones((x.shape[0], length), jnp.int32),
    )


def pack_two_clips(first, second, padding=2):
    """Return the arguments of `tokens` for two packed clips, with padding behind tokens and text."""
    joined = [jnp.concatenate([a, b], axis=1) for a, b in zip(first[:4], second[:4], strict=True)]
    joined += [jnp.concatenate([a, 2 * b], axis=1) for a, b in zip(first[4:], second[4:], strict=True)]
    return [
        jnp.pad(a, ((0, 0), (0, padding)) + ((0, 0),) * (a.ndim - 2), constant_values=a.ravel()[0] * (i < 4))
        for i, a in enumerate(joined)
    ]


def test_two_packed_clips_are_two_clips_alone():
    first, second = (
        clip_tokens(*clip((1, 3, 4, 4), seed=1)),
        clip_tokens(*clip((1, 1, 2, 6), text=3, seed=2), time_step=2.0),
    )
    packed = pack_two_clips(first, second)
    v_first, v_second = (tokens(random_tiny()[1], *args) for args in (first, second))
    n, m = v_first.shape[1], v_second.shape[1]
    v = tokens(random_tiny()[1], *packed)
    np.testing.assert_allclose(v[:, :n], v_first, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(v[:, n : n + m], v_second, rtol=1e-5, atol=1e-5)

    ct = jax.random.normal(jax.random.key(3), v.shape).at[:, n + m :].set(0)
    g = tokens_grad(random_tiny()[1], ct, *packed)
    *inputs, text_segments, segments = packed

    def gradient_alone(number):
        """Return the gradient of one clip, with the other's tokens and text as padding."""
        text, mine = (jnp.where(ids == number, number, 0) for ids in (text_segments, segments))
        return tokens_grad(random_tiny()[1], ct * (mine > 0)[..., None], *inputs, text, mine)

    g_first, g_second = gradient_alone(1), gradient_alone(2)
    for both, a, b in zip(*map(jax.tree.leaves, (g, g_first, g_second)), strict=True):
        scale = float(jnp.abs(a + b).max())
        np.testing.assert_allclose(both, a + b, rtol=1e-5, atol=1e-5 * scale)


def test_on_a_tpu_every_device_runs_the_kernels_on_its_part_of_the_batch(tpu_compiler):
    """Packed sequences and text, forward and backward, compiled for a target topology of four chips."""
    program = """
import jax, jax.numpy as jnp
from flax import nnx
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec
from videodit.models.dit import DiT, DiTConfig
from videodit.parallel.mesh import MeshConfig, make_mesh
from videodit.parallel.rules import sharding_for

cfg = DiTConfig(depth=1, width=128, num_heads=2, mlp_width=128, in_channels=3, text_width=5, dtype="bfloat16")
graph, state = nnx.split(nnx.eval_shape(lambda: DiT(cfg, rngs=nnx.Rngs(0))))
devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
mesh = make_mesh(MeshConfig(data=2, fsdp=2), devices)

def loss(state, *tokens):
    return nnx.merge(graph, state).tokens(*tokens).sum()

def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding_for(("batch", *[None] * (len(shape) - 1)), shape, mesh))

whole = NamedSharding(mesh, PartitionSpec())
state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), state)
tokens = array(8, 300, cfg.patch_features), array(8), array(8, 300, 3), array(8, 20, 5)
segments = array(8, 20, dtype=jnp.int32), array(8, 300, dtype=jnp.int32)
with jax.set_mesh(mesh):
    text = jax.jit(jax.grad(loss)).lower(state, *tokens, *segments).compile().as_text()
names = "attention_fwd", "attention_bwd", "qknorm_fwd", "qknorm_bwd"
for name, shape in (*((name, "[2,2,") for name in names), ("adaln_fwd", "[2,300,128]")):
    calls = [line for line in text.splitlines() if "custom-call(" in line and f"videodit_{name}" in line.split("=")[0]]
    # Two of the eight sequences, two heads.
    print(name, len(calls), all(shape in line for line in calls))
"""
    done = subprocess.run([sys.executable, "-c", program], env=tpu_compiler, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    names = "attention_fwd", "attention_bwd", "qknorm_fwd", "qknorm_bwd", "adaln_fwd"
    # Attention for the tokens themselves and for the text, forward for bounded and for any logits; queries and keys;
    # the norms before attention, the MLP and the head.
    counts = 4, 2, 2, 2, 3
    assert done.stdout.splitlines() == [f"{name} {n} True" for name, n in zip(names, counts, strict=True)]
