"""Options that are numbers: each refuses what no run can use when the command line is parsed, before any work."""

import argparse
from collections.abc import Iterator

import pytest

from videodit.cli.main import _build_parser, main
from videodit.cli.number_options import Number

ABSURD = ("nan", "inf", "-inf", "-1", str(10**15), "1e400", "9" * 5000, "x", "")
UNCHECKED = {
    ("sample", "--step"): "a checkpoint's step, looked up among those that there are",
    ("sample", "--steps"): "checked with the sampler's configuration",
    ("sample", "--guidance"): "checked with the sampler's configuration",
}
LISTS = ("--resolutions", "--frames", "--aspects")  # with commas between


def choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def numbers() -> Iterator[tuple[str, argparse.Action]]:
    """Yield the actions of `videodit data` and `videodit sample` whose values are converted to anything but paths."""
    commands = choices(_build_parser())
    for name, parser in {**choices(commands["data"]), "sample": commands["sample"]}.items():
        for action in parser._actions:
            is_number = action.type in (int, float) or isinstance(action.type, Number)
            is_list = action.option_strings[:1] and action.option_strings[0] in LISTS and action.type is not None
            if is_number or is_list:
                yield name, action


NUMBERS = [(name, action) for name, action in numbers() if (name, action.option_strings[0]) not in UNCHECKED]


def test_the_walk_finds_the_options():
    found = {(name, action.option_strings[0]) for name, action in numbers()}
    assert found >= {("toyworld", "--fps"), ("buckets", "--stride"), ("encode", "--process"), ("caption", "--deadline")}
    assert found >= {("encode", "--aspects"), ("tokenizer", "--vocabulary"), ("sample", "--tile"), *UNCHECKED}
    assert len(NUMBERS) > 40


@pytest.mark.parametrize(
    ("name", "action"), NUMBERS, ids=[f"{name} {action.option_strings[0]}" for name, action in NUMBERS]
)
def test_every_number_refuses_what_it_cannot_be(name: str, action: argparse.Action):
    assert action.type not in (int, float), "it needs a range"
    zero = () if action.option_strings[0] in ("--seed", "--process") else ("0",)
    for text in (*ABSURD, *zero):
        with pytest.raises(argparse.ArgumentTypeError) as refused:
            action.type(text)
        assert "from " in str(refused.value) and len(str(refused.value)) < 250
    if isinstance(action.type, Number):
        allowed = action.type.allowed
        assert (action.type(str(allowed.least)), action.type(str(allowed.most))) == (allowed.least, allowed.most)
        assert action.default is None or action.default in allowed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["toyworld", "--out", "x", "--fps", "nan"], "--fps: 'nan' is not a number from 0.001 to 1000000.0"),
        (["toyworld", "--out", "x", "--clips", "-1"], "--clips: '-1' is not a whole number from 1 to 16777216"),
        (["tokenizer", "x", "--out", "x", "--vocabulary", "9" * 99], f"--vocabulary: '{'9' * 40}' is not a whole"),
    ],
)
def test_a_sentence_names_the_option_its_value_and_what_is_allowed(words: list[str], message: str, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["data", *words])
    assert ended.value.code == 2 and f"error: argument {message}" in capsys.readouterr().err
