"""videodit: train video diffusion transformers in JAX, and sample from them.

import videodit

model = videodit.load("runs/quickstart/dit")
video = model.generate("a red circle moves left", seed=0)
video.save("red.mp4")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videodit.inference.api import Model, TextToVideoModel, load
    from videodit.inference.video import Video
    from videodit.train.run import run_training

__all__ = ["Model", "TextToVideoModel", "Video", "load", "run_training"]


def __getattr__(name: str) -> Any:
    """Import a name on first access, so that the command line starts without JAX."""
    from importlib import import_module

    modules = {"Video": "videodit.inference.video", "run_training": "videodit.train.run"}
    if name not in __all__:
        raise AttributeError(f"module 'videodit' has no attribute {name!r}")
    return getattr(import_module(modules.get(name, "videodit.inference.api")), name)
