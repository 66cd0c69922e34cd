from pathlib import Path

import pytest
from apache_beam.io.filesystem import FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.localfilesystem import LocalFileSystem
from videodit_data import manifest
from videodit_data.footage import storage
from videodit_data.footage.build import build

from tests.data.footage.building import CONFIG, IN_MEMORY


class ToyFileSystem(LocalFileSystem):
    """A file system of its own scheme, toy://, whose files lie in a folder."""

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
    storage.make_folder(root)
    storage.make_folder(storage.join(root, "sub"))
    path = storage.join(root, "sub", "a.bin")
    for data in (b"one", b"one"):
        storage.write(path, data)
    assert storage.read(path) == b"one" and storage.exists(path) and not storage.exists(path + "x")
    with pytest.raises(ZeroDivisionError), storage.writing(storage.join(root, "b.bin")) as local:
        local.write_bytes(b"half")
        raise ZeroDivisionError
    assert list(storage.files(root)) == ["sub/a.bin"]
    with storage.here(path) as local:
        assert local.read_bytes() == b"one" and local.name == "a.bin"
    storage.rename(path, storage.join(root, "c.bin"))
    assert storage.files(root) == {"c.bin": storage.join(root, "c.bin")}
    storage.delete([storage.join(root, "c.bin")])
    assert storage.files(root) == {}


@pytest.mark.slow
def test_footage_and_data_set_may_lie_on_another_file_system(toy: Path, footage: Path):
    (toy / "raw").mkdir()
    for name in ("one.mp4", "sub/copy.mp4", "captions.jsonl"):
        (toy / "raw" / Path(name).name).write_bytes((footage / name).read_bytes())
    (toy / "raw" / "copy.txt").write_text("a copy")
    made = build(["toy://raw"], "toy://set", CONFIG, beam_options=IN_MEMORY)
    assert manifest.load(toy / "set") == made and not manifest.damaged(toy / "set")
    (record,) = manifest.records(toy / "set")
    assert (record.id, record.captions) == ("one.mp4#0-30", ("what one.mp4 shows",))
    assert not [path for path in (toy / "set.partial").rglob("*") if path.is_file()]
    assert build(["toy://raw"], "toy://set", CONFIG, beam_options=IN_MEMORY) == made
    assert FileSystems.exists("toy://set/manifest.json")
