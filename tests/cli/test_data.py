"""What `videodit data` says to mistakes, and what it never overwrites."""

import pytest

from tests.data import conftest as data_fixtures
from videodit.cli.main import main

numbered, data_set = data_fixtures.numbered, data_fixtures.data_set


@pytest.fixture
def said(capfd):
    """said(*words) -> exit status, and what was written to the terminal, on one line."""

    def run(*words):
        capfd.readouterr()
        try:
            status = main(["data", *map(str, words)])
        except SystemExit as ended:  # argparse's
            status = ended.code
        return status, " ".join("".join(capfd.readouterr()).split())

    return run


@pytest.fixture(scope="module")
def clips(data_set, tmp_path_factory):
    """Four videos of 5 to 17 frames."""
    return data_set(tmp_path_factory.mktemp("sets") / "clips", [5, 9, 17, 9])


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("action", ["tokenizer", "report"])
@pytest.mark.parametrize("file", ["manifest.json", "*.array_record", "."])
def test_nothing_but_its_own_kind_is_overwritten(clips, said, action, file):
    before = contents(clips)
    status, told = said(action, clips, "--out", next(clips.glob(file)) if file != "." else clips)
    assert status == 2 and "choose another place, nothing was written" in told
    assert contents(clips) == before


def test_a_tokenizer_is_never_replaced_by_another(clips, tmp_path, said):
    out = tmp_path / "tokenizer.model"
    assert said("tokenizer", clips, "--out", out, "--vocabulary", 60)[0] == 0
    before = out.read_bytes()
    assert said("tokenizer", clips, "--out", out, "--vocabulary", 60)[0] == 0
    status, told = said("tokenizer", clips, "--out", out, "--vocabulary", 50)
    assert status == 2 and "is another tokenizer" in told and contents(tmp_path) == {out.name: before}


@pytest.mark.parametrize(("pieces", "words"), [(2, "from 4 to"), (5, "it needs"), (2**40, "from 4 to")])
def test_sizes_that_no_tokenizer_has(clips, tmp_path, said, pieces, words):
    status, told = said("tokenizer", clips, "--out", tmp_path / "tokenizer.model", "--vocabulary", pieces)
    assert status == 2 and words in told and "INTERNAL" not in told and not any(tmp_path.iterdir())
