"""A clip's motion score: the mean absolute difference of neighboring frames."""

import numpy as np
from jaxtyping import Float32

from videodit_data.reading.conditions import SampledClip, register_condition


def score_motion(clip: SampledClip) -> Float32[np.ndarray, ""]:
    """Return the mean absolute difference of neighboring frames, of pixels in [0, 1] or of latents; 0 for an image."""
    frames = clip.latent_mean if clip.video is None else clip.video.astype(np.float32) / 255
    if len(frames) < 2:
        return np.zeros((), np.float32)
    return np.abs(np.diff(frames.astype(np.float32), axis=0)).mean(dtype=np.float32)


register_condition("motion_score", score_motion)
