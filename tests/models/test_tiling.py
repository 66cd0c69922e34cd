"""Frames decoded in tiles against frames decoded whole."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.models.test_vae import FAST, PLAIN, random_vae
from videodit.models.tiling import _ramp, _starts, decode_tiled

LOCAL = dataclasses.replace(PLAIN, mid_attention=False)  # attention sees the whole frame, which tiles do not


def latent(cfg, size):
    return jax.random.normal(jax.random.key(0), (1, 2, size, size + 4, cfg.latent_channels))


@pytest.mark.parametrize(
    ("cfg", "chunk"),
    [
        pytest.param(LOCAL, None, id="plain"),
        pytest.param(LOCAL, 1, id="plain chunks", marks=pytest.mark.slow),
        pytest.param(FAST, None, id="fast", marks=pytest.mark.slow),
        pytest.param(FAST, 1, id="fast chunks"),
    ],
)
def test_tiles_differ_from_the_whole_by_missing_context(cfg, chunk):
    vae, z = random_vae(cfg), latent(cfg, 12)
    whole = nnx.jit(lambda vae, z: vae.decode(z))(vae, z)
    errors = []
    for tile, overlap in ((8, 2), (10, 8)):
        tiled = nnx.jit(lambda vae, z: decode_tiled(vae, z, tile=tile, overlap=overlap, chunk=chunk))(vae, z)  # noqa: B023
        assert tiled.shape == whole.shape
        errors.append(float(jnp.linalg.norm(tiled - whole) / jnp.linalg.norm(whole)))
    assert errors[1] < errors[0] < 0.1  # with more overlap, tiles lack less context


def test_frames_no_larger_than_a_tile_are_whole():
    vae, z = random_vae(PLAIN), latent(PLAIN, 4)
    tiled = nnx.jit(lambda vae, z: decode_tiled(vae, z, tile=8, overlap=2))(vae, z)
    np.testing.assert_array_equal(tiled, nnx.jit(lambda vae, z: vae.decode(z))(vae, z))


@pytest.mark.parametrize(("size", "tile", "overlap"), [(90, 32, 8), (160, 32, 8), (33, 32, 8), (64, 32, 31)])
def test_tiles_cover_every_latent_and_overlap_enough(size, tile, overlap):
    starts = _starts(size, tile, overlap)
    assert starts[0] == 0 and starts[-1] == size - tile
    assert all(0 < b - a <= tile - overlap for a, b in itertools.pairwise(starts))
    assert _ramp(tile, overlap).min() > 0 and _ramp(tile, overlap).max() <= 1


@pytest.mark.parametrize("overlap", [0, 8])
def test_tiles_that_do_not_overlap_or_move_are_refused(overlap):
    with pytest.raises(ValueError, match=f"tiles of 8 latents overlap by {overlap}"):
        decode_tiled(random_vae(PLAIN), latent(PLAIN, 12), tile=8, overlap=overlap)
