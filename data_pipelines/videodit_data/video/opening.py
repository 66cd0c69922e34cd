"""Opening of video files through PyAV, and the timeline of their frames."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import av
import av.logging
import numpy as np
from jaxtyping import Float64, Int64

av.logging.set_level(None)  # codecs report through exceptions, not on the terminal

Source = bytes | str | os.PathLike[str]


# Formats whose files contain their own frames: FFmpeg would open the files or addresses of a disguised playlist.
_OPENING = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,flv,mpeg,mpegts,ogg,asf,mxf,nut,ivf,apng,image2,"
    "h264,hevc,mjpeg,yuv4mpegpipe,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe",
    "pattern_type": "none",  # a picture's name is not a pattern
}


class VideoError(ValueError):
    """A video that cannot be read or written; the message names the file and what was wrong."""


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a video: rate, number of frames, displayed size in pixels, length in seconds, codec, container."""

    fps: float
    frames: int
    height: int
    width: int
    seconds: float
    codec: str
    container: str
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Timeline:
    """Presentation times of frames: ticks of the stream (ascending), seconds after the first, keyframes' ticks."""

    ticks: Int64[np.ndarray, " N"]
    seconds: Float64[np.ndarray, " N"]
    keyframes: Int64[np.ndarray, " K"]
    by_count: bool  # no presentation times: ticks are frame numbers in decoding order


@dataclass(frozen=True)
class Opened:
    label: str
    container: av.container.InputContainer
    stream: av.VideoStream


@contextmanager
def opened(source: Source, name: str, strict: bool = False) -> Iterator[Opened]:
    is_bytes = isinstance(source, bytes)
    label = name or (f"a video of {len(source)} bytes" if is_bytes else os.fspath(source))
    try:
        file = io.BytesIO(source) if is_bytes else os.fspath(source)
        with av.open(file, options=_OPENING) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise VideoError(f"{label}: no video stream.")
            stream.codec_context.thread_count = 1
            if strict:
                stream.codec_context.options = {"err_detect": "explode"}
            yield Opened(label, container, stream)
    except av.FFmpegError as error:
        raise VideoError(f"{label}: not readable as a video ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise VideoError(f"{label}: its metadata is not UTF-8.") from error


def timeline_of(clip: Opened) -> Timeline:
    packets = [packet for packet in clip.container.demux(clip.stream) if packet.size and not packet.is_discard]
    if not packets:
        raise VideoError(f"{clip.label}: the video stream holds no frames.")
    by_count = clip.container.format.name == "avi" or any(packet.pts is None for packet in packets)
    if by_count:
        ticks = np.arange(len(packets), dtype=np.int64)
        return Timeline(ticks, ticks / declared_rates(clip)[0], ticks[:1], by_count)
    ticks = np.sort(np.array([packet.pts for packet in packets], dtype=np.int64))
    keyframes = np.sort(np.array([packet.pts for packet in packets if packet.is_keyframe], dtype=np.int64))
    return Timeline(ticks, (ticks - ticks[0]) * float(clip.stream.time_base), keyframes, by_count)


def declared_rates(clip: Opened) -> list[float]:
    rates = [float(rate) for rate in (clip.stream.average_rate, clip.stream.guessed_rate) if rate]
    if not rates:
        raise VideoError(f"{clip.label}: no frame rate.")
    return rates


def rate_of(clip: Opened, seconds: Float64[np.ndarray, " N"]) -> float:
    """Return the header's rate if it gives the last frame's time to a quarter of a frame, else the average rate."""
    declared = declared_rates(clip)
    if len(seconds) < 2 or seconds[-1] <= 0:
        return declared[0]
    intervals, span = len(seconds) - 1, float(seconds[-1])
    return next((rate for rate in declared if abs(intervals - span * rate) < 0.25), intervals / span)


def info_of(clip: Opened, frames: int, fps: float, shape: tuple[int, int]) -> VideoInfo:
    return VideoInfo(
        fps=fps,
        frames=frames,
        height=shape[0],
        width=shape[1],
        seconds=frames / fps,
        codec=clip.stream.codec_context.name,
        container=clip.container.format.name,
        metadata=dict(clip.container.metadata),
    )
