import ml_dtypes
import numpy as np
import pytest
from videodit_data.reading.packing import grid_positions, patchify, token_grid


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("patch", [(1, 2, 2), (3, 1, 1), (1, 4, 3)])
def test_tokens_are_patches_in_the_order_of_their_positions(patch: tuple[int, int, int], dtype: type):
    latent = np.arange(3 * 4 * 6 * 5).reshape(3, 4, 6, 5).astype(dtype)
    positions = grid_positions(token_grid((3, 4, 6), patch))
    assert len({*map(tuple, positions.tolist())}) == len(positions)
    assert positions.tolist() == sorted(positions.tolist())
    for token, position in zip(patchify(latent, patch), positions, strict=True):
        window = tuple(slice(p * step, (p + 1) * step) for p, step in zip(position, patch, strict=True))
        np.testing.assert_array_equal(token, latent[window].ravel())


def test_what_is_written_to_given_memory_is_what_is_returned():
    latent = np.random.default_rng(0).standard_normal((3, 6, 4, 8)).astype(np.float16)[..., ::2].swapaxes(1, 2)
    rows, positions = np.zeros((30, 16), np.float16), np.full((30, 3), -1, np.int32)
    patchify(latent, (1, 2, 2), rows[5:23])
    grid_positions((3, 2, 3), positions[5:23])
    np.testing.assert_array_equal(rows[5:23], patchify(latent, (1, 2, 2)))
    np.testing.assert_array_equal(positions[5:23], grid_positions((3, 2, 3)))
    assert not rows[:5].any() and not rows[23:].any() and (positions[:5] == -1).all() and (positions[23:] == -1).all()


def test_a_side_that_does_not_divide_is_named():
    with pytest.raises(ValueError, match=r"3 x 5 x 4 do not divide into patches of \(1, 2, 2\)"):
        patchify(np.zeros((3, 5, 4, 2), np.float16), (1, 2, 2))
