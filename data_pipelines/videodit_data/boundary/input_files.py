"""Safe reading of folders that others filled: regular files, no links out of the folder, texts of bounded size."""

import os
import stat
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from io import BufferedIOBase
from pathlib import Path

MOST_TEXT = 2**20  # bytes of a caption file, characters of a line of a table
SYSTEM_FOLDERS = ("/proc", "/dev", "/sys")
_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}

FileOpener = Callable[[str | os.PathLike[str]], BufferedIOBase]


class NotRegular(ValueError):
    """A path that is no regular file; the message says what it is."""


def open_regular(path: str | os.PathLike[str]) -> BufferedIOBase:
    """Open a regular file to read, never waiting for a pipe or a device. NotRegular when it is something else.

    The path is one of the file system whatever it looks like, as an address or as an option.
    """
    _check_regular(os.stat(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check_regular(os.fstat(descriptor))  # the path may have been exchanged
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def open_stream(path: str | os.PathLike[str]) -> BufferedIOBase:
    """Open a regular file, a pipe or a character device such as /dev/stdin, for a read with a bound.

    It waits for the writer of a pipe. NotRegular when the path is something else.
    """
    mode = os.stat(path).st_mode
    return open(path, "rb") if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) else open_regular(path)


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_kind, kind in _KINDS.items() if is_kind(status.st_mode)), "something else")
        raise NotRegular(f"{kind}, not a regular file")


def read_text(file: BufferedIOBase, most: int = MOST_TEXT) -> str:
    """Read UTF-8, without a byte order mark. ValueError when it is not, or has more than `most` bytes."""
    data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most} bytes, the most that is read of a text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from error


@dataclass(frozen=True)
class Walk:
    """The files below a folder by their names relative to it, and unusable entries: name and reason, by name.

    linked_folders: the unusable entries that are links to folders.
    """

    files: dict[str, Path] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    linked_folders: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class InputFolder:
    """A folder whose files are read, those below links out of it only with `follow_links`.

    Links into /proc, /dev and /sys, and to anything but regular files, are never followed. The folder's own path may be
    a link.
    """

    root: Path
    follow_links: bool = False

    def resolve(self, path: str | os.PathLike[str]) -> str:
        """Return the real path of a file or folder below the root. ValueError when it may not be read.

        The message says what it is.
        """
        real, root = os.path.realpath(path), os.path.realpath(self.root)
        is_link = real != os.path.join(root, os.path.relpath(os.path.abspath(path), os.path.abspath(self.root)))
        if is_link and (system := next((top for top in SYSTEM_FOLDERS if _is_below(real, top)), None)):
            raise ValueError(f"a link into {system}, which is never read")
        try:
            status = os.stat(real)
        except OSError as error:
            if not is_link and not os.path.islink(path):
                raise
            raise ValueError(f"a link to nothing ({os.fsencode(real).decode('utf-8', 'replace')})") from error
        if not stat.S_ISDIR(status.st_mode):
            try:
                _check_regular(status)
            except NotRegular as error:
                raise ValueError(f"a link to {error}" if is_link else str(error)) from None
        if is_link and not self.follow_links and not _is_below(real, root):
            target = os.fsencode(real).decode("utf-8", "replace")
            raise ValueError(f"a link out of its folder, to {target} (only --follow-links reads it)")
        return real

    def open(self, path: str | os.PathLike[str]) -> BufferedIOBase:
        """Open a file below the root. ValueError as `resolve`, also when the path is exchanged meanwhile."""
        real = self.resolve(path)
        file = open_regular(real)
        try:
            opened, present = os.fstat(file.fileno()), os.lstat(self.resolve(path))
        except BaseException:
            file.close()
            raise
        if not os.path.samestat(opened, present):
            file.close()
            raise ValueError("exchanged while it was opened")
        return file

    def walk(self, without: Collection[str] = (), *, depth: int | None = None) -> Walk:
        """Find the files in the folder and below, apart from hidden ones and the real paths `without`.

        Each real folder is read once: links that lead in circles are named. `depth` limits the levels of folders.
        """
        found = Walk()
        root = os.path.realpath(self.root)
        seen, folders, links = {root}, deque([("", str(self.root))]), deque()
        while folders or links:
            if not folders:  # real folders first: what they hold has its own name
                name, path = links.popleft()
                if (real := self._linked(name, path, seen, found)) is None or real in without:
                    continue
                seen.add(real)
                folders.append((name + "/", path))
            prefix, folder = folders.popleft()
            for entry in self._entries(folder, prefix, found):
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    real = os.path.realpath(entry.path)
                    if real in SYSTEM_FOLDERS:
                        found.unusable[name] = "a folder of the system, which is never read"
                    elif real not in seen and real not in without and (depth is None or name.count("/") < depth - 1):
                        seen.add(real)
                        folders.append((name + "/", entry.path))
                elif entry.is_symlink() and os.path.isdir(entry.path):
                    links.append((name, entry.path))
                else:
                    self._add_file(name, entry, found)
        return found

    def _entries(self, folder: str, prefix: str, found: Walk) -> Iterator["os.DirEntry[str]"]:
        try:
            with os.scandir(folder) as entries:
                yield from sorted((each for each in entries if not each.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            found.unusable[prefix.rstrip("/") or "."] = f"may not be read ({error.strerror})"

    def _linked(self, name: str, path: str, seen: Collection[str], found: Walk) -> str | None:
        """Return the real path of a linked folder to read, or note why it is not read."""
        try:
            real = self.resolve(path)
            if not self.follow_links:
                raise ValueError("a link to a folder (only --follow-links reads it)")
            if real in seen:
                raise ValueError("a link to a folder that is read already")
        except ValueError as error:
            found.unusable[name] = str(error)
            found.linked_folders.add(name)
            return None
        return real

    def _add_file(self, name: str, entry: "os.DirEntry[str]", found: Walk) -> None:
        try:
            if entry.is_symlink():
                self.resolve(entry.path)
            else:
                _check_regular(entry.stat(follow_symlinks=False))
            found.files[name] = Path(entry.path)
        except ValueError as error:
            found.unusable[name] = str(error)
        except OSError as error:
            found.unusable[name] = f"may not be read ({error.strerror})"


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
