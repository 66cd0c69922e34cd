from pathlib import Path

import numpy as np
import pytest

from videodit.evals.pixel import psnr, psnr_per_frame, ssim, ssim_per_frame

GOLDENS = Path(__file__).parents[2].parent / "shared" / "metric_goldens"
needs_goldens = pytest.mark.skipif(not GOLDENS.is_dir(), reason=f"the reference scores are not at {GOLDENS}")


def clips(seed=0, shape=(2, 3, 16, 20, 3)):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def test_a_known_error_has_a_known_psnr():
    a = np.zeros((1, 2, 4, 4, 3), np.float32)
    np.testing.assert_allclose(psnr(a, a + np.float32(0.2), 2.0), 20.0, rtol=1e-6)
    np.testing.assert_allclose(psnr_per_frame(a, a + np.float32(0.2), 2.0), [[20.0, 20.0]], rtol=1e-6)


def test_equal_clips_are_perfect():
    a = clips()
    assert np.all(psnr(a, a, 2.0) == np.inf)
    np.testing.assert_allclose(ssim(a, a, 2.0), 1)


def test_scores_are_symmetric_and_a_clip_at_a_time():
    a, b = clips(0), clips(1)
    for score in (psnr, ssim):
        np.testing.assert_allclose(score(a, b, 2.0), score(b, a, 2.0))
        np.testing.assert_allclose(score(a, b, 2.0)[1:], score(a[1:], b[1:], 2.0))


def test_a_clip_is_the_sum_of_its_frames():
    a, b = clips(0), clips(1)
    error = 10 ** (-psnr_per_frame(a, b, 2.0) / 10)
    np.testing.assert_allclose(psnr(a, b, 2.0), -10 * np.log10(error.mean(1)))
    np.testing.assert_allclose(ssim(a, b, 2.0), ssim_per_frame(a, b, 2.0).mean(1))


def test_the_scale_of_the_data_does_not_matter():
    a, b = clips(0), clips(1)
    np.testing.assert_allclose(psnr(50 * a, 50 * b, 100.0), psnr(a, b, 2.0), rtol=1e-5)
    np.testing.assert_allclose(ssim(50 * a, 50 * b, 100.0), ssim(a, b, 2.0), rtol=1e-5)


def test_bytes_do_not_wrap_around():
    black, white = np.zeros((1, 1, 12, 12, 3), np.uint8), np.full((1, 1, 12, 12, 3), 255, np.uint8)
    assert psnr(black, white, 255.0) == 0
    np.testing.assert_allclose(ssim(black, white, 255.0), 1e-4 / (1 + 1e-4))


def test_more_noise_scores_lower():
    a, noise = clips(0), clips(1)
    scores = [(psnr(a, a + s * noise, 2.0).mean(), ssim(a, a + s * noise, 2.0).mean()) for s in (0.01, 0.1, 1.0)]
    assert scores == sorted(scores, reverse=True)
    assert np.all(np.diff(scores, axis=0) < 0)


def test_frames_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="8 x 20"):
        ssim(clips(shape=(1, 1, 8, 20, 3)), clips(shape=(1, 1, 8, 20, 3)), 2.0)


@needs_goldens
def test_reference_scores():
    with np.load(GOLDENS / "clips.npz") as pixels, np.load(GOLDENS / "values.npz") as expected:
        real, fake = pixels["real"][:6], pixels["fake"][:6]
        np.testing.assert_allclose(psnr_per_frame(real, fake, 255.0), expected["psnr"][:6], rtol=1e-9)
        np.testing.assert_allclose(ssim_per_frame(real, fake, 255.0), expected["ssim_rgb"][:6], rtol=1e-9)
