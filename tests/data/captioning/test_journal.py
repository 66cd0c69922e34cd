from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videodit_data.captioning.captioner import Failure
from videodit_data.captioning.journal import Entry, Journal, read_entry

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ANSWERS = st.dictionaries(TEXT, TEXT, max_size=3) | st.builds(Failure, TEXT, TEXT)


def entry(number: int, text: str = "a cube") -> Entry:
    return Entry(f"clip-{number}", f"{number:064d}", f"question {number}", {"short": text})


@settings(deadline=None)
@given(TEXT, ANSWERS)
def test_an_entry_survives_as_one_line(text, answer):
    original = Entry(text, "sha", "asked", answer)
    line = original.to_json()
    assert read_entry(line) == read_entry(line.encode()) == original and "\n" not in line


def test_answers_are_found_again_in_another_run(tmp_path: Path):
    with Journal(tmp_path / "j") as journal:
        journal.put([entry(0), entry(1, "zwei Würfel")])
        journal.put([])
        journal.put([Entry("clip-2", "2", "question 2", Failure("too long", "by far"))])
        assert journal.get("question 1") == {"short": "zwei Würfel"}
    with Journal(tmp_path / "j") as journal:
        assert len(journal) == 3
        assert journal.get("question 0") == {"short": "a cube"}
        assert journal.get("question 2") == Failure("too long", "by far")
        assert journal.get("question 3") is None


def test_a_journal_cut_anywhere_keeps_all_whole_lines_and_resumes(tmp_path: Path):
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.put([entry(n) for n in range(3)])
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with Journal(path) as journal:
            line_count = data[:length].count(b"\n")
            assert len(journal) == line_count
            journal.put([entry(9, "again")])
        with Journal(path) as journal:
            assert len(journal) == line_count + 1 and journal.get("question 9") == {"short": "again"}
        assert path.read_bytes().startswith(data[: data[:length].rfind(b"\n") + 1])


@pytest.mark.parametrize("line", ["junk", "[]", "{}", '{"clip": "a", "sha256": "b", "asked": "c", "captions": 3}'])
def test_a_bad_line_is_named_and_nothing_is_lost(tmp_path: Path, line: str):
    path = tmp_path / "j"
    path.write_text(f"{entry(0).to_json()}\n{line}\n{entry(1).to_json()}\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"j, line 2, is not an answer of a captioner"):
        Journal(path)
    assert path.read_bytes() == before


def test_an_answer_that_cannot_be_written_is_an_error_and_leaves_no_half_line(tmp_path: Path, monkeypatch):
    with Journal(tmp_path / "j") as journal:
        journal.put([entry(0)])

        def full(number: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left") as raised:
            journal.put([entry(1)])
        assert raised.value.filename == str(tmp_path / "j")
        monkeypatch.undo()
        assert journal.get("question 1") is None
        journal.put([entry(2)])
    with Journal(tmp_path / "j") as journal:
        assert len(journal) == 2 and journal.get("question 2") == {"short": "a cube"}
