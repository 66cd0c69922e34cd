"""The autoencoder: shapes, causality, chunks, shortcuts, gradients, latent statistics."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from videodit.models.vae import VAE, VAEConfig, fold_shortcut, kl_divergence, unfold_shortcut
from videodit.parallel.mesh import MeshConfig, make_mesh

PLAIN = VAEConfig(channels=(4, 8, 8), strides=((1, 2), (2, 2)), latent_channels=4, blocks=1, time_kernel=(3, 3, 3))
FAST = VAEConfig(
    channels=(8, 8, 8),
    strides=((2, 2), (2, 1)),
    latent_channels=4,
    blocks=1,
    patch=2,
    time_kernel=(1, 3, 1),
    mid_attention=False,
    shortcuts="strides",
)
CONFIGS = pytest.mark.parametrize("cfg", [PLAIN, FAST], ids=["plain", "fast"])


def random_vae(cfg: VAEConfig) -> VAE:
    """Return an autoencoder whose weights are all random, since zero-initialised ones would hide mistakes."""
    graphdef, params, rest = nnx.split(nnx.eval_shape(lambda: VAE(cfg, rngs=nnx.Rngs(0))), nnx.Param, ...)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [0.1 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    rest = jax.tree.map(lambda r: jnp.ones(r.shape, r.dtype), rest)
    return nnx.merge(graphdef, jax.tree.unflatten(tree, leaves), rest)


def clip(frames: int, key: int = 0) -> jax.Array:
    return jax.random.uniform(jax.random.key(key), (2, frames, 16, 16, 3), minval=-1.0)


@CONFIGS
@pytest.mark.parametrize("frames", [*(pytest.param(n, marks=pytest.mark.slow) for n in (1, 5)), 9])
def test_shapes_are_those_promised(cfg, frames):
    cfg = dataclasses.replace(cfg, strides=((2, 2), (2, 2)))
    vae = random_vae(cfg)
    mean, logvar = jax.jit(vae.encode)(clip(frames))
    assert mean.shape == logvar.shape == (2, *cfg.latent_shape(frames, 16, 16))
    assert mean.shape[1] == 1 + (frames - 1) // 4
    assert jax.jit(vae.decode)(mean).shape == (2, frames, 16, 16, 3)


@pytest.mark.parametrize(
    ("height", "width", "sizes"),
    [
        pytest.param(16, 16, {"data": 2, "context": 4}, marks=pytest.mark.slow),
        pytest.param(16, 16, {"data": 1, "context": 8}, marks=pytest.mark.slow),
        pytest.param(32, 16, {"data": 2, "context": 4}, marks=pytest.mark.slow),
        (16, 24, {"data": 2, "context": 4}),
    ],
)
def test_divided_over_clips_and_frames_it_is_the_same(height, width, sizes):
    """Encoding, decoding and the gradient, also where the coarsest level divides along no dim, or along another one."""
    vae, video = random_vae(PLAIN), jax.random.uniform(jax.random.key(2), (2, 5, height, width, 3), minval=-1.0)
    graph, state = nnx.split(vae)

    def results(state, video):
        def loss(state):
            vae = nnx.merge(graph, state)
            mean, logvar = vae.encode(video)
            decoded = vae.decode(mean)
            return jnp.sum(jnp.sin(decoded)) + jnp.sum(jnp.cos(logvar)), (mean, logvar, decoded)

        return jax.grad(loss, has_aux=True, allow_int=True)(state)

    expected = jax.jit(results)(state, video)
    mesh = make_mesh(MeshConfig(**sizes))
    with jax.set_mesh(mesh):
        compiled = jax.jit(results).lower(state, video).compile()
        found = compiled(state, video)
    assert "collective-permute" in compiled.as_text()  # borders are exchanged with the neighbors
    for here, there in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-5 * float(jnp.abs(there).max()))


@CONFIGS
def test_encoding_in_chunks_equals_the_whole(cfg):
    vae, video = random_vae(cfg), clip(9)
    whole = jax.jit(vae.encode)(video)
    for chunk in (cfg.time_stride, 2 * cfg.time_stride):
        for part, full in zip(jax.jit(functools.partial(vae.encode, chunk=chunk))(video), whole, strict=True):
            np.testing.assert_allclose(part, full, atol=2e-5, rtol=1e-4)


@CONFIGS
def test_decoding_in_chunks_equals_the_whole(cfg):
    vae = random_vae(cfg)
    z = jax.random.normal(jax.random.key(2), (1, *cfg.latent_shape(9, 16, 16)))
    whole = jax.jit(vae.decode)(z)
    for chunk in (1, 2):
        np.testing.assert_allclose(jax.jit(functools.partial(vae.decode, chunk=chunk))(z), whole, atol=2e-5, rtol=1e-4)


@CONFIGS
def test_the_first_frame_is_encoded_alone(cfg):
    vae, video = random_vae(cfg), clip(9)
    changed = video.at[:, 1:].set(clip(9, key=5)[:, 1:])
    encode = jax.jit(vae.encode)
    before, after = encode(video)[0], encode(changed)[0]
    np.testing.assert_allclose(before[:, 0], after[:, 0], atol=1e-6)
    np.testing.assert_allclose(before[:, :1], encode(video[:, :1])[0], atol=1e-5)
    assert jnp.abs(before[:, 1] - after[:, 1]).max() > 1e-3


@CONFIGS
def test_decoding_is_causal(cfg):
    vae = random_vae(cfg)
    z = jax.random.normal(jax.random.key(2), (1, *cfg.latent_shape(9, 16, 16)))
    decode = jax.jit(vae.decode)
    before, after = decode(z), decode(z.at[:, -1].add(1.0))
    unchanged = 9 - cfg.time_stride
    np.testing.assert_allclose(before[:, :unchanged], after[:, :unchanged], atol=1e-6)
    assert jnp.abs(before[:, unchanged:] - after[:, unchanged:]).max() > 1e-3


def test_shortcuts_undo_each_other():
    """Averaging repeated values gives them back, for all but the first frame, which is paired with zeros."""
    x = jax.random.normal(jax.random.key(0), (1, 3, 4, 4, 8))
    wide = unfold_shortcut(x, 4, (2, 2), starts_clip=True)
    assert wide.shape == (1, 5, 8, 8, 4)
    np.testing.assert_allclose(fold_shortcut(wide, 8, (2, 2), starts_clip=True)[:, 1:], x[:, 1:], atol=1e-6)


def test_learns_to_reconstruct():
    vae, video = VAE(FAST, rngs=nnx.Rngs(0)), clip(5)
    graphdef, params, rest = nnx.split(vae, nnx.Param, ...)

    @jax.jit
    def step(params):
        def loss(params):
            vae = nnx.merge(graphdef, params, rest)
            return jnp.mean(jnp.square(vae.decode(vae.encode(video)[0]) - video))

        value, grads = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), value

    losses = []
    for _ in range(20):
        params, value = step(params)
        losses.append(float(value))
    assert losses[-1] < 0.8 * losses[0]


def test_statistics_normalize():
    vae = VAE(PLAIN, rngs=nnx.Rngs(0))
    z = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (4, 2, 4, 4, 4))
    vae.latent_mean.set_value(z.mean((0, 1, 2, 3)))
    vae.latent_std.set_value(z.std((0, 1, 2, 3)))
    normal = vae.normalize(z)
    np.testing.assert_allclose(normal.mean((0, 1, 2, 3)), 0.0, atol=1e-5)
    np.testing.assert_allclose(normal.std((0, 1, 2, 3)), 1.0, atol=1e-5)
    np.testing.assert_allclose(vae.denormalize(normal), z, atol=1e-5)


def test_divergence_of_the_prior_is_zero():
    mean, logvar = jnp.full((2, 4000), 1.5), jnp.full((2, 4000), jnp.log(0.25))
    np.testing.assert_allclose(kl_divergence(jnp.zeros_like(mean), jnp.zeros_like(mean)), 0.0)
    np.testing.assert_allclose(kl_divergence(mean, logvar), 0.5 * (1.5**2 + 0.25 - 1 - np.log(0.25)), rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "words"), [((8, 16, 16), "take 1 \\+ 2k frames"), ((9, 15, 16), "take multiples of 4")]
)
def test_sizes_that_cannot_be_encoded_are_refused(size, words):
    with pytest.raises(ValueError, match=words):
        PLAIN.latent_shape(*size)


def test_configurations_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one stride between levels"):
        VAEConfig(channels=(8, 8), strides=((1, 2), (2, 2)), time_kernel=(3, 3))
    with pytest.raises(ValueError, match=r"^strides is \(\(3, 2\),\): each of its numbers must be from 1 to 2$"):
        VAEConfig(channels=(8, 8), strides=((3, 2),), time_kernel=(3, 3))
    with pytest.raises(ValueError, match="positive multiple"):
        VAE(PLAIN, rngs=nnx.Rngs(0)).encode(clip(5), chunk=1)
