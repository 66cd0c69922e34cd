"""TensorFlow Datasets opens our data sets as they are: the same clips, in any order, in any process."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds
from videodit_data import video
from videodit_data.formats import open_dataset
from videodit_data.storage import manifest, records
from videodit_data.tfds.export import export

from videodit.cli import main

# TFDS asks protobuf in a way that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:label\\(\\) is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, data_set: Callable[..., Path]) -> Path:
    return data_set(tmp_path_factory.mktemp("tfds") / "clips", [5, 3, 4, 6, 5], shards=2)


def latents(directory: Path, dtype: str) -> Path:
    rng = np.random.default_rng(0)

    def record(number: int) -> records.Record:
        base = records.from_video(
            f"l{number}",
            b"file",
            ["one", "zwei ü"],
            fps=8.0,
            height=8,
            width=8,
            frames=5,
            source="s",
            licence="CC0-1.0",
        )
        mean, logvar = rng.normal(size=(2, 2, 1, 1, 4)).astype(np.float32)
        return records.with_latent(base, mean, logvar, fps=8.0, frames=5, height=8, width=8, dtype=dtype)

    manifest.build(directory, lambda part: map(record, part), 3, info={"latents": dtype})
    return directory


def equal(example: dict, record: records.Record) -> None:
    texts = {name: example[name].decode() for name in ("id", "source", "licence", "sha256")}
    assert texts == {name: getattr(record, name) for name in texts}
    numbers = {name: example[name] for name in ("height", "width", "frames", "fps")}
    assert numbers == {name: getattr(record, name) for name in numbers}
    assert tuple(caption.decode() for caption in example["captions"]) == record.captions
    assert json.loads(example["truth"]) == record.truth


def test_every_clip_is_that_of_our_reader(clips: Path) -> None:
    source = tfds.builder_from_directory(export(clips)).as_data_source("train")
    records = manifest.records(clips)
    assert len(source) == len(records) == 5
    for number in (4, 0, 2, 1, 3):
        equal(source[number], records[number])
        np.testing.assert_array_equal(source[number]["video"], video.decode(records[number].video))
    assert manifest.load(clips).clips == 5 and not manifest.find_damaged_shards(clips)


def test_encoded_bytes_and_parts_of_splits(clips: Path) -> None:
    builder = tfds.builder_from_directory(export(clips))
    source = builder.as_data_source("train[40%:]", decoders={"video": tfds.decode.SkipDecoding()})
    records = manifest.records(clips)
    assert [example["video"] for example in source] == [records[number].video for number in (2, 3, 4)]


def test_grain_and_pickle(clips: Path) -> None:
    source = tfds.builder_from_directory(export(clips)).as_data_source("train")
    unpickled = pickle.loads(pickle.dumps(source))
    shuffled = grain.MapDataset.source(unpickled).shuffle(seed=1)
    read = list(shuffled.to_iter_dataset(grain.ReadOptions(num_threads=2)))
    assert sorted(example["id"] for example in read) == sorted(example["id"] for example in source)
    np.testing.assert_array_equal(unpickled[3]["video"], source[3]["video"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_latents_come_as_they_are_stored(tmp_path: Path, dtype: str) -> None:
    directory = latents(tmp_path / "latents", dtype)
    source = tfds.builder_from_directory(export(directory)).as_data_source("train")
    for example, record in zip(source, manifest.records(directory), strict=True):
        equal(example, record)
        for name, value in zip(("mean", "logvar"), record.latent.arrays(), strict=True):
            assert example["latent"][name].dtype == value.dtype
            np.testing.assert_array_equal(example["latent"][name], value)


def test_by_name_with_several_splits(tmp_path: Path, clips: Path, data_set: Callable[..., Path]) -> None:
    held_out = data_set(tmp_path / "held out", [3, 3])
    for directory, split in ((clips, "train"), (held_out, "test"), (clips, "train")):
        export(directory, name="mine", split=split, root=tmp_path / "root")
    train, test = tfds.data_source("mine", split=["train", "test"], data_dir=tmp_path / "root")
    assert [len(train), len(test)] == [5, 2]
    equal(test[1], manifest.records(held_out)[1])
    before = {path.name: path.read_bytes() for path in (tmp_path / "root" / "mine" / "1.0.0").iterdir()}
    with pytest.raises(ValueError, match=f"a split 'train' of another data set, {clips.resolve()}; choose"):
        export(held_out, name="mine", split="train", root=tmp_path / "root")
    assert {path.name: path.read_bytes() for path in (tmp_path / "root" / "mine" / "1.0.0").iterdir()} == before
    with pytest.raises(ValueError, match=f"name {held_out.resolve()} without 'tfds:'"):
        open_dataset(f"tfds:{tmp_path}/root/mine/test?fps=8")
    with pytest.raises(ValueError, match="another TFDS data set"):
        export(latents(tmp_path / "latents", "float16"), name="mine", root=tmp_path / "root")


def test_again_changes_nothing(clips: Path) -> None:
    export(clips, name="a")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in clips.iterdir()}
    assert export(clips, name="a") == clips
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in clips.iterdir()}
    (clips / "dataset_info.json").unlink()  # as an interrupted one leaves it
    assert export(clips, name="a") == clips
    assert {path: path.read_bytes() for path in clips.iterdir()} == {path: data for path, (data, _) in before.items()}


@pytest.mark.parametrize(
    ("options", "message"), [({"name": "1a"}, "TFDS names"), ({"split": "all"}, "A split is named")]
)
def test_names_that_tfds_cannot_have(clips: Path, tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export(clips, root=tmp_path / "root", **options)
    assert not (tmp_path / "root").exists()


def test_what_is_not_ours_is_refused(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    assert main(["data", "tfds", str(tmp_path)]) == 2
    assert "is not a data set" in capsys.readouterr().err
    (tmp_path / "mine" / "1.0.0").mkdir(parents=True)
    (tmp_path / "mine" / "1.0.0" / "features.json").write_text("{}")
    with pytest.raises(ValueError, match="another TFDS data set"):
        export(clips, name="mine", root=tmp_path)
    assert [path.name for path in (tmp_path / "mine" / "1.0.0").iterdir()] == ["features.json"]


def test_the_command_says_how_to_open_it(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["data", "tfds", str(clips), "--name", "mine", "--root", str(tmp_path / "root")]) == 0
    for line in capsys.readouterr().out.splitlines():
        assert len(eval(line, {"tfds": tfds})) == 5
