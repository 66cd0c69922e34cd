"""PSNR and SSIM between clips, in numpy and float64."""

import numpy as np
from jaxtyping import Float, Shaped

Clips = Shaped[np.ndarray, "B T Y X C"]

_TAPS, _STD, _K1, _K2 = 11, 1.5, 0.01, 0.03  # of Wang et al. 2004


def psnr(a: Clips, b: Clips, data_range: float) -> Float[np.ndarray, "B"]:
    """Return the PSNR of every clip in dB, from its mean squared error over all frames; inf for equal clips.

    Args:
        data_range: the largest possible value minus the smallest: 255 for uint8, 2 for [-1, 1].
    """
    return _decibel(_squared_error(a, b).mean((1, 2, 3, 4)), data_range)


def psnr_per_frame(a: Clips, b: Clips, data_range: float) -> Float[np.ndarray, "B T"]:
    """Return the PSNR of every frame in dB; arguments as for `psnr`."""
    return _decibel(_squared_error(a, b).mean((2, 3, 4)), data_range)


def ssim(a: Clips, b: Clips, data_range: float) -> Float[np.ndarray, "B"]:
    """Return the SSIM of every clip, at most 1: the mean over its frames; see `ssim_per_frame`."""
    return ssim_per_frame(a, b, data_range).mean(1)


def ssim_per_frame(a: Clips, b: Clips, data_range: float) -> Float[np.ndarray, "B T"]:
    """Return the SSIM of every frame, a mean over windows inside the frame and over channels.

    Gaussian window of 11 x 11 with standard deviation 1.5 (Wang et al. 2004, "Image Quality Assessment: From Error
    Visibility to Structural Similarity").

    Raises:
        ValueError: for frames smaller than the window.
    """
    if min(a.shape[2:4]) < _TAPS:
        raise ValueError(f"frames of {a.shape[2]} x {a.shape[3]} are too small for SSIM: it needs {_TAPS} x {_TAPS}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    mean_a, mean_b = _blur(a), _blur(b)
    variances = _blur(a * a) - mean_a**2 + _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return (luminance * structure).mean((2, 3, 4))


def _squared_error(a: Clips, b: Clips) -> Float[np.ndarray, "B T Y X C"]:
    return (a.astype(np.float64) - b.astype(np.float64)) ** 2


def _decibel(squared_error: Float[np.ndarray, "..."], data_range: float) -> Float[np.ndarray, "..."]:
    with np.errstate(divide="ignore"):
        return 10 * np.log10(data_range**2 / squared_error)


def _blur(x: Float[np.ndarray, "B T Y X C"]) -> Float[np.ndarray, "B T y x C"]:
    weights = np.exp(-0.5 * ((np.arange(_TAPS) - _TAPS // 2) / _STD) ** 2)
    weights /= weights.sum()
    height, width = x.shape[2] - _TAPS + 1, x.shape[3] - _TAPS + 1
    x = sum(weight * x[:, :, tap : tap + height] for tap, weight in enumerate(weights))
    return sum(weight * x[:, :, :, tap : tap + width] for tap, weight in enumerate(weights))
