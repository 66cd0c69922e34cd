"""Folders that others filled: what may be read of them, and what is named instead."""

import io
import os
import socket
from pathlib import Path

import pytest
from videodit_data.boundary import input_files
from videodit_data.boundary.input_files import InputFolder, NotRegular, open_regular, read_text


@pytest.fixture
def folder(tmp_path):
    """Make a folder beside another one, each with a file, a sub-folder and a hidden file."""
    for root in (tmp_path / "in", tmp_path / "out"):
        (root / "sub").mkdir(parents=True)
        for name in ("a.txt", "sub/b.txt", ".hidden"):
            (root / name).write_text(f"{root.name} {name}")
    return tmp_path / "in"


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(path))  # an absolute path may be too long for a socket


ODD = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_named_at_once(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ODD[kind](tmp_path / "x")
    with pytest.raises(NotRegular, match=f"^{kind}, not a regular file$"):
        open_regular(tmp_path / "x")


def test_an_exchange_for_a_pipe_while_it_is_opened_does_not_wait(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("x")
    real_open = os.open

    def exchange(path, flags, *rest):
        os.unlink(path)
        os.mkfifo(path)
        return real_open(path, flags, *rest)

    monkeypatch.setattr(os, "open", exchange)
    with pytest.raises(NotRegular, match="a pipe"):
        open_regular(tmp_path / "x")


LINKS = {  # target, relative to the folder: reason without and with follow_links, None where it is read
    "a.txt": (None, None),
    "sub/b.txt": (None, None),
    "../out/a.txt": ("a link out of its folder, to .*/out/a.txt", None),
    "/etc/hostname": ("a link out of its folder, to /etc/hostname", None),
    "/proc/self/environ": ("a link into /proc, which is never read",) * 2,
    "/proc/self/root/proc/self/status": ("a link into /proc",) * 2,
    "/sys/kernel/ostype": ("a link into /sys",) * 2,
    "/dev/zero": ("a link into /dev",) * 2,
    "/dev/stdin": ("a link (into|to nothing)",) * 2,
    "nowhere": ("a link to nothing .*nowhere",) * 2,
    "link.txt": ("a link to nothing .*link.txt",) * 2,  # itself
    "../pipe": ("a link to a pipe, not a regular file",) * 2,
}


@pytest.mark.parametrize("through", [False, True], ids=["direct", "through another link"])
@pytest.mark.parametrize("follow_links", [False, True], ids=["stay", "follow"])
@pytest.mark.parametrize("target", LINKS)
def test_links_are_read_or_named(folder, target, follow_links, through):
    os.mkfifo(folder.parent / "pipe")
    (folder / "link.txt").symlink_to(folder.parent / "step" if through else target)
    if through:
        (folder.parent / "step").symlink_to(target if target.startswith("/") else folder / target)
    reason, tree = LINKS[target][follow_links], InputFolder(folder, follow_links)
    found = tree.walk()
    assert {"a.txt", "sub/b.txt"} <= found.files.keys() and ".hidden" not in found.files
    if reason is None:
        assert "link.txt" in found.files and not found.unusable
        with tree.open(folder / "link.txt") as file:
            assert file.read() == (folder / "link.txt").read_bytes()
    else:
        assert "link.txt" not in found.files and list(found.unusable) == ["link.txt"]
        for attempt in (lambda: tree.open(folder / "link.txt"), lambda: _raise(found.unusable["link.txt"])):
            with pytest.raises(ValueError, match=reason):
                attempt()


def _raise(message: str) -> None:
    raise ValueError(message)


FOLDERS = {
    ".": "read already",
    "sub": "read already",
    "..": None,
    "../out": None,
    "/": None,  # walked to a depth of 2 in the test
    "/proc/self": "a link into /proc",
    "/dev": "a link into /dev",
}


@pytest.mark.parametrize("target", FOLDERS)
def test_linked_folders_are_named_or_read_once(folder, target):
    (folder / "sub" / "link").symlink_to(target if target.startswith("/") else folder / target)
    assert "sub/link" in InputFolder(folder).walk().linked_folders
    reason = FOLDERS[target]
    found = InputFolder(folder, follow_links=True).walk(depth=2 if target == "/" else None)
    if reason is None:
        assert any(name.startswith("sub/link/") for name in found.files | found.unusable)
        assert not any("proc/" in name for name in found.files)
    else:
        assert found.files.keys() == {"a.txt", "sub/b.txt"}
        assert reason in found.unusable["sub/link"]
    if target == "..":
        assert {name for name in found.files if "link" in name} == {"sub/link/out/a.txt", "sub/link/out/sub/b.txt"}


def test_the_folder_itself_may_be_a_link_and_parts_of_it_excluded(folder, tmp_path):
    (tmp_path / "alias").symlink_to(folder)
    found = InputFolder(tmp_path / "alias").walk({str((folder / "sub").resolve())})
    assert found.files == {"a.txt": tmp_path / "alias" / "a.txt"} and not found.unusable


def test_a_path_that_is_exchanged_while_it_is_opened_is_refused(folder, tmp_path, monkeypatch):
    tree, path = InputFolder(folder), folder / "a.txt"
    real_open = input_files.open_regular

    def exchange(real):
        path.unlink()
        path.symlink_to(tmp_path / "out" / "a.txt")
        file = real_open(path)
        path.unlink()
        path.write_text("in a.txt")
        return file

    monkeypatch.setattr(input_files, "open_regular", exchange)
    with pytest.raises(ValueError, match="exchanged while it was opened"):
        tree.open(path)


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_folders_that_may_not_be_read_are_named(folder):
    (folder / "sub").chmod(0)
    try:
        assert InputFolder(folder).walk().unusable == {"sub": "may not be read (Permission denied)"}
    finally:
        (folder / "sub").chmod(0o700)


def test_texts_are_utf_8_of_bounded_size():
    assert read_text(io.BytesIO("\ufeffé".encode())) == "é"
    assert read_text(io.BytesIO(b"x" * 10), 10) == "x" * 10
    for data, reason in ((b"x" * 11, "more than 10 bytes"), (b"abc\xff", "not UTF-8 at byte 3")):
        with pytest.raises(ValueError, match=reason):
            read_text(io.BytesIO(data), 10)
