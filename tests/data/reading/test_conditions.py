"""Named conditioning inputs: registered from outside, computed for every clip, the same whatever the threads."""

import dataclasses
import json
from itertools import islice

import numpy as np
import pytest
from videodit_data.function_registry import FunctionRegistry
from videodit_data.reading import conditions
from videodit_data.reading.batch_iterator import BatchIterator
from videodit_data.reading.buckets import Buckets
from videodit_data.reading.conditions import SampledClip, register_condition
from videodit_data.reading.mixture import WeightedDataset
from videodit_data.reading.packing import Packing
from videodit_data.reading.reader_config import ReaderConfig
from videodit_data.reading.text_inputs import TokenizedText
from videodit_data.tokenizer import NoTokenizer

TEXT = TokenizedText(NoTokenizer(), 4)
BUCKETS = Buckets(resolutions=(32,), aspects=(1.0, 1.5), frames=(5, 9), fps=8.0, tokens=60)


def mean_level(clip: SampledClip) -> np.ndarray:
    """Return the mean of every frame, plus noise."""
    noise = 0.0 if clip.rng is None else clip.rng.random()
    return (clip.video.mean((1, 2, 3)) + noise).astype(np.float32)


def number(clip: SampledClip) -> np.int32:
    """Return the clip's number, a scalar."""
    return np.int32(clip.record.id.removeprefix("clip-"))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(conditions, "_CONDITIONS", FunctionRegistry("condition", "videodit_data.conditions"))
    register_condition("mean_level", mean_level)
    register_condition("number", number)


@pytest.fixture
def config(tmp_path, data_set):
    path = data_set(tmp_path / "set", [5, 9, 7, 12, 9])
    names = ("mean_level", "number")
    return ReaderConfig((WeightedDataset(str(path)),), BUCKETS, num_threads=1, conditions=names)


def take(config, count, state=None):
    reader = BatchIterator(config, TEXT)
    if state is not None:
        reader.set_state(state)
    batches = list(islice(reader, count))
    reader.close()
    return batches, json.loads(json.dumps(reader.get_state()))


def assert_equal(one, other):
    assert one.clip_ids == other.clip_ids
    for name, value in one.arrays.arrays().items():
        np.testing.assert_array_equal(value, other.arrays.arrays()[name])


def test_they_are_stacked_in_every_batch_and_padding_is_zero(config):
    batches, _ = take(config.as_evaluation(), 10)
    assert {len(batch.arrays.video[0]) for batch in batches} == {5, 9} and not all(map(_full, batches))
    for batch in batches:
        levels, numbers = (batch.arrays.conditions[name] for name in ("mean_level", "number"))
        assert levels.dtype == np.float32 and numbers.dtype == np.int32
        np.testing.assert_allclose(levels, batch.arrays.video.mean((2, 3, 4)), rtol=1e-6)
        ids = [int(id.removeprefix("clip-")) if id else 0 for id in batch.clip_ids]
        assert numbers.tolist() == ids and "conditions/number: int32 [" in repr(batch)


def _full(batch):
    return batch.arrays.valid.all()


def test_threads_and_pauses_change_no_bit_of_them_and_they_change_no_other(config):
    straight, _ = take(config, 6)
    threaded, _ = take(dataclasses.replace(config, num_threads=4), 6)
    before, state = take(config, 2)
    after, _ = take(config, 4, state)
    for one, other, resumed in zip(straight, threaded, before + after, strict=True):
        assert_equal(one, other)
        assert_equal(one, resumed)
    without, _ = take(dataclasses.replace(config, conditions=()), 6)
    for one, other in zip(without, straight, strict=True):
        assert_equal(one, other)


def test_a_state_of_other_conditions_is_refused(config):
    _, state = take(config, 1)
    for names in ((), ("number",)):
        with pytest.raises(ValueError, match="other data: conditions differ"):
            take(dataclasses.replace(config, conditions=names), 1, state)


def test_mistakes_are_one_sentence(config):
    with pytest.raises(ValueError, match="'depth' is registered; registered conditions: mean_level, number"):
        dataclasses.replace(config, conditions=("depth",))
    with pytest.raises(ValueError, match="Packed sequences carry no conditions"):
        dataclasses.replace(config, shapes=Packing(64))
    with pytest.raises(ValueError, match="'number' is registered already"):
        register_condition("number", mean_level)
    register_condition("number", number)  # as a notebook's cell does when it is run again
    with pytest.raises(ValueError, match="an identifier, not 'my depth'"):
        register_condition("my depth", mean_level)
    register_condition("double", lambda clip: np.zeros(2))
    with pytest.raises(ValueError, match=r"'double' of clip clip-00. is float64; expected a float32"):
        take(dataclasses.replace(config, conditions=("double",)), 1)
    register_condition("ragged", lambda clip: np.zeros(int(clip.record.id[-1]), np.float32))
    with pytest.raises(ValueError, match="all of a bucket must have the same"):
        take(dataclasses.replace(config, conditions=("ragged",)), 4)
