"""Input larger than it says or than memory: texts, tables, frames and pictures are refused by name, within limits."""

import io
import tracemalloc
from fractions import Fraction
from functools import cache

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from videodit_data import caption_files, video
from videodit_data.boundary.input_files import MOST_TEXT
from videodit_data.footage import measure
from videodit_data.ingest import ingest
from videodit_data.reading.sample import ClipShape, decode_pixels
from videodit_data.storage.records import Record
from videodit_data.video import VideoError, opening
from videodit_data.video.pictures import opened_picture

SIDE = 9000  # of frames that are too large: 81 million pixels
TWICE = 12000  # of frames that FFmpeg itself refuses then


@pytest.fixture
def no_large_memory():
    """Fail when Python's own objects, arrays included, take 64 MiB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


def sparse(path, size, head=b""):
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)


def test_caption_files_of_any_size_cost_only_their_clip(numbered, tmp_path, no_large_memory):
    data = video.encode(None, numbered(2), 8)
    sizes = {"fits.txt": MOST_TEXT, "over.txt": MOST_TEXT + 1, "huge.txt": 2**32, "huge.json": 2**32}
    folder = tmp_path / "in"
    folder.mkdir()
    for name, size in sizes.items():
        if name == "fits.txt":
            (folder / name).write_bytes(b"a field".ljust(size))
        else:
            sparse(folder / name, size, b'{"caption": "a')
        (folder / name).with_suffix(".mp4").write_bytes(data)
    (folder / "json.json").write_bytes((folder / "over.txt").read_bytes())
    (folder / "json.mp4").write_bytes(data)
    dataset = ingest(folder, tmp_path / "set")
    reasons = {item.file: item.reason for item in dataset.left_out}
    assert dataset.clips == 1 and reasons.keys() == {"over.mp4", "huge.mp4", "json.mp4"}
    assert all("cannot be used: it has more than 1048576 bytes" in reason for reason in reasons.values())


ROWS = {
    "one line": (b'{"file": "a.mp4", "caption": "', 1),
    "an open quote": (b'file,caption\na.mp4,"', 2),
    "a long head": (b"file,caption,", 1),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_row_of_a_gigabyte_is_refused_by_its_line(case, tmp_path, no_large_memory):
    head, line = ROWS[case]
    table = tmp_path / ("t.jsonl" if head.startswith(b"{") else "t.csv")
    sparse(table, 2**30, head)
    with pytest.raises(ValueError, match=rf"{table.name}, line {line}: a row of more than 67108864 characters"):
        caption_files.read_table(table)


def test_a_row_of_many_lines_is_odd_and_many_rows_are_read(tmp_path, no_large_memory):
    table = tmp_path / "t.csv"
    table.write_text(
        "file,caption," + ",".join("abcdefghi") + "\n" + ('"' + "y" * 60_000 + "\n") + ("z" * 60_000 + '","\n') * 40
    )
    rows = []
    with pytest.raises(ValueError, match="no row names a file"):
        for row in caption_files.read_rows(table):
            rows.append(row)
    first, *others = rows
    assert "line 2 of t.csv: a row of more than 1048576 characters" in first.reason and others
    assert all(isinstance(row, caption_files.OddRow) and len(row.reason + (row.file or "")) < 200 for row in others)
    table.write_text("file,caption\n" + "".join(f'{n}.mp4,"{"a word " * 700}\nline"\n' for n in range(400)))
    assert len(caption_files.read_table(table)[0]) == 400


def png(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "PNG")
    return file.getvalue()


def gif(side: int) -> bytes:
    """Return a small GIF that declares a screen of that side."""
    file = io.BytesIO()
    Image.new("P", (8, 8)).save(file, "GIF")
    data = bytearray(file.getvalue())
    data[6:10] = side.to_bytes(2, "little") * 2
    return bytes(data)


@cache
def jpeg(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "JPEG")
    return file.getvalue()


def mjpeg(sides: list[int]) -> bytes:
    """Return an AVI of JPEG frames, which declares 64 x 64."""
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mjpeg", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        for number, side in enumerate(sides):
            packet = av.Packet(jpeg(side))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 8)
            container.mux(packet)
    return file.getvalue()


def h264(sides: list[int]) -> bytes:
    """Return a raw stream that changes its size."""
    data = b""
    for side in sides:
        codec = av.CodecContext.create("libx264", "w")
        codec.width = codec.height = side
        codec.pix_fmt, codec.time_base, codec.framerate = "yuv420p", Fraction(1, 8), Fraction(8)
        codec.options = {"preset": "ultrafast", "threads": "1"}
        frame = av.VideoFrame(side, side, "yuv420p")
        frame.pts = 0
        data += b"".join(map(bytes, [*codec.encode(frame), *codec.encode(None)]))
    return data


@pytest.fixture(scope="module")
def bombs():
    return {
        "png": png(SIDE),
        "gif": gif(SIDE),
        "mjpeg, first": mjpeg([SIDE, 64]),
        "mjpeg, later": mjpeg([64, 64, SIDE]),
        "mjpeg, twice": mjpeg([64, TWICE]),
        "png, twice": png(TWICE),
        "h264, later": h264([64, SIDE // 16 * 16]),
    }


@pytest.mark.parametrize(
    "kind", ["png", "gif", "mjpeg, first", "mjpeg, later", "mjpeg, twice", "png, twice", "h264, later"]
)
@pytest.mark.parametrize("function", [video.verify, video.decode])
def test_frames_are_limited_by_what_is_decoded(kind, function, bombs):
    with pytest.raises(VideoError, match=r"^bomb: frames of .* pixels"):
        function(bombs[kind], name="bomb")
    assert len(video.decode(bombs["mjpeg, later"], 0, 2)) == 2  # what comes before is sound


def test_the_limit_is_the_callers(numbered):
    data = video.encode(None, numbered(3, 32, 48), 8)
    assert video.verify(data, most_pixels=32 * 48).frames == 3
    with pytest.raises(VideoError, match="frames of 48 x 32 are more than 1535 pixels"):
        video.verify(data, most_pixels=32 * 48 - 1)


def test_the_number_of_frames_is_limited(numbered, monkeypatch):
    data = video.encode(None, numbered(6), 8)
    assert video.verify(data, most_frames=6).frames == 6
    with pytest.raises(VideoError, match=r"^clip: more than 5 frames"):
        video.verify(data, most_frames=5, name="clip")
    with opening.opened(data, "clip") as clip:
        assert len(opening.timeline_of(clip, 6).ticks) == 6
    with opening.opened(data, "clip") as clip, pytest.raises(VideoError, match=r"^clip: more than 5 frames"):
        opening.timeline_of(clip, 5)


LIES = {
    "flat": ({"height": 1, "width": 10**9}, "frames scaled to .* are more than"),
    "tall": ({"height": 10**12, "width": 1}, "frames scaled to .* are more than"),
    "long": ({"frames": 10**9}, "the last frame is at"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_record_that_lies_is_refused_before_memory_is_taken(lie, numbered, no_large_memory):
    change, message = LIES[lie]
    facts = {"fps": 8.0, "height": 32, "width": 48, "frames": 6} | change
    record = Record("r", video.encode(None, numbered(6), 8), ("a",), source="", licence="", sha256="", **facts)
    rng = None if lie != "long" else np.random.default_rng(0)
    with pytest.raises(VideoError, match=f"clip r: .*{message}"):
        decode_pixels(record, ClipShape(2, 32, 48, 8.0), rng)


def test_an_array_of_frames_is_limited(numbered, monkeypatch):
    data = video.encode(None, numbered(6), 8)
    monkeypatch.setattr(video.frames, "MOST_PIXELS_AT_ONCE", 6 * 32 * 48 - 1)
    assert len(video.decode(data, 0, 5)) == 5
    with pytest.raises(VideoError, match="6 frames of 48 x 32 are more than"):
        video.decode(data)


@pytest.mark.parametrize("data", [png(SIDE), png(20000), gif(SIDE)], ids=["large", "bomb", "gif"])
def test_pictures_are_limited(data):
    with pytest.raises(VideoError, match="more than 67108864 pixels"), opened_picture(data) as picture:
        picture.load()


def test_no_program_is_run_for_a_picture(tmp_path):
    (tmp_path / "x.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n")
    with pytest.raises(VideoError, match="no picture of a known format"), opened_picture(str(tmp_path / "x.png")):
        pass


@pytest.mark.parametrize("height", [16, 20, 24, 31, 32, 33])
def test_motion_of_pictures_of_any_shape_is_measured(height):
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    rng = np.random.default_rng(0)
    for width in (16, 48, 79, 80, 81, 120, 200, 400, 900, 2**14):
        before = rng.integers(0, 255, (height, width), np.uint8)
        for one, two in ((before, np.roll(before, 1, 1)), (before.T.copy(), np.roll(before, 1, 1).T.copy())):
            flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
            assert np.isfinite(measure.motion(one, two, 0.1, flow))
    tiny = np.zeros((15, 64), np.uint8)
    with pytest.raises(ValueError, match="16 pixels a side or more, not 15 x 64"):
        measure.motion(tiny, tiny, 0.1, flow)
