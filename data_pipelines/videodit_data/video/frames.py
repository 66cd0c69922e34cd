"""Frames of videos by number, by time, or one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Float64, Int64, UInt8

from videodit_data.video.convert import SCALING, displayed_size, planes_of
from videodit_data.video.opening import (
    MOST_PIXELS,
    Opened,
    Source,
    Timeline,
    VideoError,
    check_frame,
    opened,
    packets_of,
    pixel_aspect_of,
    rate_of,
    timeline_of,
)
from videodit_data.video.pictures import read_still
from videodit_data.video.resampling import nearest

MOST_PIXELS_AT_ONCE = 2**32  # of the frames of one array


def decode(
    source: Source, start: int = 0, count: int | None = None, *, size: tuple[int, int] | None = None, name: str = ""
) -> UInt8[np.ndarray, "T Y X 3"]:
    """Return frames `start` to `start + count` in the order they are shown (to the end when `count` is None).

    Decoding starts at the keyframe before `start`. `size` = (height, width) scales by area averaging; a frame that
    has the size already is not touched. VideoError when the frames are not there or cannot be decoded.
    """
    with opened(source, name) as clip:
        timeline = timeline_of(clip)
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
    """Decode `frames` frames at `fps` from `start_seconds` on, for each time the nearest frame, the earlier of ties.

    `size` as in `decode`. VideoError when the last time lies more than a frame after the last frame.

    crop: (top, left, height, width), what is kept of a frame of that size; all of it if None.
    out: where the frames are written, if given, and what is returned then; ValueError when its shape is another.
    """
    with opened(source, name) as clip:
        timeline = timeline_of(clip)
        rate = rate_of(clip, timeline.seconds)
        indices = _window(clip.label, timeline.seconds, rate, fps, frames, start_seconds)
        return _pictures(clip, timeline, indices, size, crop, out)


def resample_pictures(
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
    """Resample pictures of one size, [Y, X, 3] each, at a constant `rate`, as `decode_clip`; reads only needed ones."""
    label = name or f"a clip of {len(pictures)} pictures"
    indices = _window(label, np.arange(len(pictures)) / rate, rate, fps, frames, start_seconds)
    reformatter = VideoReformatter()
    _check_scale(label, size)
    for index in np.unique(indices):
        picture = _scaled_picture(pictures[int(index)], size, reformatter)
        top, left, height, width = (0, 0, *picture.shape[:2]) if crop is None else crop
        if out is None:
            out = _allocate(label, frames, height, width)
        out[indices == index] = picture[top : top + height, left : left + width]
    return out


def _check_scale(label: str, size: tuple[int, int] | None) -> None:
    """Raise VideoError for a size, perhaps that of a record that lies, which no frame may be scaled to."""
    if size is not None and size[0] * size[1] > MOST_PIXELS:
        raise VideoError(f"{label}: frames scaled to {size[1]} x {size[0]} are more than {MOST_PIXELS} pixels.")


def _allocate(label: str, frames: int, height: int, width: int) -> UInt8[np.ndarray, "T Y X 3"]:
    """Return an array for frames; VideoError when it would be too large."""
    if frames * height * width > MOST_PIXELS_AT_ONCE:
        raise VideoError(
            f"{label}: {frames} frames of {width} x {height} are more than {MOST_PIXELS_AT_ONCE} pixels at once."
        )
    return np.empty((frames, height, width, 3), np.uint8)


def _scaled_picture(
    picture: UInt8[np.ndarray, "Y X 3"], size: tuple[int, int] | None, reformatter: VideoReformatter
) -> UInt8[np.ndarray, "y x 3"]:
    if size is None or picture.shape[:2] == tuple(size):
        return picture
    # As three planes of one format, so that swscale averages red, green and blue and converts nothing.
    planes = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture.transpose(2, 0, 1)), format="yuv444p")
    scaled = reformatter.reformat(planes, size[1], size[0], "yuv444p", interpolation=SCALING, threads=1)
    return scaled.to_ndarray().transpose(1, 2, 0)


def _window(
    label: str, seconds: Float64[np.ndarray, " N"], rate: float | int, fps: float | int, frames: int, start: float | int
) -> Int64[np.ndarray, " T"]:
    """Return the indices of the frames, shown at `seconds`, that are nearest to the times of a window."""
    times = start + np.arange(frames) / fps
    if start < 0 or times[-1] > float(seconds[-1]) + 1 / rate + 1e-6:
        raise VideoError(
            f"{label}: {frames} frames at {fps:g} a second from {start:.3f} s on end at "
            f"{times[-1]:.3f} s, the last frame is at {seconds[-1]:.3f} s."
        )
    return nearest(seconds, times)


@dataclass(frozen=True)
class Index:
    """The positions of a source's frames, from reading through it once; for many calls of `stream`.

    pixel_aspect: width of an encoded pixel by its height.
    """

    timeline: Timeline
    fps: float
    pixel_aspect: Fraction


def index(source: Source, *, name: str = "") -> Index:
    """Read the packets of a source, nothing decoded; VideoError as from `probe`."""
    with opened(source, name) as clip:
        timeline = timeline_of(clip)
        return Index(timeline, rate_of(clip, timeline.seconds), pixel_aspect_of(clip))


def stream(
    source: Source, where: Index, start: int, count: int, *, name: str = ""
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield frames `start` to `start + count`, decoded in order, each with its seconds after the source's first.

    VideoError when the frames are not there or cannot be decoded.
    """
    have, yielded = len(where.timeline.ticks), 0
    with opened(source, name) as clip:
        if start < 0 or count < 1 or start + count > have:
            raise VideoError(f"{clip.label}: has {have} frames, cannot give {count} from frame {start} on.")
        ticks = where.timeline.ticks[start : start + count]
        for tick, frame in frames_from(clip, where.timeline, int(ticks[0])):
            # As in `_pictures`: the next shown frame stands in for a packet that shows nothing.
            while yielded < count and ticks[yielded] <= tick:
                yield float(where.timeline.seconds[start + yielded]), frame
                yielded += 1
            if yielded == count:
                return
        raise VideoError(f"{clip.label}: ends after {yielded} of the {count} frames asked for; truncated or damaged.")


def _pictures(
    clip: Opened,
    timeline: Timeline,
    indices: Int64[np.ndarray, " T"],
    size: tuple[int, int] | None,
    crop: tuple[int, int, int, int] | None = None,
    out: UInt8[np.ndarray, "T Y X 3"] | None = None,
) -> UInt8[np.ndarray, "T Y X 3"]:
    """Return the frames at ascending `indices` of the timeline, each decoded and converted once."""
    ticks, filled, reformatter = timeline.ticks[indices], 0, VideoReformatter()
    _check_scale(clip.label, size)
    for tick, frame in frames_from(clip, timeline, int(ticks[0])):
        # A packet may show nothing (VP8's hidden frames): the next shown frame stands in for it.
        if tick < ticks[filled]:
            continue
        size = size or displayed_size(frame, pixel_aspect_of(clip))  # of the first: further ones are scaled to it
        planes = planes_of(frame, size, reformatter)
        top, left, height, width = (0, 0, *size) if crop is None else crop
        shape = len(indices), height, width, 3
        if out is None:
            out = _allocate(clip.label, *shape[:3])
        elif out.shape != shape:  # OpenCV would silently write to another array
            raise ValueError(f"{clip.label}: {len(indices)} frames of {height} x {width} do not fit out, {out.shape}.")
        until = int(np.searchsorted(ticks, tick, side="right"))
        cv2.merge([plane[top : top + height, left : left + width] for plane in planes], out[filled])
        out[filled + 1 : until] = out[filled]
        filled = until
        if filled == len(ticks):
            return out
    raise VideoError(f"{clip.label}: ends after {filled} of the {len(ticks)} frames asked for; truncated or damaged.")


def frames_from(clip: Opened, timeline: Timeline, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Return frames in presentation order from the keyframe at or before tick `first` on, each with its tick.

    Before `first`, frames that are no reference for others may be missing.
    """
    container, stream = clip.container, clip.stream
    if still := read_still(clip):
        yield int(timeline.ticks[0]), still
        return
    if timeline.by_count:
        container.seek(stream.start_time or int(timeline.ticks[0]), stream=stream)
        frames = (frame for packet in packets_of(clip) for frame in packet.decode())
        for count, frame in enumerate(frames):
            check_frame(clip, frame)
            yield count, frame
        return
    before = int(np.searchsorted(timeline.keyframes, first, side="right")) - 1
    if before > 0:
        container.seek(int(timeline.keyframes[before]), stream=stream)
        frames = _timed(clip, first)
        first_frame = next(frames, None)
        if first_frame is not None and first_frame[0] <= first:
            yield first_frame
            yield from frames
            return
    # At the start, or in a container that cannot seek to its keyframes.
    container.seek(_beginning(clip, timeline), stream=stream)
    frames = _timed(clip, first)
    first_frame = next(frames, None)
    if first_frame is None or first_frame[0] > first:
        raise VideoError(f"{clip.label}: cannot be read from its beginning; give it in another container.")
    yield first_frame
    yield from frames


def _beginning(clip: Opened, timeline: Timeline) -> int:
    first_tick = int(timeline.ticks[0])
    if clip.container.format.name.startswith("mpeg"):  # seeks by decoding times, which precede presentation times
        return first_tick - round(1 / clip.stream.time_base)
    return clip.stream.start_time or first_tick


def _timed(clip: Opened, first: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield frames with their ticks from the container's current position, as `frames_from`.

    About every second frame of x264 is no reference for others: skipping these before the window saves a quarter of
    the time of a random read.
    """
    codec = clip.stream.codec_context
    for packet in packets_of(clip):
        if codec.name == "h264":
            codec.skip_frame = "NONREF" if packet.pts is not None and packet.pts < first else "DEFAULT"
        for frame in packet.decode():
            check_frame(clip, frame)
            if frame.pts is not None:
                yield frame.pts, frame
