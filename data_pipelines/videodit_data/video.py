"""Video files in and out through PyAV: probe, verify, decode, encode. Frames are uint8 RGB [T, Y, X, 3].

Frames are found by presentation time: one pass over the packets (nothing decoded) gives the ascending list of times, so
that frame i is the i-th shown one whatever the rate does. AVI stores no such times: there, and wherever a packet lacks
one, a constant rate is assumed and decoding starts at the beginning. A rotation written by a phone is applied; pixels
are taken as square; decoding and encoding use one thread, because the loader runs many clips side by side.
"""

import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from jaxtyping import Float64, Int64, UInt8

from videodit_data.transforms import nearest

Source = bytes | str | os.PathLike[str]

# Area averaging, chroma at full resolution, and the same bytes on every machine.
_SCALING = int(Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT)

# Files that hold what they show: a playlist in disguise would have FFmpeg open other files, or addresses.
_OPENING = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,flv,mpeg,mpegts,ogg,asf,mxf,nut,ivf,apng,image2,"
    "h264,hevc,mjpeg,yuv4mpegpipe,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe",
    "pattern_type": "none",  # a picture's name is no pattern of names
}

av.logging.set_level(None)  # codecs report through exceptions, never on the terminal


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
class _Timeline:
    """When each frame is shown: ticks of the stream (ascending), seconds after the first frame, keyframes' ticks."""

    ticks: Int64[np.ndarray, " N"]
    seconds: Float64[np.ndarray, " N"]
    keyframes: Int64[np.ndarray, " K"]
    by_count: bool  # no presentation times: ticks are frame numbers in decoding order


@dataclass(frozen=True)
class _Opened:
    label: str
    container: av.container.InputContainer
    stream: av.VideoStream


@contextmanager
def _opened(source: Source, name: str, strict: bool = False) -> Iterator[_Opened]:
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
            yield _Opened(label, container, stream)
    except av.FFmpegError as error:
        raise VideoError(f"{label}: not readable as a video ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise VideoError(f"{label}: its metadata is not UTF-8.") from error


def _timeline(clip: _Opened) -> _Timeline:
    packets = [packet for packet in clip.container.demux(clip.stream) if packet.size and not packet.is_discard]
    if not packets:
        raise VideoError(f"{clip.label}: the video stream holds no frames.")
    by_count = clip.container.format.name == "avi" or any(packet.pts is None for packet in packets)
    if by_count:
        ticks = np.arange(len(packets), dtype=np.int64)
        return _Timeline(ticks, ticks / _declared_rates(clip)[0], ticks[:1], by_count)
    ticks = np.sort(np.array([packet.pts for packet in packets], dtype=np.int64))
    keyframes = np.sort(np.array([packet.pts for packet in packets if packet.is_keyframe], dtype=np.int64))
    return _Timeline(ticks, (ticks - ticks[0]) * float(clip.stream.time_base), keyframes, by_count)


def _declared_rates(clip: _Opened) -> list[float]:
    rates = [float(rate) for rate in (clip.stream.average_rate, clip.stream.guessed_rate) if rate]
    if not rates:
        raise VideoError(f"{clip.label}: no frame rate.")
    return rates


def _rate(clip: _Opened, seconds: Float64[np.ndarray, " N"]) -> float:
    """The header's rate where it places the last frame to a quarter of a frame (containers round), else the average."""
    declared = _declared_rates(clip)
    if len(seconds) < 2 or seconds[-1] <= 0:
        return declared[0]
    intervals, span = len(seconds) - 1, float(seconds[-1])
    return next((rate for rate in declared if abs(intervals - span * rate) < 0.25), intervals / span)


def _info(clip: _Opened, frames: int, fps: float, shape: tuple[int, int]) -> VideoInfo:
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


def probe(source: Source, *, name: str = "") -> VideoInfo:
    """Facts from the header, the packets and the first frame; damage further on goes unnoticed (see `verify`).

    `name` stands for the source in errors. VideoError when it is not a video or holds no frames.
    """
    with _opened(source, name) as clip:
        timeline = _timeline(clip)
        _, first = next(_frames_from(clip, timeline, int(timeline.ticks[0])), (0, None))
        if first is None:
            raise VideoError(f"{clip.label}: no frame of the video stream can be decoded.")
        return _info(clip, len(timeline.ticks), _rate(clip, timeline.seconds), _shown_size(first))


def verify(source: Source, *, name: str = "", most_pixels: int | None = None) -> VideoInfo:
    """Facts after decoding every frame once.

    VideoError when the file is not a video, holds no frames, ends before its header says, is damaged in a way that its
    codec notices (most have no checksums), or has frames of more than `most_pixels`.
    """
    with _opened(source, name, strict=True) as clip:
        ticks, shape, packets = [], (0, 0), 0
        coded = clip.stream.codec_context
        if most_pixels is not None and coded.width * coded.height > most_pixels:
            raise VideoError(
                f"{clip.label}: frames of {coded.width} x {coded.height} are more than {most_pixels} pixels."
            )
        for packet in clip.container.demux(clip.stream):
            packets += packet.size > 0
            for frame in packet.decode():
                if frame.is_corrupt or packet.is_corrupt:
                    raise VideoError(f"{clip.label}: damaged at frame {len(ticks)}.")
                shape = _shown_size(frame)
                ticks.append(frame.pts)
        if not ticks:
            raise VideoError(f"{clip.label}: no frame of the video stream can be decoded.")
        if by_count := clip.container.format.name == "avi" or None in ticks:
            ticks = list(range(len(ticks)))
        unit = 1 / _declared_rates(clip)[0] if by_count else float(clip.stream.time_base)
        seconds = (np.sort(np.array(ticks, dtype=np.int64)) - min(ticks)) * unit
        info = _info(clip, len(ticks), _rate(clip, seconds), shape)
        _check_whole(clip, packets, float(seconds[-1]) + 1 / info.fps, info.fps, source)
        return info


def _check_whole(clip: _Opened, packets: int, end: float, fps: float, source: Source) -> None:
    """VideoError when the container promised more than it held: its own length, or a GIF's closing byte."""
    stream, container = clip.stream, clip.container
    if "matroska" in container.format.name and (missing := _missing_matroska(source)):
        raise VideoError(f"{clip.label}: truncated, {missing} bytes of the segment are missing.")
    if container.format.name == "gif":
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        if not data.rstrip(b"\0").endswith(b";"):
            raise VideoError(f"{clip.label}: truncated, the closing byte of the GIF is missing.")
        return
    lengths = []
    if stream.duration is not None:
        lengths.append(stream.duration * float(stream.time_base))
    if container.duration is not None and (lengths or len(container.streams) == 1):
        lengths.append(container.duration / av.time_base)
    if tag := stream.metadata.get("DURATION"):
        hours, minutes, rest = tag.split(":")
        lengths.append(int(hours) * 3600 + int(minutes) * 60 + float(rest))
    promised = min(lengths, default=end)
    if (not stream.frames or packets < stream.frames) and end < promised - max(1.5 / fps, 0.02 * promised):
        raise VideoError(f"{clip.label}: truncated after {end:.2f} of {promised:.2f} seconds.")


def _missing_matroska(source: Source) -> int:
    """Bytes that a Matroska or WebM file's segment says it has and the file has not (RFC 8794 and 9559)."""
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        head = file.read(4096)
        length = file.seek(0, os.SEEK_END)
    at = 0
    for _ in range(8):  # the header, perhaps padding, then the segment
        name, at = _vint(head, at, keep_marker=True)
        size, at = _vint(head, at, keep_marker=False)
        if size is None:
            return 0  # of unknown size, or none that we can read
        if name == 0x18538067:
            return max(0, at + size - length)
        at += size
    return 0


def _vint(data: bytes, at: int, *, keep_marker: bool) -> tuple[int | None, int]:
    """A number of variable length, None where there is none or it says "unknown", and where the next one is."""
    if at >= len(data) or not data[at]:
        return None, at
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big")
    bits = value & ((1 << 7 * width) - 1)
    if keep_marker:
        return value, at + width
    return None if bits == (1 << 7 * width) - 1 or at + width > len(data) else bits, at + width


def decode(
    source: Source, start: int = 0, count: int | None = None, *, size: tuple[int, int] | None = None, name: str = ""
) -> UInt8[np.ndarray, "T Y X 3"]:
    """Frames `start` to `start + count` in the order they are shown (to the end when `count` is None).

    Decoding begins at the keyframe before `start`. `size` = (height, width) scales by area averaging; a frame that
    has the size already is not touched. VideoError when the frames are not there or cannot be decoded.
    """
    with _opened(source, name) as clip:
        timeline = _timeline(clip)
        have = len(timeline.ticks)
        count = have - start if count is None else count
        if start < 0 or count < 1 or start + count > have:
            raise VideoError(f"{clip.label}: has {have} frames, cannot give {count} from frame {start} on.")
        return _pictures(clip, timeline, np.arange(start, start + count), size)


def decode_clip(
    source: Source,
    *,
    fps: float | int,
    frames: int,
    start_seconds: float | int = 0.0,
    size: tuple[int, int] | None = None,
    crop: tuple[int, int, int, int] | None = None,
    out: UInt8[np.ndarray, "T Y X 3"] | None = None,
    name: str = "",
) -> UInt8[np.ndarray, "T Y X 3"]:
    """`frames` frames at `fps` from `start_seconds` on: for each time the frame shown nearest to it, ties the earlier.

    `size` as in `decode`. VideoError when the last time lies more than a frame after the last frame.

    crop: (top, left, height, width), what is kept of a frame of that size; all of it if None.
    out: where the frames are written, if given, and what is returned then.
    """
    with _opened(source, name) as clip:
        timeline = _timeline(clip)
        rate = _rate(clip, timeline.seconds)
        indices = _window(clip.label, timeline.seconds, rate, fps, frames, start_seconds)
        return _pictures(clip, timeline, indices, size, crop, out)


def pictures_clip(
    pictures: Sequence | np.ndarray,
    rate: float | int,
    *,
    fps: float | int,
    frames: int,
    start_seconds: float | int = 0.0,
    size: tuple[int, int] | None = None,
    crop: tuple[int, int, int, int] | None = None,
    out: UInt8[np.ndarray, "T Y X 3"] | None = None,
    name: str = "",
) -> UInt8[np.ndarray, "T Y X 3"]:
    """`decode_clip` for pictures of one size, [Y, X, 3] each, that are shown at a constant `rate`; takes only those."""
    label = name or f"a clip of {len(pictures)} pictures"
    indices = _window(label, np.arange(len(pictures)) / rate, rate, fps, frames, start_seconds)
    reformatter = VideoReformatter()
    for index in np.unique(indices):
        picture = _scaled(pictures[int(index)], size, reformatter)
        top, left, height, width = (0, 0, *picture.shape[:2]) if crop is None else crop
        if out is None:
            out = np.empty((frames, height, width, 3), np.uint8)
        out[indices == index] = picture[top : top + height, left : left + width]
    return out


def _scaled(
    picture: UInt8[np.ndarray, "Y X 3"], size: tuple[int, int] | None, reformatter: VideoReformatter
) -> UInt8[np.ndarray, "y x 3"]:
    if size is None or picture.shape[:2] == tuple(size):
        return picture
    # As three planes of one format, so that swscale averages red, green and blue and converts nothing.
    planes = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture.transpose(2, 0, 1)), format="yuv444p")
    scaled = reformatter.reformat(planes, size[1], size[0], "yuv444p", interpolation=_SCALING, threads=1)
    return scaled.to_ndarray().transpose(1, 2, 0)


def _window(
    label: str, seconds: Float64[np.ndarray, " N"], rate: float | int, fps: float | int, frames: int, start: float | int
) -> Int64[np.ndarray, " T"]:
    """Which frames, shown at `seconds`, are nearest to the times of a window."""
    wanted = start + np.arange(frames) / fps
    if start < 0 or wanted[-1] > float(seconds[-1]) + 1 / rate + 1e-6:
        raise VideoError(
            f"{label}: {frames} frames at {fps:g} a second from {start:.3f} s on end at "
            f"{wanted[-1]:.3f} s, the last frame is at {seconds[-1]:.3f} s."
        )
    return nearest(seconds, wanted)


def _pictures(
    clip: _Opened,
    timeline: _Timeline,
    indices: Int64[np.ndarray, " T"],
    size: tuple[int, int] | None,
    crop: tuple[int, int, int, int] | None = None,
    out: UInt8[np.ndarray, "T Y X 3"] | None = None,
) -> UInt8[np.ndarray, "T Y X 3"]:
    """The frames at ascending `indices` of the timeline, each decoded and converted once."""
    wanted, filled, reformatter = timeline.ticks[indices], 0, VideoReformatter()
    for tick, frame in _frames_from(clip, timeline, int(wanted[0])):
        # A packet may show nothing (VP8's hidden frames): the next shown frame stands in for it.
        if tick < wanted[filled]:
            continue
        planes = _planes(frame, size, reformatter)
        size = planes[0].shape  # frames of another size, further on, are scaled to that of the first
        top, left, height, width = (0, 0, *size) if crop is None else crop
        if out is None:
            out = np.empty((len(indices), height, width, 3), np.uint8)
        until = int(np.searchsorted(wanted, tick, side="right"))
        for colour, plane in enumerate(planes):
            out[filled:until, ..., colour] = plane[top : top + height, left : left + width]
        filled = until
        if filled == len(wanted):
            return out
    raise VideoError(f"{clip.label}: ends after {filled} of the {len(wanted)} frames asked for; truncated or damaged.")


def _frames_from(clip: _Opened, timeline: _Timeline, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames in presentation order from the keyframe at or before tick `first` on, each with its tick."""
    container, stream, begin = clip.container, clip.stream, int(timeline.ticks[0])
    if not timeline.by_count:
        before = int(np.searchsorted(timeline.keyframes, first, side="right")) - 1
        if before > 0:
            container.seek(int(timeline.keyframes[before]), stream=stream)
            for frame in container.decode(stream):
                if frame.pts is None or frame.pts > first:
                    break  # this container cannot seek there: start over
                yield frame.pts, frame
                yield from ((frame.pts, frame) for frame in container.decode(stream) if frame.pts is not None)
                return
    container.seek(stream.start_time or begin, stream=stream)
    for number, frame in enumerate(container.decode(stream)):
        if timeline.by_count:
            yield number, frame
        elif frame.pts is not None:
            yield frame.pts, frame


def _turns(frame: av.VideoFrame) -> int:
    """Quarter turns counter-clockwise from the coded to the displayed picture."""
    return round(frame.rotation / 90) % 4


def _shown_size(frame: av.VideoFrame) -> tuple[int, int]:
    return (frame.width, frame.height) if _turns(frame) % 2 else (frame.height, frame.width)


def _planes(
    frame: av.VideoFrame, size: tuple[int, int] | None, reformatter: VideoReformatter
) -> list[UInt8[np.ndarray, "Y X"]]:
    """Red, green and blue of the displayed picture, as views into the converted frame's memory.

    swscale has vector code for planes, and none that rounds as well for interleaved colours: 2.4 ms for 6.7 at 720p.
    """
    turns = _turns(frame)
    height, width = (frame.height, frame.width) if size is None else size[::-1] if turns % 2 else size
    green_blue_red = reformatter.reformat(frame, width, height, "gbrp", interpolation=_SCALING, threads=1).planes
    planes = [np.ndarray((height, width), np.uint8, p, strides=(p.line_size, 1)) for p in green_blue_red]
    return [np.rot90(plane, turns) if turns else plane for plane in (planes[2], planes[0], planes[1])]


def encode(
    path: str | os.PathLike[str] | None,
    frames: UInt8[np.ndarray, "T Y X 3"],
    fps: float | int,
    *,
    metadata: dict[str, str] | None = None,
    crf: int = 18,
) -> bytes:
    """H.264 (yuv420p, BT.709) in an mp4 that starts to play at once; written to `path`, if given, whole or not at all.

    The same frames give the same bytes. `metadata` keeps its own keys. VideoError for odd sizes or a bad rate.
    """
    count, height, width, _ = frames.shape
    if not count or height % 2 or width % 2 or not height or not width:
        raise VideoError(f"H.264 needs at least one frame of even height and width, not {count} of {height} x {width}.")
    if not fps > 0:
        raise VideoError(f"A video's frame rate is positive, not {fps}.")
    folder = None if path is None else Path(path).parent
    with tempfile.TemporaryDirectory(dir=folder, prefix=".encode-") as scratch:
        file = Path(scratch) / "clip.mp4"  # a real file: moving the index to the front re-reads what was written
        _write_mp4(file, frames, Fraction(fps).limit_denominator(1001), metadata or {}, crf)
        data = file.read_bytes()
        if path is not None:
            file.replace(path)
    return data


def _write_mp4(
    file: Path, frames: UInt8[np.ndarray, "T Y X 3"], rate: Fraction, metadata: dict[str, str], crf: int
) -> None:
    options = {"movflags": "faststart+use_metadata_tags", "fflags": "+bitexact"}
    with av.open(str(file), "w", format="mp4", options=options) as container:
        container.metadata.update(metadata)
        # x264's macroblock tree reads memory that nobody wrote when frames are small: other bytes at every call.
        coding = {"crf": str(crf), "threads": "1", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=rate, options=coding)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        codec, reformatter = stream.codec_context, VideoReformatter()
        codec.thread_count = 1
        codec.colorspace, codec.color_range = Colorspace.ITU709, ColorRange.MPEG
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for picture in frames:
            frame = reformatter.reformat(
                av.VideoFrame.from_ndarray(picture, format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=_SCALING,
                threads=1,
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
