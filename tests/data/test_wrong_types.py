"""Values of wrong types in all that is read: the reader returns what is meant, or refuses it in one sentence."""

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import jaxtyping
import msgpack
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from videodit_data import caption_files, ingest
from videodit_data.boundary.typed_json import parse_json
from videodit_data.caption_files import Captions, Row
from videodit_data.captioning.captioner import Failure
from videodit_data.captioning.journal import Entry, Journal, read_entry
from videodit_data.footage import decisions, describe, shards, stages
from videodit_data.footage.analyse import MADE_BY, AnalysisConfig
from videodit_data.footage.analysis_result import Analysis, Clip, Shot
from videodit_data.footage.candidates import Spot
from videodit_data.footage.sources import Source
from videodit_data.inspect import print_summary
from videodit_data.reading.batch_iterator import BatchIterator
from videodit_data.reading.buckets import OneSize
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import TokenizedText
from videodit_data.storage import embeddings, manifest, records
from videodit_data.tfds import fields as tfds_fields
from videodit_data.tfds import index as tfds_index
from videodit_data.tokenizer import NoTokenizer
from videodit_data.video import VideoError, VideoInfo
from videodit_data.video.isolate import Limits, Verifier, _Worker

from tests.data import mutations
from tests.data.mutations import ODD, check, mutate, nothing_is_opened, to_json, to_msgpack  # noqa: F401

pytestmark = pytest.mark.usefixtures("nothing_is_opened")
SHA = "0123456789abcdef" * 4
INFO = VideoInfo(8.0, 9, 32, 48, 1.125, "h264", "mov,mp4", {"title": "a film"})


def plain(value: object) -> object:
    return json.loads(json.dumps(value, default=dataclasses.asdict))


@pytest.fixture
def record() -> records.Record:
    truth = {"objects": [{"x": [0.5, 1.25], "color": "red", "hidden": None}], "count": 1}
    size = {"fps": 8.0, "height": 32, "width": 48, "frames": 9}
    return records.from_video(
        "clip-1", b"video", ["a cube", "a box"], **size, source="tests", licence="CC0-1.0", truth=truth
    )


def test_manifests():
    info = {"made_by": "tests", "config": {"seed": 1, "sizes": [32, 48]}}
    sizes = (9, 17), (8.0, 25.5), (32, 64), (48, 64)
    whole = manifest.Manifest(
        "video",
        tuple(manifest.Shard(f"clips-{n}.array_record", SHA, 1000, *sizes) for n in range(2)),
        (manifest.Origin("tests", "CC0-1.0", 4),),
        (manifest.LeftOut("a.mp4", "truncated", 2),),
        info,
        {"numpy": "2.0"},
        (manifest.TextShard("text.array_record", SHA, 500, 3),),
    )
    counts = check(
        json.loads(whole.to_json()),
        lambda document: manifest.parse(to_json(document), "set/manifest.json"),
        lambda read: json.loads(read.to_json()),
        "set/manifest.json is not a manifest that this version can read: ",
        changes=700,
        seed="manifest",
    )
    assert min(counts) > 50


def test_records(record: records.Record):
    latent = np.ones((2, 2, 3, 4), np.float32)
    encoded = records.with_latent(record, latent, latent, fps=8.0, frames=5, height=32, width=48)
    encoded = dataclasses.replace(encoded, caption_sources=("file", "a model"), window={"start": 0.5})

    def check_one(one: records.Record, seed: str) -> tuple[int, int]:
        return check(
            msgpack.unpackb(one.pack()),
            lambda document: records.unpack(to_msgpack(document)),
            lambda read: msgpack.unpackb(read.pack()),
            "Not a clip record of this format: ",
            changes=300,
            seed=seed,
            is_refused=lambda document: isinstance(document, mutations.Pairs),  # further in, the last one counts
        )

    for one, seed in ((record, "video"), (encoded, "latent")):
        assert min(check_one(one, seed)) > 20


def test_bytes_that_are_no_record_or_no_plain_values(record: records.Record):
    rng, data = random.Random(0), record.pack()
    cases = [data[:length] for length in range(len(data))] + [b"\x91" * 100_000, b"\x81\xa1a" * 100_000, b"\xdf" * 5]
    cases += [bytes(rng.randrange(256) for _ in range(rng.randrange(40))) for _ in range(200)]
    values = msgpack.unpackb(data)
    for odd in (msgpack.Timestamp(1), msgpack.ExtType(5, b"x"), [msgpack.Timestamp(-1, 5)]):
        cases += [msgpack.packb(values | {name: {"a": odd}}) for name in ("truth", "window")]
        cases.append(msgpack.packb(values | {"id": odd}))
    for case in cases:
        with pytest.raises(ValueError, match=r"^Not a clip record of this format: .") as refused:
            records.unpack(case)
        assert str(refused.value).isprintable()


def test_a_video_that_is_text_is_never_opened(record: records.Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # its checks read a record at random
    for text in mutations.HARMFUL:
        directory = tmp_path / str(abs(hash(text)))
        partial = manifest.start(directory, {})
        shard = partial / records.shard_name("clips", 0, 1)
        records.write_packed(shard, [record.pack()])
        described = manifest.describe(shard)
        records.write_packed(shard, [msgpack.packb(msgpack.unpackb(record.pack()) | {"video": text})])
        with pytest.raises(ValueError, match=r"record 0: Not a clip record .*: video is \".*\"; expected bytes"):
            manifest.describe(shard)
        facts = dataclasses.replace(described.shard, bytes=shard.stat().st_size, sha256=manifest.sha256(shard))
        manifest.finish(directory, [dataclasses.replace(described, shard=facts)], info={})
        config = ReaderConfig((WeightedDataset(str(directory)),), OneSize(9, 32, 48, 8.0), caption_dropout=0.0)
        for read in (print_summary, lambda path: next(BatchIterator(config, TokenizedText(NoTokenizer())))):  # noqa: B023
            with pytest.raises(ValueError, match=r"array_record, record 0: Not a clip record .*; expected bytes"):
                read(directory)
        with pytest.raises(ValueError, match="has a video of type str, not bytes"):
            dataclasses.replace(record, video=text)


def test_embeddings(tmp_path: Path, record: records.Record):
    made_by = {"weights": "abc", "length": 8}
    keys = embeddings.Keys(made_by)
    partial = manifest.start(tmp_path / "set", {"text": made_by})
    records.write_shard(partial / "clips.array_record", [record])
    shard = partial / "text.array_record"
    embeddings.write(shard, [""], [np.ones((2, 3), np.float32)], keys, "float16")
    text, clips = embeddings.describe(shard), manifest.describe(partial / "clips.array_record")
    manifest.finish(tmp_path / "set", [clips], info={"text": made_by}, texts=[text])
    shard, file = tmp_path / "set" / shard.name, tmp_path / "set" / "manifest.json"
    (first, entry), described = [records.RecordSource([shard]).packed(n) for n in range(2)], file.read_text()

    def write(*packed: bytes) -> None:
        records.write_packed(shard, packed)
        file.write_text(described)
        size = json.loads(described)
        size["counts"]["bytes"] += shard.stat().st_size - size["texts"][0]["bytes"]
        size["texts"][0]["bytes"] = shard.stat().st_size
        file.write_text(json.dumps(size))

    def read(document: object) -> np.ndarray:
        write(first, to_msgpack(document))
        return embeddings.Embeddings(tmp_path / "set")[""]

    rng, refused = random.Random("embeddings"), 0
    document = msgpack.unpackb(entry)
    assert np.array_equal(read(document), np.ones((2, 3)))
    for _ in range(100):
        _, changed = mutate(document, rng)
        try:
            array = read(changed)
        except KeyError:
            assert changed["caption"] != ""
        except ValueError as error:
            refused += 1
            assert f"{shard}, record 1: Not an embedding of this format: " in str(error) and str(error).isprintable()
        else:
            assert list(array.shape) == changed["shape"] and array.dtype.name == changed["dtype"]
            assert array.tobytes() == changed["embedding"]
    assert refused > 50
    for packed in ([], [first], [first[:-1], entry], [first * 2, entry], [b"", entry], [first, entry, entry]):
        write(*packed)
        with pytest.raises(ValueError, match=r"text\.array_record, record 0: \d+ bytes of keys for -?\d+ embeddings"):
            embeddings.Embeddings(tmp_path / "set")


def notes_of_a_build(folder: Path) -> Iterator[tuple[str, object, object, object, str]]:
    """Yield kind, document, reader and dumper of each note of a build of footage, and the name that errors have."""
    spot, limits, config = Spot("a#0-9", "a.mp4", "/a.mp4", "hash", 0, 9), Limits(), AnalysisConfig()
    source = Source(
        "a.mp4",
        "/footage/a.mp4",
        SHA,
        "tests",
        "CC0-1.0",
        (Row("a.mp4", Captions(("a cube",), "me"), stop=2.5), Row("a.mp4", Captions(("all",)))),
        "5 7",
    )
    clip = Clip(0, 9, 0.0, {"motion": 0.5, "loudness": None}, (3, 2**64 - 1))
    analysis = Analysis(INFO, (Shot(0, 9), Shot(9, 12)), (clip,), (Shot(9, 12),), ("no sound",))
    shard = manifest.Shard("clips.array_record", SHA, 5, (9,), (8,), (32,), (48,))
    described = manifest.Described(shard, (manifest.Origin("tests", "CC0-1.0", 1),), "video")
    facts = {"fps": 8.0, "frames": 9, "height": 32, "width": 48, "sha256": SHA, "bytes": 5}
    key = stages.key_of(SHA, dataclasses.asdict(config), dataclasses.asdict(limits), MADE_BY)
    cut = stages.Cut(None, limits, str(folder))

    def stored(file: Path, read: object) -> object:
        def write_and_read(document: object) -> object:
            file.write_text(to_json(document))
            return read()

        return write_and_read

    analyze = stages.Analyze(config, limits, str(folder))
    (folder / "shards").mkdir()
    note = folder / "shards" / "clips.json"
    yield "source", plain(source), lambda document: Source.from_json(to_json(document)), plain, "a source of the build"
    yield (
        "analysis",
        plain(analysis),
        stored(folder / f"{key}.json", lambda: analyze._find(source)),
        plain,
        f"{key}.json",
    )
    cut_note = Path(cut._read_note(spot)[0] + ".json")
    yield "cut", facts, stored(cut_note, lambda: cut._read_note(spot)[1]), plain, cut_note.name
    yield "shard", plain(described), stored(note, lambda: shards.described(str(note.parent))[0]), plain, note.name
    for number, answer in enumerate(({"captions": {"short": "a"}}, {"failure": plain(Failure("refusal", "no"))})):
        read = lambda document: parse_json(to_json(document), describe._StoredAnswer, "answer.json", nul=True)  # noqa: E731
        yield f"answer {number}", answer, read, plain, "answer.json"


def test_notes_of_a_build(tmp_path: Path):
    for kind, document, read, dump, name in notes_of_a_build(tmp_path):
        assert sum(check(document, read, dump, name, changes=130, seed=kind)) == 130


def test_journals(tmp_path: Path):
    def dump(entry: Entry) -> object:
        return json.loads(entry.to_json())

    for entry in (Entry("a", SHA, "asked", {"short": "a cube"}), Entry("a", SHA, "asked", Failure("refusal", "no"))):
        read = lambda document: read_entry(to_json(document), "answers.jsonl, line 1")  # noqa: E731
        check(dump(entry), read, dump, "answers.jsonl, line 1: ", changes=100, seed=str(entry))
    path = tmp_path / "journal.jsonl"

    def read_note(document: object) -> object:
        path.write_text(to_json(document) + "\n")
        (((file, sha256), fact),) = ingest._read_journal(path).items()
        return ingest._Note(file, sha256, fact)

    for fact in (plain(INFO), "truncated"):
        note = {"file": "a.mp4", "sha256": SHA, "fact": fact}
        check(note, read_note, plain, "journal.jsonl, line 1: ", changes=100, seed=str(fact))
    path.write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=r"journal\.jsonl, line 1: not UTF-8"):
        ingest._read_journal(path)
    with pytest.raises(ValueError, match=r"journal\.jsonl, line 1, is .*not UTF-8"):
        Journal(path)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_caption_tables(tmp_path: Path, suffix: str):
    rows = [
        {"file": "a.mp4", "caption": "a cube", "source": "me"},
        {"file": "b.mp4", "captions": ["one", "two"], "licence": "CC0-1.0", "start": 0.5, "stop": 2},
        {"file": "c.mp4", "caption": "all", "clip": "c.mp4#0-9"},
    ]
    columns = ("file", "caption", "source", "licence", "clip", "start", "stop")
    rng, path = random.Random(suffix), tmp_path / f"captions.{suffix}"
    odd_rows = nameless = 0
    for _ in range(150):
        (row, *_), changed = mutate(rows, rng)
        if suffix == "jsonl":
            path.write_text("\n".join(map(to_json, changed)))
        else:
            lines = [
                ",".join(str(each.get(name, "")) for name in columns) for each in changed if isinstance(each, dict)
            ]
            path.write_bytes("\n".join([",".join(columns), *lines]).encode("utf-8", "surrogatepass"))
        read = list(caption_files.read_rows(path))
        for each in read:
            assert mutations.fits(each, type(each))
            if isinstance(each, caption_files.OddRow):
                odd_rows, nameless = odd_rows + 1, nameless + (each.file is None)
                assert f"of {path.name}: " in each.reason and each.reason.isprintable()
                assert each.file is None or each.file.isprintable()
        others = [each.file for number, each in enumerate(read) if number != row]
        assert suffix == "csv" or {"a.mp4", "b.mp4", "c.mp4"} - {rows[row]["file"]} <= set(others)
    assert nameless > 5 and (odd_rows > nameless + 10 or suffix == "csv")


def test_captions_next_to_videos(tmp_path: Path):
    rng, path = random.Random("sidecar"), tmp_path / "a.json"
    for _ in range(100):
        _, changed = mutate({"captions": ["a cube", "a box"], "source": "me", "licence": "CC0-1.0"}, rng)
        path.write_text(to_json(changed))
        try:
            assert mutations.fits(caption_files.read_sidecar(tmp_path / "a.mp4"), Captions)
        except ValueError as error:
            assert str(error).startswith("a.json cannot be used: ") and str(error).isprintable()


def test_an_index_of_tfds_that_does_not_fit_is_not_used(tmp_path: Path):
    parts, key = [tfds_index.Part("train.array_record", 0, 2)], {"options": ["video", ["text"], ""]}
    entries = (tfds_index.Entry("a", (9, 32, 48)), tfds_index.Entry("b", "no caption"))
    index, path = tfds_index.Index((SHA,), entries), tmp_path / "index.json"
    tfds_index._write(path, key, index)
    assert tfds_index._read(path, key, parts) == index
    document, rng, used = json.loads(path.read_text()), random.Random("index"), 0
    for _ in range(150):
        _, changed = mutate(document, rng)
        path.write_text(to_json(changed))
        read = tfds_index._read(path, key, parts)
        if read is not None:
            used += 1
            tfds_index._write(path, key, read)
            assert mutations.fits(read, tfds_index.Index) and mutations.agree(changed, json.loads(path.read_text()))
    assert used < 75


def test_features_of_tfds():
    core = "tensorflow_datasets.core.features"
    picture = {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8", "encodingFormat": "png"}
    frames = {"pythonClassName": f"{core}.image_feature.Image", "image": picture}
    document = {
        "pythonClassName": f"{core}.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                "video": {"pythonClassName": f"{core}.sequence_feature.Sequence", "sequence": {"feature": frames}},
                "array": {
                    "pythonClassName": f"{core}.tensor_feature.Tensor",
                    "tensor": {"shape": {"dimensions": ["9", "32", "32", "3"]}, "dtype": "uint8"},
                },
                "text": {"pythonClassName": f"{core}.text_feature.Text", "text": {}},
            }
        },
    }
    rng = random.Random("features")
    assert [each.kind for each in tfds_fields.fields(document)] == ["array", "text", "frames"]
    for _ in range(200):
        _, changed = mutate(document, rng)
        try:
            found = tfds_fields.fields(changed)
        except ValueError as error:
            assert str(error).startswith("features.json: ") and str(error).isprintable()
        else:
            assert all(
                (isinstance(each.kind, str) and all(map(str.__instancecheck__, each.path))) or each for each in found
            )


def test_answers_of_a_decoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "a.mp4").touch()
    line = b""
    monkeypatch.setattr(_Worker, "read_line", lambda worker, seconds: line)
    stdin = SimpleNamespace(write=lambda data: None, flush=lambda: None)
    process = SimpleNamespace(stdin=stdin, kill=lambda: None, communicate=lambda: None)
    monkeypatch.setattr("videodit_data.boundary.child_process.start", lambda command: process)
    verifier, rng = Verifier(), random.Random("answers")
    for _ in range(150):
        _, changed = mutate({"json": plain(INFO)}, rng)
        line = to_json(changed).encode() + b"\n"
        try:
            info = verifier(tmp_path / "a.mp4", name="a.mp4")
        except VideoError as error:
            assert str(error).startswith("a.mp4") and str(error).isprintable()
        except RuntimeError as error:  # it says that the machine is at fault
            assert "trouble" in changed, error
        else:
            assert mutations.fits(info, VideoInfo) and mutations.agree(changed["json"], plain(info))


@pytest.fixture(scope="module")
def six_clips(data_set, tmp_path_factory) -> Path:
    return data_set(tmp_path_factory.mktemp("six") / "set", [9] * 6)


def test_states_of_a_reader(six_clips: Path):
    config = ReaderConfig(
        (WeightedDataset(str(six_clips)),), OneSize(9, 32, 48, 8.0), batch_size=2, caption_dropout=0.0
    )
    reader = BatchIterator(config, TokenizedText(NoTokenizer()))
    state, rng = reader.get_state() | {"plan": {"next": 4, "held": [1, 3]}}, random.Random("states")
    reader.set_state(json.loads(json.dumps(state)))
    for _ in range(200):
        _, changed = mutate(state, rng)
        try:
            reader.set_state(changed)
        except ValueError as error:
            assert "state" in str(error) and str(error).isprintable()
            assert reader.get_state() == state
        else:
            assert all(type(number) is int and number >= 0 for number in (changed["plan"]["next"], *changed["served"]))
            assert changed["of"] == state["of"]
            reader.set_state(state)


def test_tables_of_decisions(tmp_path: Path):
    rows = [decisions.Decision("a.mp4", "kept", clip="a#0-9", start=0, frames=9, seconds=1.0, measures={"motion": 0.5})]
    rows.append(decisions.Decision("b.mp4", "read", "truncated"))
    (tmp_path / decisions.FOLDER).mkdir()
    path = tmp_path / decisions.FOLDER / "part.parquet"
    path.write_bytes(decisions.to_parquet(rows, ["motion"]))
    table, good = pq.read_table(path), list(decisions.read(tmp_path))
    kinds = (pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.list_(pa.int64()), pa.binary())
    odd = [value for value in ODD if not isinstance(value, list | dict)] + [[1], b"x"]
    rng, refused = random.Random("decisions"), 0
    for _ in range(150):
        name, kind = rng.choice(table.column_names), rng.choice(kinds)
        try:
            column = pa.array([rng.choice(odd), None], kind if rng.random() < 0.5 else table.schema.field(name).type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            continue
        changed = table.set_column(table.column_names.index(name), name, column)
        pq.write_table(changed.drop_columns(name) if rng.random() < 0.1 else changed, path)
        try:
            read = list(decisions.read(tmp_path))
            decisions.tally(tmp_path)
        except ValueError as error:
            refused += 1
            assert f"{path} is not a table of decisions" in str(error) and name in str(error)
            assert str(error).isprintable()
        else:
            assert [row.keys() for row in read] == [row.keys() for row in good]
    assert refused > 25
    data = decisions.to_parquet(rows, ["motion"])
    for length in (0, 4, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="is not a table of decisions"):
            list(decisions.read(tmp_path))
