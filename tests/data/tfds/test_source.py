"""Data sets of TFDS, of many kinds, served by our loader: each clip as it is stored, or dropped by name."""

import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from videodit_data import toyworld, video
from videodit_data.formats import open_dataset
from videodit_data.reading.batch_iterator import BatchIterator
from videodit_data.reading.buckets import Buckets, TokenSize
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.sample import ClipShape, decode_pixels
from videodit_data.reading.text_inputs import TokenizedText
from videodit_data.storage import manifest
from videodit_data.storage.shard_check import ChangedShard, ShardCheck
from videodit_data.tfds import fields as tfds_fields
from videodit_data.tfds import index as tfds_index
from videodit_data.tfds.export import export
from videodit_data.tfds.paths import DatasetFiles
from videodit_data.tfds.reader import in_words
from videodit_data.tokenizer import NoTokenizer

from tests.data.mutations import mutate, to_json
from tests.data.tfds.sets import png, video_feature, write
from videodit.cli import main

ANY, TEXT = (None, None, None, 3), tfds.features.Text()
BUCKETS = Buckets(resolutions=(32,), aspects=(1.0,), frames=(5, 9), fps=8.0, tokens=64, token=TokenSize(4, 16))


def clip(count: int, height: int = 16, width: int = 24, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), np.uint8)


def pngs(frames: np.ndarray) -> list[bytes]:
    return [png(frame) for frame in frames]


@pytest.fixture(scope="module")
def our_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ours") / "toy"
    toyworld.build(directory, clips=11, level="easy", height=32, width=32, frames=9, shards=2)
    return directory


@pytest.fixture(scope="module")
def tfds_path(tmp_path_factory: pytest.TempPathFactory, our_path: Path) -> str:
    """Write the same clips as TFDS stores videos; returns their path."""
    examples = [
        {
            "clip": {"video": pngs(video.decode(record.video)), "name": record.id},
            "captions": list(record.captions),
            "place": number,
        }
        for number, record in enumerate(manifest.records(our_path))
    ]
    captions = tfds.features.Sequence(TEXT)
    features = {"clip": {"video": video_feature(ANY), "name": TEXT}, "captions": captions, "place": np.int64}
    directory = write(tmp_path_factory.mktemp("theirs"), features, {"train": examples}, licence="CC0-1.0")
    return f"tfds:{directory}/train?fps=8&caption=captions&id=clip/name"


def loader(path: Path | str, **changes: Any) -> BatchIterator:
    rows = changes.pop("rows", range)
    config = ReaderConfig((WeightedDataset(str(path)),), BUCKETS, seed=3, num_threads=2, **changes)
    return BatchIterator(config, TokenizedText(NoTokenizer(), 8), local_batch_indices=rows)


def same(one: Any, other: Any) -> None:
    assert (one.clip_ids, one.captions) == (other.clip_ids, other.captions)
    for name, value in one.arrays.arrays().items():
        np.testing.assert_array_equal(value, other.arrays.arrays()[name])


def test_batches_equal_those_of_our_shards(our_path: Path, tfds_path: str) -> None:
    our_batches, tfds_batches = loader(our_path), loader(tfds_path)
    for _ in range(8):  # more than two epochs
        same(next(our_batches), next(tfds_batches))
    our_batches.close(), tfds_batches.close()


def test_the_state_restores_exactly(tfds_path: str) -> None:
    straight, interrupted = loader(tfds_path), loader(tfds_path)
    for _ in range(3):
        next(straight), next(interrupted)
    state = json.loads(json.dumps(interrupted.get_state()))
    interrupted.close()
    resumed = loader(tfds_path)
    resumed.set_state(state)
    for _ in range(3):
        same(next(straight), next(resumed))
    other = loader(tfds_path.replace("fps=8", "fps=9"))
    with pytest.raises(ValueError, match="shards differ"):
        other.set_state(state)
    straight.close(), resumed.close()


def test_two_processes_see_each_clip_once(our_path: Path, tfds_path: str) -> None:
    once = {"shuffle": False, "repeat": False, "augment": False, "caption_dropout": 0.0}
    halves = [loader(tfds_path, rows=lambda n, half=half: range(half, n, 2), **once) for half in (0, 1)]
    clip_ids = [id for half in halves for batch in half for id in batch.clip_ids if id]
    assert sorted(clip_ids) == sorted(record.id for record in manifest.records(our_path))


def test_provenance(tfds_path: str) -> None:
    dataset = open_dataset(tfds_path)
    record = dataset.records[0]
    assert (record.source, record.licence) == ("tensorflow_datasets made/1.0.0", "CC0-1.0")
    assert dataset.manifest.origins == (manifest.Origin(record.source, record.licence, 11),)
    assert dataset.manifest.info["served"]["video"] == "clip/video"
    with pytest.raises(ValueError, match="single pictures"):
        record.pack()


def test_grey_frames_without_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Check the features of moving_mnist, also as an array that is not encoded."""
    frames = [clip(6, 16, 16, 1, seed) for seed in range(3)]
    for feature, values in (
        (video_feature((6, 16, 16, 1)), map(pngs, frames)),
        (tfds.features.Tensor(shape=(6, 16, 16, 1), dtype=np.uint8), iter(frames)),
        (tfds.features.Sequence(tfds.features.Image(shape=(None, None, 1))), map(pngs, frames)),
    ):
        directory = write(
            tmp_path / type(feature).__name__,
            {"image_sequence": feature},
            {"test": [{"image_sequence": v} for v in values]},
        )
        dataset = open_dataset(f"tfds:{directory}/test?fps=10")
        assert dataset.clips == [(6, 10.0, 16, 16)] * 3 and dataset.records[0].captions == ("",)
        assert "served with an empty caption" in caplog.text
        pixels = decode_pixels(dataset.records[1], ClipShape(5, 16, 16, 10.0))
        np.testing.assert_array_equal(pixels, np.repeat(frames[1][:5], 3, axis=-1))
    assert open_dataset(f"tfds:{directory}/test?fps=10&template=two digits").records[0].captions == ("two digits",)


def test_labels_in_a_template_and_clips_of_any_size(tmp_path: Path) -> None:
    """Check the features of ucf101."""
    names = ["ApplyEyeMakeup", "brush_hair"]
    features = {"video": video_feature(ANY), "label": tfds.features.ClassLabel(names=names)}
    frames = [clip(5 + n, 16 + 2 * n, 24 - n, seed=n) for n in range(4)]
    examples = [{"video": pngs(frames[n]), "label": (0, 1, 0, -1)[n]} for n in range(4)]
    directory = write(tmp_path, features, {"train": examples}, name="ucf")
    dataset = open_dataset(f"tfds:ucf/train?fps=8&data_dir={tmp_path}")
    assert dataset.clips == [(5, 8.0, 16, 24), (6, 8.0, 18, 23), (7, 8.0, 20, 22)]
    assert [record.captions[0] for record in (dataset.records[n] for n in range(3))] == [
        "a video of apply eye makeup",
        "a video of brush hair",
        "a video of apply eye makeup",
    ]
    for number, expected in enumerate(frames[:3]):
        np.testing.assert_array_equal(np.stack(list(dataset.records[number].pictures)), expected)
    assert [(item.file, item.reason) for item in dataset.manifest.left_out] == [
        ("ucf-train.array_record-00000-of-00001:3", "no caption")
    ]
    part = open_dataset(f"tfds:{directory}/train[25%:75%]?fps=8&template={{name}}, filmed")
    assert [part.records[n].captions[0] for n in range(2)] == ["brush_hair, filmed", "ApplyEyeMakeup, filmed"]
    assert [part.records[n].id for n in range(2)] == [dataset.records[n].id for n in (1, 2)]
    shards = {
        open_dataset(f"tfds:{directory}/train{rows}?fps=8").manifest.shards[0].sha256 for rows in ("", "[:2]", "[1:3]")
    }
    assert len(shards) == 3


@pytest.mark.parametrize(
    ("name", "words"), [("YoYo", "yo yo"), ("a_b", "a b"), ("TaiChi2Win", "tai chi2 win"), ("DIYTable", "diy table")]
)
def test_labels_in_words(name: str, words: str) -> None:
    assert in_words(name) == words


def test_frames_in_a_sequence_of_steps_and_images(tmp_path: Path) -> None:
    """Check the features of robots' episodes and of captioned images."""
    steps = tfds.features.Sequence({"image": tfds.features.Image(shape=ANY[1:]), "action": np.float32})
    frames = clip(5)
    examples = [{"steps": {"image": pngs(frames), "action": [0.0] * 5}, "task": "pick"}]
    directory = write(tmp_path, {"steps": steps, "task": TEXT}, {"train": examples}, name="robot")
    dataset = open_dataset(f"tfds:{directory}/train?fps=5")
    assert dataset.records[0].captions == ("pick",)
    np.testing.assert_array_equal(np.stack(list(dataset.records[0].pictures)), frames)
    examples = [{"image": png(frames[0]), "text": "a b"}]
    directory = write(tmp_path, {"image": tfds.features.Image(), "text": TEXT}, {"train": examples}, name="images")
    assert open_dataset(f"tfds:{directory}/train?fps=1").clips == [(1, 1.0, 16, 24)]


def test_what_cannot_be_served_is_left_out_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = pngs(clip(5))
    features = {"video": tfds.features.Sequence(TEXT), "texts": tfds.features.Sequence(TEXT), "key": TEXT}
    bad = {
        "no caption": (good, ["", " \n"]),
        "a caption is not UTF-8": (good, [b"\xff"]),
        "frames of different sizes": ([*good, png(clip(1, 8, 8)[0])], ["a"]),
        "picture 1 cannot be decoded (no picture of a known format)": ([good[0], b"no image"], ["a"]),
        "no frames": ([], ["a"]),
    }
    examples = [{"video": v, "texts": t, "key": f"bad {n}"} for n, (v, t) in enumerate(bad.values())]
    examples.insert(2, {"video": good, "texts": ["bell\x07"], "key": "good"})
    directory = write(tmp_path, features, {"train": examples})
    # The feature was written as text, which takes any bytes; now it is declared as a video.
    features_json = json.loads((directory / "features.json").read_text())
    shape = {"dimensions": ["-1", "-1", "-1", "3"]}
    features_json["featuresDict"]["features"]["video"] = {
        "pythonClassName": "tensorflow_datasets.core.features.video_feature.Video",
        "video": {"dtype": "uint8", "encodingFormat": "png", "shape": shape},
    }
    (directory / "features.json").write_text(json.dumps(features_json))
    dataset = open_dataset(f"tfds:{directory}/train?fps=8&caption=texts&id=key")
    assert [record.id for record in (dataset.records[n] for n in range(len(dataset.records)))] == ["good"]
    assert dataset.records[0].captions == ("bell",)
    assert [(item.file, item.reason) for item in dataset.manifest.left_out] == [
        (f"bad {n}", reason) for n, reason in enumerate(bad)
    ]
    assert all(f"1 of 6 clips are not served: {reason}" in caplog.text for reason in bad)


def test_a_damaged_record_is_left_out_by_name(tmp_path: Path) -> None:
    examples = [{"video": pngs(clip(5, seed=n)), "text": "a"} for n in range(3)]
    directory = write(tmp_path, {"video": video_feature(ANY), "text": TEXT}, {"train": examples})
    shard = next(directory.glob("*.array_record*"))
    data = bytearray(shard.read_bytes())
    data[9000] ^= 1  # of the second of three records of about 6 kB
    shard.write_bytes(data)
    dataset = open_dataset(f"tfds:{directory}/train?fps=8")
    (item,) = dataset.manifest.left_out
    assert item.file == f"{shard.name}:1" and "cannot be read" in item.reason
    for number, frames in enumerate((clip(5, seed=0), clip(5, seed=2))):
        np.testing.assert_array_equal(np.stack(list(dataset.records[number].pictures)), frames)


def test_a_cut_picture_is_an_error_that_names_the_clip(tmp_path: Path) -> None:
    pictures = pngs(clip(5))
    pictures[3] = pictures[3][:-200]  # the header, which the index reads, is whole
    directory = write(
        tmp_path, {"video": video_feature(ANY), "text": TEXT}, {"train": [{"video": pictures, "text": "a"}]}
    )
    record = open_dataset(f"tfds:{directory}/train?fps=8").records[0]
    with pytest.raises(video.VideoError, match=f"clip {record.id}: picture 3 cannot be decoded"):
        decode_pixels(record, ClipShape(5, 16, 24, 8.0))


def test_the_index_is_kept_until_the_files_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [{"video": pngs(clip(5, seed=n)), "text": "a"} for n in range(2)]
    directory = write(tmp_path, {"video": video_feature(ANY), "text": TEXT}, {"train": examples})
    path = f"tfds:{directory}/train?fps=8&index={tmp_path / 'index'}"
    scans: list[int] = []
    first = open_dataset(path)
    real = tfds_index._sha256
    monkeypatch.setattr(tfds_index, "_sha256", lambda file: scans.append(1) or real(file))
    reopened = open_dataset(path)
    assert reopened.manifest == first.manifest and not scans
    assert [file.name.startswith("videodit_index_") for file in (tmp_path / "index").iterdir()] == [True]
    os.utime(next(directory.glob("*.array_record*")), ns=(1, 1))
    assert open_dataset(path).manifest == first.manifest and scans == [1]
    index = next((tmp_path / "index").iterdir())
    index.write_text(index.read_text()[:100])
    assert open_dataset(path).manifest == first.manifest and scans == [1, 1]


def test_files_exchanged_behind_the_index_are_found_by_their_hashes(tmp_path: Path) -> None:
    """The index tells files by size and time: what has both is only found by reading it."""
    features = {"video": video_feature((None, 16, 24, 3)), "caption": tfds.features.Text()}
    directory = write(tmp_path, features, {"train": [{"video": pngs(clip(3)), "caption": "a cube"}]})
    path = f"tfds:{directory}/train?fps=8"
    assert ShardCheck([open_dataset(path)]).checked == 1
    (file,) = directory.glob("*.array_record*")
    before = file.stat()
    file.write_bytes(b"?" + file.read_bytes()[1:])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ChangedShard, match=rf"{file.name} has sha256"):
        ShardCheck([open_dataset(path)])


def test_an_index_that_cannot_be_kept_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    example = {"video": pngs(clip(5)), "text": "a"}
    directory = write(tmp_path, {"video": video_feature(ANY), "text": TEXT}, {"train": [example]})
    (tmp_path / "file").write_text("")
    assert len(open_dataset(f"tfds:{directory}/train?fps=8&index={tmp_path / 'file'}").clips) == 1
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("ucf101", "names no split"),
        ("{directory}/train", "how many frames a second"),
        ("{directory}/train?fps=fast", "a number above 0 like .fps=25, not 'fast'"),
        (
            "{directory}/train?fps=8",
            r"several features can be the caption.*one \(Text\), two \(Text\), video \(Video\)",
        ),
        ("{directory}/train?fps=8&captoin=one", "captoin is no option.*is caption meant"),
        ("{directory}/train?fps=8&caption=three", "'three' is not a feature that can be a caption"),
        ("{directory}/train?fps=8&caption=one&video=two", "'two' is not a feature that can be the video"),
        ("{directory}/train?fps=8&caption=one&template=a {{label}}", "the template is for labels"),
        ("{directory}/train?fps=8&caption=one&template=a {{x}}", "nothing else in braces"),
        ("{directory}/train?fps=8&caption=one&id=two", "two clips have the id 'same'"),
        ("{directory}/heldout?fps=8", "no split 'heldout'; there are train"),
        ("nowhere/train?fps=8&data_dir=/nowhere", "No TFDS data set at nowhere"),
    ],
)
def test_users_mistakes(two_texts: Path, path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_dataset("tfds:" + path.format(directory=two_texts))


@pytest.fixture(scope="module")
def two_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    examples = [{"video": pngs(clip(5)), "one": f"a {n}", "two": "same"} for n in range(2)]
    features = {"video": video_feature(ANY), "one": TEXT, "two": TEXT}
    return write(tmp_path_factory.mktemp("two"), features, {"train": examples})


def test_several_captions(two_texts: Path) -> None:
    dataset = open_dataset(f"tfds:{two_texts}/train?fps=8&caption=two+one")
    assert [dataset.records[n].captions for n in range(2)] == [("same", "a 0"), ("same", "a 1")]


def test_what_is_not_array_record_is_refused(tmp_path: Path, two_texts: Path) -> None:
    for file, change in (("dataset_info.json", ('"array_record"', '"tfrecord"')), ("features.json", ("{", ""))):
        (copy := tmp_path / file.partition(".")[0]).mkdir()
        for each in two_texts.iterdir():
            text = each.read_bytes()
            (copy / each.name).write_bytes(text.replace(*map(str.encode, change), 1) if each.name == file else text)
        with pytest.raises(ValueError, match=r"prepared as tfrecord|features.json: not JSON"):
            open_dataset(f"tfds:{copy}/train?fps=8&caption=one")


def test_what_is_ours_is_named_as_ours(our_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"a data set of ours: name {our_path.resolve()} without 'tfds:'"):
        open_dataset(f"tfds:{export(our_path, root=tmp_path)}/train?fps=8")


def test_without_the_package_it_is_named(two_texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'videodit\[tfds\]'"):
        open_dataset(f"tfds:{two_texts}/train?fps=8&caption=one")


_ELSEWHERE = """
import pickle, sys
from pathlib import Path

from videodit_data.formats import open_dataset
assert "tensorflow_datasets" not in sys.modules
records = pickle.loads(Path(sys.argv[1]).read_bytes())
found = open_dataset(sys.argv[2])
assert [(a.id, a.captions, [p.tobytes() for p in a.pictures]) for a in (found.records[n] for n in range(3))] == [
    (a.id, a.captions, [p.tobytes() for p in a.pictures]) for a in (records[n] for n in range(3))]
import warnings
warnings.filterwarnings("ignore", "label", DeprecationWarning)  # TFDS's own
import tensorflow_datasets as tfds
from PIL import Image
from videodit_data.tfds.export import export
assert tfds.builder_from_directory(export(sys.argv[3])).as_data_source("train")[0]["video"].shape == (9, 32, 32, 3)
import importlib.util
assert importlib.util.find_spec("tensorflow") is not None and "tensorflow" not in sys.modules
"""


def test_tensorflow_is_not_imported_where_it_is_and_records_go_to_other_processes(
    tfds_path: str, our_path: Path, tmp_path: Path
) -> None:
    """Check with a module that records its import and fails, instead of TensorFlow."""
    poison, records = tmp_path / "poison" / "tensorflow" / "__init__.py", tmp_path / "records"
    poison.parent.mkdir(parents=True)
    poison.write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\nraise AssertionError('imported')\n")
    records.write_bytes(pickle.dumps(open_dataset(tfds_path).records))
    command = [sys.executable, "-W", "error", "-c", _ELSEWHERE, str(records), tfds_path, str(our_path)]
    paths = os.pathsep.join([str(tmp_path / "poison"), *sys.path])
    process = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    assert process.returncode == 0, process.stderr
    assert not (tmp_path / "imported").exists()


def test_commands_take_them(tfds_path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", tfds_path, "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert "tensorflow_datasets made/1.0.0 (CC0-1.0): 11" in capsys.readouterr().out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 900
    shapes = ["--resolutions", "32", "--frames", "5,9", "--fps", "8", "--aspects", "1:1", "--tokens", "64"]
    assert main(["data", "buckets", tfds_path, *shapes]) == 0
    assert "every clip is served" in capsys.readouterr().out
    assert main(["data", "inspect", "tfds:nowhere/train?fps=8"]) == 2
    assert "No TFDS data set at nowhere" in capsys.readouterr().err


def test_descriptions_of_wrong_types_are_refused_by_file(two_texts: Path, tmp_path: Path) -> None:
    copy, rng, refused = tmp_path / "copy", random.Random("tfds"), 0
    shutil.copytree(two_texts, copy)
    for name in ("dataset_info.json", "features.json"):
        document = json.loads((two_texts / name).read_text())
        for _ in range(60):
            (copy / name).write_text(to_json(mutate(document, rng)[1]))
            try:
                files = DatasetFiles.read(copy, "train", "tfds:copy/train")
                tfds_fields.choose(tfds_fields.fields(files.features), "", ("one",), "")
            except ValueError as error:
                refused += 1
                assert str(error).isprintable() and re.search(r"copy|features\.json|feature", str(error)), error
            else:
                assert [(part.skip, part.take) for part in files.parts] == [(0, 2)]
        (copy / name).write_text(json.dumps(document))
    assert refused > 40
    (copy / "one.labels.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"one\.labels\.txt: not UTF-8"):
        DatasetFiles.read(copy, "train", "tfds:copy/train")
    (copy / "one.labels.txt").unlink()
    text = (copy / "dataset_info.json").read_text()
    assert '"2"' in text
    for lie in ('"5"', '"1000000000000"'):
        (copy / "dataset_info.json").write_text(text.replace('"2"', lie, 1))
        with pytest.raises(ValueError, match=r"dataset_info\.json has examples 0 to \d+ of .*, which holds 2"):
            DatasetFiles.read(copy, "train", "tfds:copy/train")
