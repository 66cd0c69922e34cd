"""Cuts hold exactly the requested frames, in even sizes, upright, at their times, with the same bytes every time."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from videodit_data import video
from videodit_data.video import VideoError
from videodit_data.video.transcode import Recode, cut

# file name -> codec, pixel format, options
CONTAINERS = {
    "clip.mp4": ("libx264", "yuv420p", {"g": "6", "bf": "2"}),
    "clip.webm": ("libvpx-vp9", "yuv420p", {"g": "6"}),
    "clip.avi": ("mpeg4", "yuv420p", {"g": "6", "bf": "2", "qmax": "2"}),
    "clip.gif": ("gif", "gray", {}),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_frames_asked_for_are_cut_from_every_container(name, numbered, numbers, write_file, tmp_path):
    codec, pix_fmt, options = CONTAINERS[name]
    file = write_file(tmp_path / name, numbered(24), codec, pix_fmt, 8, options)
    for start, frames in ((0, 24), (5, 9), (23, 1)):
        data = cut(file, start, frames, Recode())
        info = video.verify(data)
        assert numbers(video.decode(data)) == list(range(start, start + frames))
        assert (info.frames, info.fps, info.codec, info.height, info.width) == (frames, 8.0, "h264", 32, 48)
        assert cut(file, start, frames, Recode()) == data == cut(file.read_bytes(), start, frames, Recode())
    with pytest.raises(VideoError, match="a film: has 24 frames, cannot give 9 from frame 20 on"):
        cut(file, 20, 9, Recode(), name="a film")


def test_real_footage_keeps_its_pictures(real_clips):
    file = real_clips / "maxtext_test_video.mp4"
    expected = video.decode(file, 40, 10).astype(float)
    decoded = video.decode(cut(file, 40, 10, Recode(crf=12))).astype(float)
    assert np.abs(decoded - expected).mean() < 2
    assert video.probe(cut(file, 40, 10, Recode())).fps == 30


def test_keyframes_come_at_least_every_gop(real_clips):
    for gop in (4, 16):
        data = cut(real_clips / "hiker.mp4", 0, 40, Recode(gop=gop, short_side=128))
        with av.open(io.BytesIO(data)) as container:
            keys = [
                index for index, packet in enumerate(container.demux(video=0)) if packet.size and packet.is_keyframe
            ]
        assert max(np.diff([*keys, 40])) <= gop


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((37, 51), None, (36, 50)),
        ((37, 51), 128, (36, 50)),
        ((60, 106), 30, (30, 52)),
        ((106, 60), 30, (52, 30)),
        ((1, 9), None, (2, 8)),
    ],
)
def test_sizes_are_even_and_never_larger(size, short_side, expected, write_file, tmp_path):
    frames = np.full((5, *size, 3), 120, np.uint8)
    file = write_file(tmp_path / "odd.mkv", frames, "ffv1", "yuv444p")
    info = video.probe(cut(file, 1, 3, Recode(short_side=short_side)))
    assert (info.height, info.width) == expected


def test_a_rotation_is_applied(numbered):
    frames = numbered(6)
    frames[:, :, :16] = 255
    data = bytearray(video.encode(None, frames, 8))
    quarter = np.array([0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000], ">i4").tobytes()
    offset = data.index(b"tkhd") + 4 + 40
    data[offset : offset + len(quarter)] = quarter
    decoded, expected = video.decode(cut(bytes(data), 1, 4, Recode())), video.decode(bytes(data), 1, 4)
    assert decoded.shape == expected.shape == (4, 48, 32, 3)
    assert np.abs(decoded.astype(float) - expected).mean() < 3


def test_times_that_follow_no_rate_are_kept(numbered, numbers, write_file, tmp_path):
    ticks = [0, 100, 220, 300, 700, 760, 900, 1000, 1450, 1500]
    file = write_file(tmp_path / "uneven.mkv", numbered(10), ticks=ticks)
    data = cut(file, 2, 7, Recode())
    with av.open(io.BytesIO(data)) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert np.subtract(times, times[0]) == pytest.approx(np.subtract(ticks[2:9], ticks[2]) / 1000, abs=1e-3)
    assert numbers(video.decode(data)) == list(range(2, 9))


def test_a_rate_of_television_is_kept(numbered, tmp_path):
    video.encode(tmp_path / "tv.mp4", numbered(20), 30000 / 1001)
    info = video.probe(cut(tmp_path / "tv.mp4", 3, 12, Recode()))
    assert Fraction(info.fps).limit_denominator(1001) == Fraction(30000, 1001)


def test_a_truncated_source_is_refused(numbered, write_file, tmp_path):
    file = write_file(tmp_path / "cut.mkv", numbered(24), options={"g": "6"})
    video_bytes = cut(file, 0, 24, Recode())
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(VideoError, match=r"cut\.mkv"):
        assert cut(file, 0, 24, Recode()) != video_bytes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crf": 60}, "crf of 0 to 51"),
        ({"gop": 0}, "gop of 1 or more"),
        ({"tune": "film"}, "fastdecode or None, not 'film'"),
        ({"preset": "best"}, "A preset is one of ultrafast"),
        ({"short_side": 33}, "even number of pixels, not 33"),
    ],
)
def test_invalid_encodings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Recode(**values)
