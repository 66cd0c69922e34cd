import json
from pathlib import Path

import pytest
from apache_beam.io.filesystem import FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.localfilesystem import LocalFileSystem
from videodit_data.footage import build_directory, file_system
from videodit_data.footage.build import build
from videodit_data.storage import manifest
from videodit_data.storage.manifest import Described, Origin, Shard

from tests.data.footage.building import CONFIG, IN_MEMORY


class ToyFileSystem(LocalFileSystem):
    """A file system with the scheme toy://, whose files are in a folder."""

    root = ""

    @classmethod
    def scheme(cls) -> str:
        return "toy"

    def _there(self, path: str) -> str:
        return path.replace("toy:/", self.root, 1)

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def mkdirs(self, path):
        super().mkdirs(self._there(path))

    def exists(self, path):
        return super().exists(self._there(path))

    def create(self, path, *rest, **options):
        Path(self._there(path)).parent.mkdir(parents=True, exist_ok=True)
        return super().create(self._there(path), *rest, **options)

    def open(self, path, *rest, **options):
        return super().open(self._there(path), *rest, **options)

    def rename(self, sources, targets):
        for target in targets:
            Path(self._there(target)).parent.mkdir(parents=True, exist_ok=True)
        super().rename([self._there(path) for path in sources], [self._there(path) for path in targets])

    def delete(self, paths):
        super().delete([self._there(path) for path in paths])

    def checksum(self, path):
        return super().checksum(self._there(path))

    def _list(self, dir_or_prefix):
        for path in sorted(Path(self.root).rglob("*")):
            name = "toy://" + path.relative_to(self.root).as_posix()
            if path.is_file() and name.startswith(dir_or_prefix):
                yield FileMetadata(name, path.stat().st_size, path.stat().st_mtime)

    def match(self, patterns, limits=None):
        return FileSystem.match(self, patterns, limits)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(ToyFileSystem, "root", str(tmp_path / "toy"))
    (tmp_path / "toy").mkdir()
    return tmp_path / "toy"


@pytest.mark.parametrize("remote", [False, True])
def test_files_are_written_whole_and_found_again(toy: Path, tmp_path: Path, remote: bool):
    root = "toy://place" if remote else str(tmp_path / "place")
    file_system.make_folder(root)
    file_system.make_folder(file_system.join(root, "sub"))
    path = file_system.join(root, "sub", "a.bin")
    for data in (b"two", b"one"):
        file_system.write(path, data)
    if remote:
        file_system.write(path, b"three", once=True)
    assert file_system.read(path) == b"one" and file_system.exists(path) and not file_system.exists(path + "x")
    with pytest.raises(ZeroDivisionError), file_system.open_for_writing(file_system.join(root, "b.bin")) as local:
        local.write_bytes(b"half")
        raise ZeroDivisionError
    assert list(file_system.files(root)) == ["sub/a.bin"]
    with file_system.open_local(path) as local:
        assert local.read_bytes() == b"one" and local.name == "a.bin"
    file_system.rename(path, file_system.join(root, "c.bin"))
    assert file_system.files(root) == {"c.bin": file_system.join(root, "c.bin")}
    file_system.delete([file_system.join(root, "c.bin")])
    assert file_system.files(root) == {}


def test_what_other_input_left_on_another_file_system_is_replaced(toy: Path):
    for info in ({"input": "one"}, {"input": "two"}):
        directory = build_directory.open_partial("toy://set", info)
        file_system.write(file_system.join(directory, "sources.jsonl"), json.dumps(info).encode())
        assert json.loads((toy / "set.partial" / "info.json").read_text()) == info
        assert json.loads((toy / "set.partial" / "sources.jsonl").read_text()) == info


@pytest.mark.parametrize("stopped_at", [0, 1, 3, 5])
def test_a_data_set_half_moved_on_another_file_system_is_moved_to_its_end(
    toy: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int
):
    info, real, calls = {"input": "one"}, file_system.rename, []
    names = ("clips-0.array_record", "clips-1.array_record", "decisions/part-0", "notes.json")
    for name in (*names, "clips/cut", "sources.jsonl"):
        file_system.write(file_system.join(build_directory.open_partial("toy://set", info), name), name.encode())
    shards = (Shard(name, "0" * 64, len(name), (8,), (8.0,), (32,), (48,)) for name in names[:2])
    described = [Described(shard, (Origin("tests", "CC0-1.0", 1),), "video") for shard in shards]

    def rename(path: str, to: str) -> None:
        calls.append(to)
        if len(calls) == stopped_at + 1:
            raise KeyboardInterrupt
        real(path, to)

    monkeypatch.setattr(file_system, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        build_directory.finish("toy://set", described, info, [])
    monkeypatch.setattr(file_system, "rename", real)
    if stopped_at > 1:
        with pytest.raises(ValueError, match="holds part of a data set made from other input"):
            build_directory.find_finished("toy://set", {"input": "two"})
    if stopped_at == 0:  # not even the manifest
        assert build_directory.find_finished("toy://set", info) is None
        build_directory.finish("toy://set", described, info, [])
    moved_manifest = build_directory.find_finished("toy://set", info)
    assert moved_manifest is not None and moved_manifest == build_directory.find_finished("toy://set", info)
    there = {path.relative_to(toy).as_posix() for path in toy.rglob("*") if path.is_file()}
    assert there == {f"set/{name}" for name in (*names, "manifest.json")}


@pytest.mark.slow
def test_footage_and_data_set_may_lie_on_another_file_system(toy: Path, footage: Path):
    (toy / "raw").mkdir()
    for name in ("one.mp4", "sub/copy.mp4", "captions.jsonl"):
        (toy / "raw" / Path(name).name).write_bytes((footage / name).read_bytes())
    (toy / "raw" / "copy.txt").write_text("a copy")
    built_manifest = build(["toy://raw"], "toy://set", CONFIG, beam_options=IN_MEMORY)
    assert manifest.load(toy / "set") == built_manifest and not manifest.find_damaged_shards(toy / "set")
    (record,) = manifest.records(toy / "set")
    assert (record.id, record.captions) == ("one.mp4#0-30", ("what one.mp4 shows",))
    assert not [path for path in (toy / "set.partial").rglob("*") if path.is_file()]
    assert build(["toy://raw"], "toy://set", CONFIG, beam_options=IN_MEMORY) == built_manifest
    assert FileSystems.exists("toy://set/manifest.json")


@pytest.mark.parametrize("scheme", ["gs", "s3", "hdfs", "http", "toy", "a+b.c-d"])
def test_only_a_path_that_starts_with_a_scheme_is_remote(scheme: str):
    assert file_system.is_remote(f"{scheme}://bucket/x")
    for local in (f"{scheme}:/bucket/x", f"/data/{scheme}://x", f"./{scheme}://x", f"-{scheme}://x", scheme, "x"):
        assert not file_system.is_remote(local)
