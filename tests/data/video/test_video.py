import ctypes
import gc
import hashlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pytest
from PIL import Image
from videodit_data import video
from videodit_data.video import transcode

Frames = Callable[..., np.ndarray]
Writer = Callable[..., Path]
CASES = Path(__file__).parents[4] / "shared" / "cases"

# file name -> codec, pixel format, options: every container, with B-frames and several keyframes where it has them
CONTAINERS = {
    "clip.mp4": ("libx264", "yuv420p", {"g": "6", "bf": "2"}),
    "clip.mov": ("libx264", "yuv420p", {"g": "6", "bf": "2"}),
    "clip.mkv": ("libx264", "yuv420p", {"g": "6", "bf": "2"}),
    "clip.webm": ("libvpx-vp9", "yuv420p", {"g": "6"}),
    "vp8.webm": ("libvpx", "yuv420p", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "8"}),
    "clip.avi": ("mpeg4", "yuv420p", {"g": "6", "bf": "2", "qmax": "2"}),
    "h264.avi": ("libx264", "yuv420p", {"g": "6", "bf": "2"}),
    "clip.gif": ("gif", "gray", {}),
}


@pytest.fixture(params=CONTAINERS)
def clip(request: pytest.FixtureRequest, tmp_path: Path, numbered: Frames, write_file: Writer) -> Path:
    codec, pix_fmt, options = CONTAINERS[request.param]
    return write_file(tmp_path / request.param, numbered(24), codec, pix_fmt, 8, options)


def test_every_container_tells_its_facts(clip: Path):
    info = video.verify(clip)
    assert (info.frames, info.height, info.width, info.fps) == (24, 32, 48, 8.0)
    assert info.seconds == 3.0
    assert video.probe(clip) == info
    assert video.probe(clip.read_bytes()) == info


def test_frames_are_found_by_their_place_in_every_container(clip: Path, numbers: Callable):
    everything = video.decode(clip)
    assert numbers(everything) == list(range(24))
    for start, count in ((0, 1), (5, 4), (6, 1), (11, 13), (23, 1)):
        assert np.array_equal(video.decode(clip, start, count), everything[start : start + count]), start


def test_clips_take_the_frame_nearest_in_time(clip: Path, numbers: Callable):
    assert numbers(video.decode_clip(clip, fps=8, frames=9, start_seconds=1.25)) == list(range(10, 19))
    assert numbers(video.decode_clip(clip, fps=4, frames=5, start_seconds=0.25)) == [2, 4, 6, 8, 10]
    assert numbers(video.decode_clip(clip, fps=16, frames=5, start_seconds=0.5)) == [4, 4, 5, 5, 6]
    assert numbers(video.decode_clip(clip, fps=5.0, frames=5)) == [0, 2, 3, 5, 6]


@pytest.fixture
def drifting() -> np.ndarray:
    """Return 36 different frames of drifting noise."""
    picture = np.random.default_rng(0).integers(0, 255, (48, 120, 3), np.uint8)
    return np.stack([picture[8:40, 2 * n : 2 * n + 48] for n in range(36)])


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
@pytest.mark.parametrize("keyframes", ["6", "250"])
def test_transport_streams_are_read_from_any_frame(
    tmp_path: Path, drifting: np.ndarray, write_file: Writer, codec: str, keyframes: str
):
    """Check that seeking by decoding times, which precede presentation times, works."""
    path = write_file(tmp_path / "clip.ts", drifting, codec, fps=25, options={"g": keyframes, "bf": "2"})
    everything = video.decode(path)
    assert len({frame.tobytes() for frame in everything}) == 36
    for start, count in ((0, 1), (5, 4), (6, 1), (11, 13), (35, 1)):
        assert np.array_equal(video.decode(path, start, count), everything[start : start + count]), start
        assert np.array_equal(video.decode(path.read_bytes(), start, count), everything[start : start + count])


def test_half_a_file_is_an_error_that_names_it(clip: Path):
    half = clip.with_name("half" + clip.suffix)
    half.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(video.VideoError, match=r"half\.\w+: "):
        video.verify(half)


def test_a_variable_rate_is_followed(tmp_path: Path, numbered: Frames, numbers: Callable, write_file: Writer):
    ticks = [0, 100, 200, 600, 700, 1400, 1500, 1600, 2000]
    clip = write_file(tmp_path / "a.mkv", numbered(9), options={"g": "3"}, ticks=ticks)
    assert video.verify(clip).fps == pytest.approx(8 / 2.0)
    assert numbers(video.decode(clip, 4, 3)) == [4, 5, 6]
    assert numbers(video.decode_clip(clip, fps=2, frames=5)) == [0, 3, 4, 6, 8]  # at 0, 500, 1000, 1500, 2000
    assert numbers(video.decode_clip(clip, fps=10, frames=3, start_seconds=0.3)) == [2, 2, 3]


def test_a_gif_of_uneven_delays_shows_each_frame_for_its_time(tmp_path: Path, numbered: Frames, numbers: Callable):
    pictures = [Image.fromarray(frame) for frame in numbered(4)]
    delays = [100, 500, 100, 100]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=delays)
    assert numbers(video.decode_clip(tmp_path / "a.gif", fps=10, frames=5)) == [0, 1, 1, 1, 2]


def test_colours_survive(tmp_path: Path):
    colors = np.array([[220, 30, 40], [30, 60, 200], [40, 180, 60], [250, 250, 250], [5, 5, 5]], np.uint8)
    frames = np.repeat(colors, 16, axis=0).reshape(1, 5 * 16, 1, 3).repeat(3, 0).repeat(32, 2)
    back = video.decode(video.encode(None, frames, 8)).astype(int)
    assert np.abs(back[:, 4::16] - frames[:, 4::16]).max() <= 4


def test_encoding_is_deterministic_and_keeps_metadata(tmp_path: Path, numbered: Frames, numbers: Callable):
    metadata = {"prompt": 'größer, "quoted"', "provenance": '{"seed": 1}'}
    data = video.encode(tmp_path / "a.mp4", numbered(9), 30000 / 1001, metadata=metadata)
    assert data == video.encode(None, numbered(9), 30000 / 1001, metadata=metadata)
    assert (tmp_path / "a.mp4").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    info = video.verify(data)
    assert info.fps == pytest.approx(30000 / 1001) and metadata.items() <= info.metadata.items()
    assert data.index(b"moov") < data.index(b"mdat")
    assert numbers(video.decode(data)) == list(range(9))


def test_one_picture_is_a_clip_of_one_frame(numbered: Frames):
    data = video.encode(None, numbered(1), 8)
    assert video.verify(data).frames == 1
    assert video.decode_clip(data, fps=24, frames=1).shape == (1, 32, 48, 3)


def test_a_failed_encoding_leaves_no_file(tmp_path: Path, numbered: Frames):
    with pytest.raises(video.VideoError, match="even height and width, not 3 of 31 x 48"):
        video.encode(tmp_path / "a.mp4", numbered(3, 31, 48), 8)
    with pytest.raises(video.VideoError, match="rate is positive"):
        video.encode(tmp_path / "a.mp4", numbered(3), 0)
    assert not list(tmp_path.iterdir())


def test_scaling_averages_areas_and_leaves_the_own_size_alone():
    rng = np.random.default_rng(0)
    frames = rng.integers(80, 176, (2, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    data = video.encode(None, frames, 8, crf=1)
    original = video.decode(data)
    assert np.array_equal(video.decode(data, size=(64, 64)), original)
    small = video.decode(data, size=(16, 16)).astype(float)
    assert small.shape == (2, 16, 16, 3)
    averages = original.reshape(2, 16, 4, 16, 4, 3).mean((2, 4, 5))
    assert np.abs(small.mean(-1) - averages).max() < 4
    assert video.decode(data, size=(128, 96)).shape == (2, 128, 96, 3)


# What turns the displayed picture into the stored one, and the display matrix (a, b, c, d) that says how to turn back.
ORIENTATIONS = [
    (lambda x: x, (1, 0, 0, 1)),
    (lambda x: x[:, ::-1], (-1, 0, 0, 1)),
    (lambda x: x[::-1, ::-1], (-1, 0, 0, -1)),
    (lambda x: x[::-1], (1, 0, 0, -1)),
    (lambda x: x.swapaxes(0, 1), (0, 1, 1, 0)),
    (lambda x: np.rot90(x), (0, 1, -1, 0)),
    (lambda x: x[::-1, ::-1].swapaxes(0, 1), (0, -1, -1, 0)),
    (lambda x: np.rot90(x, -1), (0, -1, 1, 0)),
]


@pytest.mark.parametrize("number", range(len(ORIENTATIONS)))
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_turned_or_mirrored_file_is_shown_upright(tmp_path: Path, write_file: Writer, suffix: str, number: int):
    store, matrix = ORIENTATIONS[number]
    quadrants = np.array([[(0, 200, 0), (200, 0, 0)], [(240, 240, 240), (0, 0, 200)]], np.uint8)
    shown = quadrants.repeat(16, 0).repeat(24, 1)
    path = write_file(tmp_path / f"clip{suffix}", np.ascontiguousarray(np.stack([store(shown)] * 2)))
    path.write_bytes(_with_matrix(path.read_bytes(), *matrix))
    info = video.probe(path)
    assert (info.height, info.width) == (32, 48) == (lambda v: (v.height, v.width))(video.verify(path))
    for size in (None, (64, 96), (16, 24)):
        decoded = video.decode(path, size=size)
        height, width = size or (32, 48)
        assert decoded.shape == (2, height, width, 3)
        centres = decoded[:, height // 4 :: height // 2, width // 4 :: width // 2].astype(int)
        assert np.abs(centres - quadrants).max() < 24, centres[0]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize(
    ("aspect", "shown"),
    [((4, 3), (64, 128)), ((8, 9), (72, 96)), ((1, 1), (64, 96)), ((64, 45), (64, 137)), ((90, 1), (64, 96))],
)
def test_pixels_that_are_not_square_are_stretched(
    tmp_path: Path, suffix: str, aspect: tuple[int, int], shown: tuple[int, int]
):
    path = tmp_path / f"clip{suffix}"
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, 48:] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(*aspect)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))
    info = video.verify(path)
    assert (info.height, info.width) == shown and info == video.probe(path)
    decoded = video.decode(path)
    assert decoded.shape == (3, *shown, 3)
    assert decoded[:, :, : shown[1] // 2 - 3].max() < 20 and decoded[:, :, shown[1] // 2 + 3 :].min() > 235
    assert video.decode(path, size=(32, 32)).shape == (3, 32, 32, 3)
    cut = video.probe(transcode.cut(path, 1, 2, transcode.Recode()))
    assert (cut.height, cut.width) == tuple(side // 2 * 2 for side in shown)


@pytest.mark.parametrize("matrix", [(0.7071, 0.7071, -0.7071, 0.7071), (0.866, -0.5, 0.5, 0.866)])
def test_a_file_that_no_right_angle_turns_upright_is_refused_by_name(tmp_path: Path, matrix: tuple[float, ...]):
    path = tmp_path / "tilted.mp4"
    path.write_bytes(_with_matrix(video.encode(None, np.zeros((2, 32, 48, 3), np.uint8), 8), *matrix))
    for read in (video.probe, video.verify, video.decode):
        with pytest.raises(video.VideoError, match=r"tilted\.mp4: turned by (45|330) degrees, which is no right angle"):
            read(path)


def _with_matrix(data: bytes, a: float, b: float, c: float, d: float) -> bytes:
    """Return the file with another display matrix in its track's header (ISO 14496-12, 8.3.2)."""
    data = bytearray(data)
    ones = [round(value * 2**16) for value in (a, b, 0, c, d, 0, 0, 0)]
    matrix = np.array([*ones, 0x40000000], ">i4").tobytes()
    offset = data.index(b"tkhd") + 4 + 40
    data[offset : offset + len(matrix)] = matrix
    return bytes(data)


@pytest.mark.parametrize(("codec", "options"), [("libx264", {"bf": "2", "g": "6"}), ("mpeg4", {"g": "6"})])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_the_frames_of_an_avi_are_shown_at_their_slots(tmp_path: Path, codec: str, options: dict, step: int):
    """Slots between them are empty: the container has a rate of 60, of which every `step`-th frame is there."""
    path, slots = tmp_path / "clip.avi", range(0, 24 * step, step)
    frames = np.linspace(40, 200, len(slots)).astype(np.uint8)[:, None, None, None] * np.ones((1, 32, 48, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=60, options=options)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 60)
        for slot, pixels in zip(slots, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels)
            frame.pts, frame.time_base = slot, Fraction(1, 60)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info = video.verify(path)
    assert info == video.probe(path)
    assert (info.frames, info.fps) == (24, pytest.approx(60 / step))
    decoded = video.decode_clip(path, fps=60 / step, frames=24)
    assert np.abs(decoded.astype(int) - frames).max() < 16
    late = video.decode_clip(path, fps=60 / step, frames=12, start_seconds=12 * step / 60)
    assert np.array_equal(late, decoded[12:])


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the video of ../shared/cases")
def test_an_avi_that_is_whole_is_read_whole():
    info = video.verify(CASES / "h264b.avi")
    assert (info.frames, info.seconds, info.fps) == (120, 4.0, 30.0)


@pytest.mark.parametrize("params", ["bframes=3:b-pyramid=normal", "bframes=8:b-adapt=0:open-gop=1", "bframes=0"])
def test_every_window_is_the_slice_of_the_whole(tmp_path: Path, drifting: np.ndarray, write_file: Writer, params: str):
    """Check for all kinds of prediction between frames, and for frames that are skipped before the window."""
    path = write_file(tmp_path / "clip.mp4", drifting, options={"g": "12", "x264-params": params})
    frames = video.decode(path)
    assert len(frames) == 36
    for start in range(34):
        assert np.array_equal(video.decode(path, start, 3), frames[start : start + 3]), start


@pytest.mark.parametrize("name", ["hiker.mp4", "nasa_13013.mp4"])
def test_real_footage_verifies_and_seeks_exactly(real_clips: Path, name: str):
    clip = real_clips / name
    info = video.verify(clip)
    assert video.probe(clip) == info
    size = (36, 64)
    everything = video.decode(clip, size=size)
    assert len(everything) == info.frames
    for start in (0, info.frames // 2, info.frames - 2):
        assert np.array_equal(video.decode(clip, start, 2, size=size), everything[start : start + 2])
    step = round(info.fps / 5)
    sampled = video.decode_clip(clip, fps=info.fps / step, frames=5, start_seconds=9 / info.fps, size=size)
    assert np.array_equal(sampled, everything[9 : 9 + 5 * step : step])


def test_damage_inside_a_file_is_found():
    rng = np.random.default_rng(0)
    data = bytearray(video.encode(None, rng.integers(0, 256, (8, 64, 64, 3), np.uint8), 8))
    middle = len(data) // 2
    data[middle:] = bytes(len(data) - middle)
    with pytest.raises(video.VideoError, match=r"^noise: "):
        video.verify(bytes(data), name="noise")


@pytest.mark.parametrize("content", [b"", b"these are words, not pictures\n" * 100])
def test_what_is_no_video_says_so(tmp_path: Path, content: bytes):
    (tmp_path / "fake.mp4").write_bytes(content)
    for read in (video.probe, video.verify, video.decode):
        with pytest.raises(video.VideoError, match=r"fake\.mp4: not readable as a video"):
            read(tmp_path / "fake.mp4")
        with pytest.raises(video.VideoError, match=f"a video of {len(content)} bytes: not readable"):
            read(content)


def test_a_missing_file_says_so():
    with pytest.raises(video.VideoError, match=r"nowhere\.mp4: .*No such file"):
        video.probe("nowhere.mp4")


def test_frames_beyond_the_end_are_refused(numbered: Frames):
    data = video.encode(None, numbered(9), 8)
    with pytest.raises(video.VideoError, match="x: has 9 frames, cannot give 5 from frame 5 on"):
        video.decode(data, 5, 5, name="x")
    with pytest.raises(video.VideoError, match="has 9 frames"):
        video.decode(data, -1, 2)
    with pytest.raises(video.VideoError, match=r"the last frame is at 1\.000 s"):
        video.decode_clip(data, fps=8, frames=9, start_seconds=0.5)


@pytest.mark.parametrize("turned", [False, True])
def test_a_part_of_the_frames_is_written_where_it_belongs(turned: bool):
    noise = np.random.default_rng(0).integers(0, 256, (5, 36, 50, 3), np.uint8)
    clip = video.encode(None, noise, 8)
    clip = _with_matrix(clip, 0, 1, -1, 0) if turned else clip
    frames, window = video.decode(clip), {"fps": 16, "frames": 9}  # frames are taken twice
    buffer = np.zeros((9, 21, 40, 3), np.uint8)
    out = buffer[:, :, 2:33]
    assert video.decode_clip(clip, crop=(3, 4, 21, 31), out=out, **window) is out
    np.testing.assert_array_equal(out, frames[[0, 0, 1, 1, 2, 2, 3, 3, 4], 3:24, 4:35])
    assert not buffer[:, :, :2].any() and not buffer[:, :, 33:].any()
    with pytest.raises(ValueError, match=r"a: 9 frames of 21 x 31 do not fit out, \(9, 20, 31, 3\)"):
        video.decode_clip(clip, crop=(3, 4, 21, 31), out=out[:, :20], name="a", **window)


def test_decoding_does_not_touch_the_file(tmp_path: Path, numbered: Frames):
    data = video.encode(tmp_path / "a.mp4", numbered(5), 8)
    video.decode(tmp_path / "a.mp4")
    assert hashlib.sha256((tmp_path / "a.mp4").read_bytes()).digest() == hashlib.sha256(data).digest()


def test_pictures_are_served_as_a_file_of_them_is(numbered: Callable[..., np.ndarray], tmp_path: Path) -> None:
    frames = numbered(20, 32, 48)
    data = video.encode(None, frames, 8)
    stored = video.decode(data)
    for window in ({"fps": 8, "frames": 20}, {"fps": 5, "frames": 9, "start_seconds": 0.7}, {"fps": 24, "frames": 30}):
        np.testing.assert_array_equal(video.resample_pictures(stored, 8.0, **window), video.decode_clip(data, **window))
    for start, count in ((-0.1, 3), (0.0, 22)):
        with pytest.raises(video.VideoError, match="a clip of 20 pictures: "):
            video.resample_pictures(stored, 8.0, fps=8, frames=count, start_seconds=start)


def test_pictures_are_scaled_by_their_areas() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 60, 3), np.uint8)
    scaled = video.resample_pictures(frames, 8.0, fps=8, frames=3, size=(16, 20))
    means = frames.reshape(3, 16, 2, 20, 3, 3).mean((2, 4))
    assert np.abs(scaled - means).max() <= 1


MALLINFO2 = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]


class Mallinfo2(ctypes.Structure):
    """What glibc says of its heaps."""

    _fields_: ClassVar = [(name, ctypes.c_size_t) for name in MALLINFO2]


def bytes_in_use() -> int:
    """Return the bytes that C code has allocated and not freed."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        pytest.skip("the C library does not tell what is allocated: it is not glibc 2.33 or later")
    mallinfo2.restype = Mallinfo2
    gc.collect()
    return mallinfo2().uordblks


def test_a_decoded_clip_leaves_no_memory_behind(clip: Path):
    data, calls, growth = clip.read_bytes(), 12, []
    for _ in range(3):
        before = bytes_in_use()
        for _ in range(calls):
            video.decode_clip(data, fps=8, frames=1, start_seconds=0.5)
        growth.append((bytes_in_use() - before) / calls)
    assert min(growth) < 50, "what is allocated once is in one of them, what is lost at every call in all"
