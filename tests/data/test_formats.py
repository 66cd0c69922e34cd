"""Data formats: registered by name from anywhere, opened by the prefix of a path, served like any other data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from videodit_data.formats import open_dataset, register_format, registry
from videodit_data.function_registry import FunctionRegistry
from videodit_data.reading.batch_iterator import BatchIterator
from videodit_data.reading.buckets import OneSize
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import TokenizedText
from videodit_data.storage.dataset import Dataset, open_directory
from videodit_data.tokenizer import NoTokenizer


@pytest.fixture
def formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a registry of this test alone."""
    monkeypatch.setattr(registry, "_OPENERS", FunctionRegistry("data format", "videodit_data.formats"))


def test_a_registered_format_is_served_like_a_directory(
    tmp_path: Path, data_set: Callable[..., Path], formats: None
) -> None:
    for _ in range(2):  # as when a notebook's cell runs twice: another function, from the same place

        def open_mirror(path: str) -> Dataset:
            return open_directory(tmp_path / path.removeprefix("mirror:"))

        register_format("mirror", open_mirror)
    data_set(tmp_path / "set", [5, 6])
    batches = [
        next(BatchIterator(ReaderConfig((WeightedDataset(path),), OneSize(5, 16, 16), batch_size=2), text))
        for text in [TokenizedText(NoTokenizer(), 4)]
        for path in (str(tmp_path / "set"), "mirror:set")
    ]
    assert batches[0].clip_ids == batches[1].clip_ids
    np.testing.assert_array_equal(batches[0].arrays.video, batches[1].arrays.video)


def test_names_are_one_functions_and_identifiers(formats: None) -> None:
    register_format("mine", open_directory)
    with pytest.raises(ValueError, match="'mine' is registered already"):
        register_format("mine", lambda path: open_directory(path))
    with pytest.raises(ValueError, match="lower-case letters, digits and underscores, not 'My Format'"):
        register_format("My Format", open_directory)


def test_a_colon_in_a_directorys_name_is_no_format(tmp_path: Path, data_set: Callable[..., Path]) -> None:
    assert len(open_dataset(data_set(tmp_path / "of:day", [5])).records) == 1
    with pytest.raises(ValueError, match="nowhere:set is not a directory, and 'nowhere' is not a registered"):
        open_dataset("nowhere:set")
    with pytest.raises(ValueError, match=r"gs:/+bucket/set is not a data set"):
        open_dataset("gs://bucket/set")
