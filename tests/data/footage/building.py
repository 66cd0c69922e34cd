"""Fixtures: one folder of footage and one data set built from it, for all tests that only read them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from videodit_data.footage import stages
from videodit_data.footage.build import build
from videodit_data.footage.clips import ClipConfig
from videodit_data.footage.config import AnalysisConfig, BuildConfig, Filters, ShardConfig
from videodit_data.footage.filters import Filter
from videodit_data.video.isolate import Limits
from videodit_data.video.transcode import Recode

from tests.data.footage.sources import make_footage

IN_MEMORY = ("--direct_running_mode=in_memory",)

CONFIG = BuildConfig(
    analysis=AnalysisConfig(clips=ClipConfig(min_seconds=1.5, max_seconds=3.0)),
    filters=Filters(luminance=Filter(least=0.1), static=Filter(most=0.9)),
    shards=ShardConfig(clips=2),
    recode=Recode(preset="ultrafast"),
    limits=Limits(seconds=60.0),
    pictures=2,
)


@pytest.fixture(scope="session", autouse=True)
def processes() -> Iterator[None]:
    """Keep the decoding processes for the next build: starting them takes longer than their work here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "end_processes", lambda: None)
        yield
    stages.end_processes()


@pytest.fixture(scope="session")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of `make_footage`."""
    folder = tmp_path_factory.mktemp("raw") / "footage"
    make_footage(folder)
    return folder


@pytest.fixture(scope="session")
def built(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a data set of the footage, with the analyses in a folder next to it."""
    out = tmp_path_factory.mktemp("built") / "set"
    build([str(footage)], out, CONFIG, cache=str(out.with_name("cache")), beam_options=IN_MEMORY)
    return out


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Return a function contents(directory) -> the bytes of all files below it."""

    def read(directory: Path) -> dict[str, bytes]:
        return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}

    return read
