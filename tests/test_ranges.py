"""Ranges of numbers: every number of every configuration has one, and what lies outside is named."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Annotated

import pytest

from tests.config.test_io import DIT_RUN, VAE_RUN
from videodit.config.run import DiTRun, ImportedTextEncoder, ImportedVisionEncoder, VAERun
from videodit.config.schema import from_tree, hints_of, to_tree
from videodit.models.vision import VisionConfig
from videodit.nn.lora import LoRAConfig
from videodit.ranges import Range, check_ranges

EXAMPLES = (
    dataclasses.replace(VAE_RUN, model=dataclasses.replace(VAE_RUN.model, decoder_channels=(8, 8))),
    dataclasses.replace(DIT_RUN, lora=LoRAConfig()),
    ImportedTextEncoder(model=DIT_RUN.text),
    ImportedVisionEncoder(model=VisionConfig()),
)

# Numbers far from any size that mean something all the same.
MEANINGFUL = {
    "seed": {0},
    "eval_every": {0},
    "save_every": {0},
    "sample_every": {0},
    "ema": {0.0},
    "kl": {0.0},
    "l1": {0.0},
    "l2": {0.0},
    "gradient": {0.0},
    "data.prefetch": {0},
    "data.caption_dropout": {0.0},
    "data.buckets.tokens": {0, 10**12},
    "data.packing.length": {0, 10**12},
    "optim.warmup": {0},
    "optim.decay": {0},
    "optim.final": {0.0},
    "optim.b1": {0.0},
    "optim.b2": {0.0},
    "optim.eps": {0.0},
    "optim.weight_decay": {0.0},
    "optim.clip": {0.0},
    "mesh.data": {-1},
    "mesh.fsdp": {-1},
    "mesh.context": {-1},
    "mesh.tensor": {-1},
    "mesh.ulysses": {0, 10**12},
    "model.eps": {0.0},
    "text.eps": {0.0},
    "model.image_tokens": {0},
    "model.logvar_range": {0.0, -1.0},
    "model.attention.sinks": {0, 10**12},
    "objective.timesteps.mean": {0.0, -1.0},
    "sampler.t_min": {0.0},
    "sampler.guidance": {0.0, -1.0},
    "sampler.guidance_interval": {0.0},
    "sampler.guidance_rescale": {0.0},
    "sampler.expert_boundary": {0.0},
    "sampler.low_noise_guidance": {0.0, -1.0},
}


def number_in(hint):
    """Return whether an annotation has whole numbers (int), others (float), or none."""
    if hint in (int, float):
        return hint
    return next(filter(None, map(number_in, typing.get_args(hint))), None)


def numbers_of(config, path=""):
    """Yield the path, the owner and the kind of every number of a configuration."""
    for name, hint in hints_of(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from numbers_of(value, f"{path}{name}.")
        elif (kind := number_in(hint)) is not None:
            yield f"{path}{name}", config, kind


NUMBERS = [(type(run), *entry) for run in EXAMPLES for entry in numbers_of(run)]


def replaced(value, number):
    """Return a value with `number` in place of its first number."""
    return (replaced(value[0], number), *value[1:]) if isinstance(value, tuple) else number


def test_the_examples_have_all_numbers():
    assert {cls for cls, *_ in NUMBERS} == {VAERun, DiTRun, ImportedTextEncoder, ImportedVisionEncoder}
    assert len(NUMBERS) > 140
    assert {path for path, *_ in MEANINGFUL.items()} <= {path for _, path, *_ in NUMBERS}


@pytest.mark.parametrize(("run", "path", "owner", "kind"), NUMBERS)
def test_a_number_out_of_range_is_named(run, path, owner, kind):
    name = path.rpartition(".")[2]
    for number in map(kind, (0, -1, 10**12)):
        change = {name: replaced(getattr(owner, name), number)}
        if number in MEANINGFUL.get(path, ()):
            dataclasses.replace(owner, **change)
            continue
        with pytest.raises(ValueError, match=rf"\b{name} (is|must be|\d)"):
            dataclasses.replace(owner, **change)
    for number in map(float, ("nan", "inf", "-inf")):
        change = {name: replaced(getattr(owner, name), number)}
        with pytest.raises(ValueError, match=rf"^{name}(\[0\])* must be an? (int|finite number)"):
            from_tree(type(owner), to_tree(owner) | change)
        if kind is float:
            with pytest.raises(ValueError, match=rf"^{name} is .*{number}.*must be from "):
                dataclasses.replace(owner, **change)


@dataclass(frozen=True)
class Example:
    side: Annotated[int, Range(-1, 8, excluded=0)] | None = 4
    sizes: Annotated[tuple[tuple[int, ...], ...], Range(1, 3)] = ()

    def __post_init__(self):
        check_ranges(self)


def test_ends_belong_to_a_range_and_excluded_numbers_do_not():
    for side in (-1, 1, 8, None):
        assert Example(side).side == side
    for side in (-2, 0, 9):
        with pytest.raises(ValueError, match=rf"^side is {side}: it must be from -1 to 8, but not 0$"):
            Example(side)


def test_every_number_of_a_tuple_counts():
    assert Example(sizes=((1, 2), (3,))).sizes == ((1, 2), (3,))
    with pytest.raises(ValueError, match=r"^sizes is \(\(1, 2\), \(4,\)\): each of its numbers must be from 1 to 3$"):
        Example(sizes=((1, 2), (4,)))


@pytest.mark.parametrize("value", ["8", True, float("nan"), [], {}])
def test_what_is_no_number_is_in_no_range(value):
    assert value not in Range(-(10**9), 10**9)
