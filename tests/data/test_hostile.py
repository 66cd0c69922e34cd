"""Files made to break readers: each is refused by name or read correctly, within limits, and affects no other file."""

import os
import random
import re
import signal
import wave

import numpy as np
import pytest
from videodit_data import video
from videodit_data.ingest import ingest
from videodit_data.reading.batch_iterator import BatchIterator
from videodit_data.reading.buckets import Buckets
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import TokenizedText
from videodit_data.storage import manifest, records
from videodit_data.tokenizer import NoTokenizer
from videodit_data.video import VideoError
from videodit_data.video.isolate import Isolated, Limits, Verifier

KINDS = {
    "mp4": ("libx264", "yuv420p"),
    "mkv": ("libx264", "yuv420p"),
    "webm": ("libvpx", "yuv420p"),
    "avi": ("mpeg4", "yuv420p"),
    "gif": ("gif", "rgb8"),
    "mov": ("mjpeg", "yuvj420p"),
}
CASES = 192  # of each kind
FRAMES = 12


@pytest.fixture(scope="module")
def verifier():
    with Verifier(Limits(seconds=20, mebibytes=2048, pixels=2**22)) as verifier:
        yield verifier


@pytest.fixture(scope="module")
def intact_files(numbered, write_file, tmp_path_factory):
    """Write one intact file of each kind."""
    root = tmp_path_factory.mktemp("whole")
    frames = numbered(FRAMES)
    frames[:, 8:24, 8:24] = np.random.default_rng(0).integers(0, 255, (FRAMES, 16, 16, 3), np.uint8)
    return {kind: write_file(root / f"clip.{kind}", frames, *how) for kind, how in KINDS.items()}


def damage(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Return the kind of damage, and the damaged bytes."""
    how = rng.choice(["cut", "flip", "zero", "insert", "remove", "noise"])
    bad, at, length = bytearray(data), rng.randrange(len(data)), rng.choice([1, 8, 64, 512])
    if how == "cut":
        return how, data[:at]
    if how == "flip":
        for _ in range(rng.choice([1, 1, 4, 64])):
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    elif how == "zero":
        bad[at : at + length] = bytes(len(bad[at : at + length]))
    elif how == "insert":
        bad[at:at] = rng.randbytes(length)
    elif how == "remove":
        del bad[at : at + length]
    else:
        bad[at : at + length] = rng.randbytes(len(bad[at : at + length]))
    return how, bytes(bad)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_by_name_or_read_whole(kind, intact_files, verifier, tmp_path):
    data, rng = intact_files[kind].read_bytes(), random.Random(kind)
    expected, outcomes = video.decode(data), {"refused": 0, "read": 0}
    for case in range(CASES):
        how, bad = damage(data, rng)
        path = tmp_path / f"{case}.{kind}"
        path.write_bytes(bad)
        try:
            info = verifier(path, name=path.name)
        except VideoError as error:
            assert str(error).startswith(path.name) and "\n" not in str(error)
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        try:
            frames = video.decode(path)
        except VideoError as error:
            assert path.name in str(error)
            continue
        assert frames.shape == (len(frames), info.height, info.width, 3)
        if how == "cut":  # nothing but what comes after the frames
            np.testing.assert_array_equal(frames, expected)
    assert outcomes["refused"] >= CASES // 8 and sum(outcomes.values()) == CASES


def test_what_is_no_video_is_refused(verifier, intact_files, tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a film " * 1000)
    (tmp_path / "noise.webm").write_bytes(random.Random(0).randbytes(100_000))
    with wave.open(str(tmp_path / "sound.avi"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    large = bytearray(intact_files["gif"].read_bytes())
    large[6:10] = b"\x00\x20\x00\x20"
    (tmp_path / "large.gif").write_bytes(large)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(VideoError, match=path.name):
            verifier(path, name=path.name)
    with pytest.raises(VideoError, match="frames of 8192 x 8192 are more than"):
        verifier(tmp_path / "large.gif", name="large.gif")


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile 'whole.mp4'\n", "#EXTM3U\n#EXTINF:5,\nwhole.mp4\n"])
def test_a_playlist_in_disguise_opens_no_other_file(text, intact_files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "whole.mp4").write_bytes(intact_files["mp4"].read_bytes())
    (tmp_path / "list.mp4").write_text(text)
    for source in (tmp_path / "list.mp4", text.encode()):
        with pytest.raises(VideoError, match="not readable as a video"):
            video.verify(source)


def test_a_wrong_extension_does_not_matter(verifier, intact_files, tmp_path):
    for kind, other in (("mp4", "gif"), ("gif", "mkv"), ("webm", "avi")):
        path = tmp_path / f"{kind}.{other}"
        path.write_bytes(intact_files[kind].read_bytes())
        assert verifier(path).frames == FRAMES


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [("ffv1", "yuv444p10le"), ("ffv1", "gray"), ("ffv1", "bgra"), ("libx264", "yuv422p"), ("ffv1", "yuv411p")],
)
def test_odd_pixel_formats_are_read(codec, pix_fmt, write_file, numbered, numbers, verifier, tmp_path):
    path = write_file(tmp_path / "odd.mkv", numbered(6), codec, pix_fmt)
    assert verifier(path).frames == 6
    assert numbers(video.decode(path)) == list(range(6))


def test_what_takes_too_long_or_dies_costs_only_itself(verifier, intact_files, tmp_path):
    endless = tmp_path / "endless.mp4"
    os.mkfifo(endless)
    with Isolated("tests.data.video.isolated:read_bytes", Limits(seconds=2)) as impatient:
        with pytest.raises(VideoError, match=r"endless.mp4: takes longer than 2 seconds"):
            impatient(endless, name="endless.mp4")
        assert impatient(intact_files["mp4"]) == intact_files["mp4"].read_bytes()
    with Verifier() as impatient:
        assert impatient(intact_files["mp4"]).frames == FRAMES
        impatient._all[0]._process.send_signal(signal.SIGSEGV)
        with pytest.raises(VideoError, match=r"clip.mp4: the decoder ended itself \(SIGSEGV\)"):
            impatient(intact_files["mp4"], name="clip.mp4")
        assert impatient(intact_files["mp4"]).frames == FRAMES
        impatient._all[0]._process.kill()  # as the machine does when memory is short: tried once more
        assert impatient(intact_files["mp4"]).frames == FRAMES


def test_a_process_without_memory_says_so_or_ends(numbered, write_file, tmp_path):
    path = write_file(tmp_path / "wide.mkv", numbered(4, 2160, 3840), "ffv1")
    with Verifier(Limits(mebibytes=300)) as poor, pytest.raises(VideoError, match=r"wide.mkv"):
        poor(path, name="wide.mkv")
    with Verifier() as rich:
        assert rich(path).frames == 4


CAPTIONS = {
    "empty": (b"", "no caption"),
    "blank": (b"\n \n\t\n", "no caption"),
    "not UTF-8": (b"\xff\xfe\xfa\x00", "cannot be used"),
    "control characters": (b"a fox\x00\x07\x1b[31m runs\r\n", ["a fox   [31m runs"]),
    "100 kB": (b"word " * 20_000, ["word " * 19_999 + "word"]),
    "good": (b"a field", ["a field"]),
}


def test_hostile_captions_are_left_out_by_name_or_made_plain(intact_files, tmp_path):
    folder = tmp_path / "from"
    folder.mkdir()
    for name, (text, _) in CAPTIONS.items():
        (folder / f"{name}.mp4").write_bytes(intact_files["mp4"].read_bytes())
        (folder / f"{name}.txt").write_bytes(text)
    dataset = ingest(folder, tmp_path / "set")
    reasons = {item.file.removesuffix(".mp4"): item.reason for item in dataset.left_out}
    captions = {record.id.removesuffix(".mp4"): list(record.captions) for record in manifest.records(tmp_path / "set")}
    assert reasons.keys() | captions.keys() == CAPTIONS.keys()
    for name, (_, expected) in CAPTIONS.items():
        assert expected in reasons[name] if isinstance(expected, str) else captions[name] == expected


def test_damaged_shards_are_never_read_wrong(data_set, tmp_path):
    directory = data_set(tmp_path / "set", [5, 9, 12, 17] * 6)
    shard = next(directory.glob("*.array_record"))
    data, rng = shard.read_bytes(), random.Random(0)
    expected = [records.RecordSource([shard])[n] for n in range(24)]
    refused = 0
    for _ in range(60):
        bad = tmp_path / "bad.array_record"
        bad.write_bytes(damage(data, rng)[1])
        try:
            source = records.RecordSource([bad])
            assert len(source) == 24
        except ValueError as error:
            assert re.search(r"bad\.array_record: a shard is damaged", str(error))
            refused += 1
            continue
        for number in range(24):
            try:
                assert source[number] == expected[number]
            except ValueError as error:
                assert "a shard is damaged" in str(error)
    assert refused > 10


def test_a_manifest_that_lies_is_caught_where_it_matters(data_set, tmp_path):
    directory = data_set(tmp_path / "set", [9, 9])
    file = directory / manifest.FILE
    text = file.read_text()
    buckets = Buckets(resolutions=(32,), aspects=(1.5,), frames=(9, 17), fps=8.0, tokens=100)
    config = ReaderConfig((WeightedDataset(str(directory)),), buckets, caption_dropout=0.0).as_evaluation()
    lie = re.sub(r'"frames": \[9, 9\]', '"frames": [9, 17]', text)
    file.write_text(lie)
    with pytest.raises(ValueError, match=r"manifest\.json .*: counts\.frames is 18, but the shards have 26"):
        manifest.load(directory)
    file.write_text(lie.replace('"frames": 18, "seconds": 2.25', '"frames": 26, "seconds": 3.25'))
    with pytest.raises(VideoError, match=r"clip clip-001: 17 frames at 8 a second .* the last frame is at 1.000 s"):
        list(BatchIterator(config, TokenizedText(NoTokenizer())))
    file.write_text(re.sub(r'"bytes": (\d+)', '"bytes": 5', text))  # counted and of its one shard
    with pytest.raises(ValueError, match=r"is damaged: .* bytes, not 5"):
        manifest.load(directory)
    file.write_text(text.replace('"heights": [32, 32]', '"heights": [32]'))
    with pytest.raises(ValueError, match="not a manifest that this version can read"):
        manifest.load(directory)
