"""Encoding of pictures to H.264."""

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from jaxtyping import UInt8

from videodit_data.video.convert import SCALING
from videodit_data.video.opening import VideoError

_FINE = Fraction(1, 90_000)  # seconds: the unit of times that follow no constant rate


def encode(
    path: str | os.PathLike[str] | None,
    frames: UInt8[np.ndarray, "T Y X 3"],
    fps: float | int,
    *,
    metadata: dict[str, str] | None = None,
    crf: int = 18,
) -> bytes:
    """Encode H.264 (yuv420p, BT.709) in an mp4 that starts to play at once; written atomically to `path`, if given.

    The same frames give the same bytes. `metadata` keeps its own keys. VideoError for odd sizes or a bad rate.
    """
    count, height, width, _ = frames.shape
    if not count or height % 2 or width % 2 or not height or not width:
        raise VideoError(f"H.264 needs at least one frame of even height and width, not {count} of {height} x {width}.")
    if not fps > 0:
        raise VideoError(f"A video's frame rate is positive, not {fps}.")
    return write_mp4(path, frames, (height, width), fps, options={"crf": str(crf)}, metadata=metadata)


def write_mp4(
    path: str | os.PathLike[str] | None,
    pictures: Iterable[UInt8[np.ndarray, "Y X 3"]],
    size: tuple[int, int],
    fps: float | int,
    *,
    options: Mapping[str, str],
    metadata: Mapping[str, str] | None = None,
    seconds: Sequence[float] | None = None,
) -> bytes:
    """Encode an iterator of pictures of an even `size` = (height, width), as `encode`, with x264's `options`.

    seconds: when each picture is shown, where that is not at the constant rate `fps`.
    """
    folder = None if path is None else Path(path).parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".encode-") as scratch:
        # A real file: moving the index to the front re-reads what was written. An absolute path is never an address.
        file = Path(scratch).absolute() / "clip.mp4"
        rate = Fraction(fps).limit_denominator(1001)
        try:
            _write(file, pictures, size, rate, dict(options), dict(metadata or {}), seconds)
        except av.FFmpegError:  # its errors of the system may be those of the source, too
            _check_disk(file.with_name("check"), path or file)
            raise
        data = file.read_bytes()
        if path is not None:
            file.replace(path)
    return data


def _check_disk(file: Path, path: str | os.PathLike[str]) -> None:
    """Check that there is room for more than an encoder's buffer. OSError, which names `path`, when there is none."""
    try:
        file.write_bytes(bytes(2**20))
    except OSError as error:
        error.filename = os.fspath(path)
        raise


def _write(
    file: Path,
    pictures: Iterable[UInt8[np.ndarray, "Y X 3"]],
    size: tuple[int, int],
    rate: Fraction,
    encoder_options: dict[str, str],
    metadata: dict[str, str],
    seconds: Sequence[float] | None,
) -> None:
    options = {"movflags": "faststart+use_metadata_tags", "fflags": "+bitexact", "protocol_whitelist": "file"}
    with av.open(str(file), "w", format="mp4", options=options) as container:
        container.metadata.update(metadata)
        # x264's macroblock tree reads uninitialised memory for small frames: the bytes would differ at every call.
        encoder_options = {"threads": "1", "x264-params": "mbtree=0"} | encoder_options
        stream = container.add_stream("libx264", rate=rate, options=encoder_options)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        codec, reformatter = stream.codec_context, VideoReformatter()
        codec.thread_count = 1
        codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        if seconds is not None:
            codec.time_base = _FINE
        for number, picture in enumerate(pictures):
            frame = reformatter.reformat(
                av.VideoFrame.from_ndarray(picture, format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=SCALING,
                threads=1,
            )
            if seconds is not None:
                frame.pts, frame.time_base = round((seconds[number] - seconds[0]) / _FINE), _FINE
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
