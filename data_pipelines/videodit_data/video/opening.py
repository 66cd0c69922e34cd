"""Opening of video files through PyAV, and the timeline of their frames."""

import io
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from io import BufferedIOBase

import av
import av.logging
import numpy as np
from jaxtyping import Float64, Int64

from videodit_data.boundary.input_files import NotRegular, open_regular
from videodit_data.video.convert import orientation_of

av.logging.set_level(None)  # codecs report through exceptions, not on the terminal

Source = bytes | str | os.PathLike[str]
MOST_PIXELS = 2**26  # of a frame
MOST_PIXEL_ASPECT = 4  # real ones are below 2.2
MOST_FRAMES = 2**22  # of a video: 39 hours at 30 a second

# Formats whose files contain their own frames: FFmpeg would open the files or addresses of a disguised playlist.
_OPENING = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,flv,mpeg,mpegts,ogg,asf,mxf,nut,ivf,apng,image2,"
    "h264,hevc,mjpeg,yuv4mpegpipe,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe",
    "protocol_whitelist": "none",  # FFmpeg opens nothing: it reads from a file that is open
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
    file: BufferedIOBase
    most_pixels: int


@contextmanager
def opened(source: Source, name: str, strict: bool = False, most_pixels: int = MOST_PIXELS) -> Iterator[Opened]:
    """Open a video. VideoError when it cannot be read, or when a decoded frame has more than `most_pixels`.

    FFmpeg gets an open file without its name: a name may look like an address, which it would open.
    """
    label = name or (f"a video of {len(source)} bytes" if isinstance(source, bytes) else os.fspath(source))
    # Of what is decoded, whatever a header says. FFmpeg counts padding: `check_frame` is exact.
    limit = {"max_pixels": str(2 * most_pixels + 2**16)}
    stream = None
    try:
        with _open_source(source, label) as file, av.open(file, options=_OPENING | limit) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise VideoError(f"{label}: no video stream.")
            codec = stream.codec_context
            _check_size(
                label, *((codec.width, codec.height) if codec.width else _header_size(source, label)), most_pixels
            )
            codec.thread_count = 1
            codec.options = limit | ({"err_detect": "explode"} if strict else {})
            yield Opened(label, container, stream, file, most_pixels)
    except av.FFmpegError as error:
        if isinstance(error, av.ArgumentError) and stream:  # the decoder's answer to a frame that passes the limit
            raise VideoError(f"{label}: frames of more than {most_pixels} pixels, or of no valid size.") from error
        raise VideoError(f"{label}: not readable as a video ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise VideoError(f"{label}: its metadata is not UTF-8.") from error


def _open_source(source: Source, label: str) -> BufferedIOBase:
    try:
        return io.BytesIO(source) if isinstance(source, bytes) else open_regular(source)
    except (OSError, NotRegular) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise VideoError(f"{label}: not readable as a video ({reason}).") from error


def check_frame(clip: Opened, frame: av.VideoFrame) -> None:
    """Raise VideoError for a frame that is too large, or that no right angle turns upright."""
    _check_size(clip.label, frame.width, frame.height, clip.most_pixels)
    try:
        orientation_of(frame)
    except ValueError as error:
        raise VideoError(f"{clip.label}: {error}.") from None


def _check_size(label: str, width: int, height: int, most: int) -> None:
    if width * height > most:
        raise VideoError(f"{label}: frames of {width} x {height} are more than {most} pixels.")


def _header_size(source: Source, label: str) -> tuple[int, int]:
    """Return the width and height in the headers of a video whose first frame passes the limit, decoding none."""
    with _open_source(source, label) as file, av.open(file, options=_OPENING | {"skip_frame": "all"}) as container:
        codec = container.streams.best("video").codec_context
        return codec.width, codec.height


def packets_of(clip: Opened, *more: av.AudioStream) -> Iterator[av.Packet]:
    """Yield the packets of the video stream, and of `more`, from the container's current position.

    PyAV's own iterators lose memory, some 280 bytes, when they are left before their end and not closed.
    """
    with closing(clip.container.demux(clip.stream, *more)) as packets:
        yield from packets


def timeline_of(clip: Opened, most_frames: int = MOST_FRAMES) -> Timeline:
    """Return the times of a video's frames. VideoError when there are none, or more than `most_frames`."""
    ticks, slots, keyframes = [], [], []
    for packet in packets_of(clip):
        if packet.size and not packet.is_discard:
            check_frame_count(clip, len(ticks) + 1, most_frames)
            ticks.append(packet.pts)
            slots.append(packet.dts)
            if packet.is_keyframe:
                keyframes.append(packet.pts)
    if not ticks:
        raise VideoError(f"{clip.label}: the video stream holds no frames.")
    if by_count := clip.container.format.name == "avi" or None in ticks:
        counted = np.arange(len(ticks), dtype=np.int64)
        return Timeline(counted, seconds_by_slot(clip, slots), counted[:1], by_count)
    sorted_ticks = np.sort(np.array(ticks, dtype=np.int64))
    seconds = (sorted_ticks - sorted_ticks[0]) * float(clip.stream.time_base)
    return Timeline(sorted_ticks, seconds, np.sort(np.array(keyframes, dtype=np.int64)), by_count)


def seconds_by_slot(clip: Opened, slots: list[int | None]) -> Float64[np.ndarray, " N"]:
    """Return the times of frames without presentation times, in order, from the decoding times of their packets.

    These are the slots of an AVI, of which some may be empty: the frame before is shown on. Where slots are missing or
    out of order, frames are taken to follow each other at the header's rate.
    """
    if None not in slots and (np.diff(slots) > 0).all():
        return (np.array(slots, dtype=np.int64) - slots[0]) * float(clip.stream.time_base)
    return np.arange(len(slots)) / declared_rates(clip)[0]


def pixel_aspect_of(clip: Opened) -> Fraction:
    """Return the width of an encoded pixel by its height; 1 where none is given, or one beyond `MOST_PIXEL_ASPECT`."""
    aspect = clip.stream.sample_aspect_ratio
    return aspect if aspect and 1 / MOST_PIXEL_ASPECT <= aspect <= MOST_PIXEL_ASPECT else Fraction(1)


def check_frame_count(clip: Opened, count: int, most: int) -> None:
    """Raise VideoError for more than `most` frames."""
    if count > most:
        raise VideoError(f"{clip.label}: more than {most} frames.")


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
