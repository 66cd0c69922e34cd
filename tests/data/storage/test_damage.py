"""No bit of a shard can change and give another record: it is noticed, or no reader reads it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from videodit_data.storage import embeddings, manifest, records
from videodit_data.storage.dataset import open_directory
from videodit_data.storage.shard_check import ChangedShard, ShardCheck

SIGNATURE = 64  # bytes at the start of a file, which only say what file it is
MADE_BY = {"encoder": "a", "length": 4}
FACTS = {"fps": 8.0, "height": 8, "width": 8, "frames": 3}


def video(number: int) -> records.Record:
    rng = np.random.default_rng(number)
    return records.from_video(f"clip-{number}", rng.bytes(60), ["a cube"], **FACTS, source="tests", licence="CC0-1.0")


def latent(number: int) -> records.Record:
    mean, logvar = np.random.default_rng(number).standard_normal((2, 1, 2, 2, 4), np.float32)
    return records.with_latent(video(number), mean, logvar, **FACTS)


def write_embeddings(path: Path) -> None:
    keys = embeddings.Keys(MADE_BY)
    captions = embeddings.distinct_captions(["a cube", "a ball"], keys)
    rng = np.random.default_rng(0)
    embeddings.write(path, captions, [rng.standard_normal((3, 4), np.float32) for _ in captions], keys, "float16")


WRITERS: dict[str, Callable[[Path], None]] = {
    "videos": lambda path: records.write_shard(path, map(video, range(3))),
    "latents": lambda path: records.write_shard(path, map(latent, range(3))),
    "embeddings": write_embeddings,
}


@dataclass
class Shard:
    """A shard whose bits can be flipped in place."""

    path: Path

    def read(self) -> list[bytes]:
        """Read all records, as a data set that is just opened does."""
        source = records.RecordSource([self.path])
        return [source.packed(index) for index in range(len(source))]

    @contextmanager
    def flip(self, position: int, bit: int) -> Iterator[None]:
        """Flip one bit for a while."""
        with self.path.open("r+b", buffering=0) as file:
            (value,) = os.pread(file.fileno(), 1, position)
            os.pwrite(file.fileno(), bytes([value ^ 1 << bit]), position)
            try:
                yield
            finally:
                os.pwrite(file.fileno(), bytes([value]), position)


@pytest.mark.parametrize("kind", WRITERS)
def test_no_flipped_bit_gives_another_record(kind: str, tmp_path: Path):
    shard = Shard(tmp_path / "shard.array_record")
    WRITERS[kind](shard.path)
    data, expected = shard.path.read_bytes(), shard.read()
    used = [position for position, value in enumerate(data) if value]
    padding = [position for position, value in enumerate(data) if not value]
    positions, noticed, unread = [*used, *padding[:: len(padding) // 100]], set(), set()
    for position in positions:
        with shard.flip(position, position % 8):
            try:
                assert shard.read() == expected, f"byte {position} gives other records without an error"
                unread.add(position)
            except ValueError as error:
                assert str(error).startswith(f"{shard.path}: a shard is damaged (")
                noticed.add(position)
    assert shard.path.read_bytes() == data
    assert len(noticed) >= 500 and len(noticed) + len(unread) == len(positions)
    for record in expected:
        start = data.index(record)
        assert noticed.issuperset(set(used) & {*range(start, start + len(record))})
    # Not read are the signature and the chunks that fill the two blocks up, zeros after a head.
    heads = sorted(position for position in unread if data[position] and position >= SIGNATURE)
    assert len(heads) < 2 * SIGNATURE and not any(data[heads[-1] + 1 :])


def test_what_no_reader_reads_is_noticed_by_its_hash(tmp_path: Path):
    manifest.build(tmp_path / "set", lambda part: map(video, part), 3, info={})
    dataset = open_directory(tmp_path / "set")
    shard = Shard(tmp_path / "set" / dataset.manifest.shards[0].name)
    size = shard.path.stat().st_size
    for position in [0, SIGNATURE - 1, size // 2 - 1, size - 1, *range(1, size, 4999)]:
        with shard.flip(position, position % 8), pytest.raises(ChangedShard):
            ShardCheck([dataset])
    assert ShardCheck([dataset]).checked == 1


def test_the_damaged_one_of_several_shards_is_named(tmp_path: Path):
    manifest.build(tmp_path / "set", lambda part: map(video, part), 15, shards=5, info={})
    paths = sorted((tmp_path / "set").glob("*.array_record"))
    expected = list(records.RecordSource(paths))
    for number, path in enumerate(paths):
        shard = Shard(path)
        with shard.flip(SIGNATURE + 100, 0):  # of its first record
            source = records.RecordSource(paths)
            for index in range(15):
                if index != 3 * number:
                    assert source[index] == expected[index]
                    continue
                for same in (index, index - 15):
                    with pytest.raises(ValueError, match=rf"^{path}: a shard is damaged"):
                        source[same]
        in_index = shard.path.stat().st_size // 2 + 4
        with shard.flip(in_index, 0), pytest.raises(ValueError, match=rf"^{path}: a shard is damaged"):
            list(records.RecordSource(paths))
