"""Facts about a video file from its packets or from decoding all of it, and checks that it is complete."""

import os
from collections.abc import Callable
from io import BufferedIOBase

import av
import numpy as np

from videodit_data.video.convert import displayed_size
from videodit_data.video.frames import frames_from
from videodit_data.video.opening import (
    MOST_FRAMES,
    MOST_PIXELS,
    Opened,
    Source,
    VideoError,
    VideoInfo,
    check_frame,
    check_frame_count,
    info_of,
    opened,
    packets_of,
    pixel_aspect_of,
    rate_of,
    seconds_by_slot,
    timeline_of,
)
from videodit_data.video.pictures import read_still


def probe(source: Source, *, name: str = "") -> VideoInfo:
    """Return facts from the header, the packets and the first frame; damage further on goes unnoticed (see `verify`).

    `name` stands for the source in errors. VideoError when it is not a video or holds no frames.
    """
    with opened(source, name) as clip:
        timeline = timeline_of(clip)
        _, first = next(frames_from(clip, timeline, int(timeline.ticks[0])), (0, None))
        if first is None:
            raise VideoError(f"{clip.label}: no frame of the video stream can be decoded.")
        return info_of(
            clip, len(timeline.ticks), rate_of(clip, timeline.seconds), displayed_size(first, pixel_aspect_of(clip))
        )


def verify(
    source: Source,
    *,
    name: str = "",
    most_pixels: int = MOST_PIXELS,
    most_frames: int = MOST_FRAMES,
    on_frame: Callable[[av.VideoFrame, tuple[int, int]], None] | None = None,
    on_packet: Callable[[av.Packet], None] | None = None,
) -> VideoInfo:
    """Return facts after decoding every frame once; `on_frame` gets each frame with its displayed size, `on_packet`
    sound packets.

    VideoError when the file is not a video, holds no frames, ends before its header says, is damaged in a way that its
    codec notices (most have no checksums), has frames of more than `most_pixels`, or more than `most_frames`.
    """
    with opened(source, name, strict=True, most_pixels=most_pixels) as clip:
        ticks, slots, shape, still = [], [], (0, 0), read_still(clip)
        sound = clip.container.streams.best("audio") if on_packet else None
        for packet in packets_of(clip, *([] if sound is None else [sound])):
            if packet.stream is sound:
                on_packet(packet)
                continue
            slots += [packet.dts] if packet.size else []
            for frame in packet.decode() if still is None else [still] * (packet.size > 0):
                if frame.is_corrupt or packet.is_corrupt:
                    raise VideoError(f"{clip.label}: damaged at frame {len(ticks)}.")
                check_frame_count(clip, len(ticks) + 1, most_frames)
                check_frame(clip, frame)
                shape = displayed_size(frame, pixel_aspect_of(clip))
                ticks.append(frame.pts)
                if on_frame:
                    on_frame(frame, shape)
        if not ticks:
            raise VideoError(f"{clip.label}: no frame of the video stream can be decoded.")
        if clip.container.format.name == "avi" or None in ticks:
            seconds = seconds_by_slot(clip, slots if len(slots) == len(ticks) else [None] * len(ticks))
        else:
            seconds = (np.sort(np.array(ticks, dtype=np.int64)) - min(ticks)) * float(clip.stream.time_base)
        info = info_of(clip, len(ticks), rate_of(clip, seconds), shape)
        _check_whole(clip, len(slots), float(seconds[-1]) + 1 / info.fps, info.fps)
        return info


def _check_whole(clip: Opened, packets: int, end: float, fps: float) -> None:
    """Check that the container holds what it declares: its length, or a GIF's closing byte. VideoError if not."""
    stream, container = clip.stream, clip.container
    if "matroska" in container.format.name and (missing := _missing_matroska(clip.file)):
        raise VideoError(f"{clip.label}: truncated, {missing} bytes of the segment are missing.")
    if container.format.name == "gif":
        clip.file.seek(0)
        if not clip.file.read().rstrip(b"\0").endswith(b";"):
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


def _missing_matroska(file: BufferedIOBase) -> int:
    """Return the number of bytes that a Matroska or WebM file lacks by its segment's size (RFC 8794 and 9559)."""
    file.seek(0)
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
    """Return a number of variable length, None if missing or "unknown", and the offset of the next one."""
    if at >= len(data) or not data[at]:
        return None, at
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big")
    bits = value & ((1 << 7 * width) - 1)
    if keep_marker:
        return value, at + width
    return None if bits == (1 << 7 * width) - 1 or at + width > len(data) else bits, at + width
