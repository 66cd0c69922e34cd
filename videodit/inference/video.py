"""A generated video: its frames, where it comes from, and how it is saved and shown."""

import base64
import tempfile
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from videodit.inference.clip_files import write_clip
from videodit.provenance import JSON


@dataclass(frozen=True, eq=False)
class Video:
    """A generated video.

    Attributes:
        array: frames as bytes.
        fps: frames per second.
        provenance: model, checkpoint, prompt, seed, sampler and versions that it was made with, plain JSON.
    """

    array: UInt8[np.ndarray, "T Y X 3"]
    fps: int | float
    provenance: Mapping[str, JSON] = field(repr=False)

    def save(self, path: str | Path) -> Path:
        """Write the video as mp4, gif or png (a contact sheet), by the suffix, with its provenance; return the path."""
        path = Path(path)
        write_clip(path, self.array, self.fps, self.provenance)
        return path

    def show(self) -> None:
        """Show the video: inline in a notebook, elsewhere in the system's viewer."""
        if _in_notebook():
            from IPython.display import HTML, display

            display(HTML(self._repr_html_()))
        else:
            webbrowser.open(self.save(Path(tempfile.mkdtemp(prefix="videodit-")) / "video.mp4").as_uri())

    def _repr_html_(self) -> str:
        """Return the video as an HTML element that holds it, which notebooks show for the value of a cell."""
        with tempfile.TemporaryDirectory(prefix="videodit-") as folder:
            content = self.save(Path(folder) / "video.mp4").read_bytes()
        source = f"data:video/mp4;base64,{base64.b64encode(content).decode('ascii')}"
        return f'<video controls loop autoplay muted src="{source}"></video>'


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None
