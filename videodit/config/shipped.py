"""The configuration files that come with the package, found from any folder: a checkout's, or an installed wheel's."""

import importlib.metadata
from pathlib import Path

FOLDER = "configs"
# Where a wheel puts them below the environment; pyproject.toml says the same.
INSTALLED = f"share/videodit/{FOLDER}"


def find_shipped(file: Path) -> Path | None:
    """Return where the shipped file of a name like `configs/dit.py` lies; None if none has that name."""
    if file.parts[:1] != (FOLDER,):
        return None
    path = shipped_folder() / file.relative_to(FOLDER)
    return path if path.is_file() else None


def shipped_folder() -> Path:
    """Return the folder with the shipped files.

    Raises:
        ValueError: when the installation lacks it.
    """
    checkout = Path(__file__).parents[2]
    if (checkout / FOLDER).is_dir() and (checkout / "pyproject.toml").is_file():
        return checkout / FOLDER
    try:
        files = importlib.metadata.files("videodit") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate())).resolve()
        if path.parent.as_posix().endswith(INSTALLED):
            return path.parent
    raise ValueError("this installation of videodit lacks the configuration files that come with it: install it again")
