"""Names of video files: which files hold video, and their printable names in a data set."""

import os

# Files with frames: videos, and pictures as clips of one frame.
VIDEOS = (
    *(".mp4", ".webm", ".mov", ".avi", ".gif", ".mkv", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"),
    *(".png", ".jpg", ".jpeg", ".webp"),
)
NOT_UNICODE = "its name is not UTF-8"


def is_video(path: str | os.PathLike[str]) -> bool:
    """Return whether a file's name ends as that of a video or picture."""
    return os.fspath(path).lower().endswith(VIDEOS)


def printable(name: str) -> str:
    """Return a file's name as text, whatever its bytes are: those that are not UTF-8 as their numbers."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
