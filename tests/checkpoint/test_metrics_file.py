import json
import math
import random
import re

import pytest

from tests.train.toy import toy_run
from videodit.checkpoint.metrics_file import METRICS_FILE, drop_after, read_metrics
from videodit.checkpoint.workdir import prepare_workdir

GOOD = [{"step": step, "loss": step / 8, "eval/l1": 1e-9} for step in range(1, 4)]


def line_of(entry):
    return json.dumps(entry).encode() + b"\n"


def write(workdir, *lines):
    (workdir / METRICS_FILE).write_bytes(b"".join(lines))


def damaged_lines():
    """Yield lines that are no entries: values of wrong types under each key, wrong JSON, and bytes that are no text."""
    rng = random.Random(0)
    values = ["7", "", None, True, [], [7], {}, {"loss": 7}, "\ud800", 7.0, -1, math.nan, math.inf]
    for value in values:
        yield line_of({"step": value, "loss": 0.5})
        yield line_of(value)
        if not isinstance(value, float | int) or isinstance(value, bool):
            yield line_of({"step": 7, "loss": value})
    yield from (b"\n", b"nan\n", b"{}\n", b'{"loss": 1}\n', b'{"step": 7, "step": 8}\n', b"[" * 100_000 + b"\n")
    yield b'{"step": ' + b"9" * 5000 + b"}\n"
    entry = line_of(GOOD[0])
    yield from (entry[:end] + b"\n" for end in range(len(entry) - 1))  # cut, with later lines after it
    yield from (b"\xef\xbb\xbf" + entry, b"\xff\xfe" + entry.decode().encode("utf-16-le") + b"\n")
    yield from (bytes(rng.randrange(11, 256) for _ in range(rng.randrange(1, 40))) + b"\n" for _ in range(50))
    for _ in range(100):  # a bracket, quote or colon that became another byte
        broken = bytearray(entry)
        broken[rng.choice([i for i, byte in enumerate(entry[:-1]) if chr(byte) in '{}":,'])] = rng.choice(b"\x00\x80;[")
        yield bytes(broken)


def test_entries_come_back_and_numbers_that_are_none_too(tmp_path):
    assert read_metrics(tmp_path) == []
    write(tmp_path, *map(line_of, GOOD), b'{"step": 4, "loss": NaN, "norm": -Infinity, "clips": 3}\n')
    *entries, last = read_metrics(tmp_path)
    assert entries == GOOD
    assert math.isnan(last["loss"])
    assert last["norm"] == -math.inf
    drop_after(tmp_path / METRICS_FILE, 4)
    assert math.isnan(read_metrics(tmp_path)[-1]["loss"])


def test_an_end_cut_off_anywhere_is_left_out_and_said(tmp_path, caplog):
    entry = line_of({"step": 4, "loss": 0.5})
    for cut in [*(entry[:end] for end in range(1, len(entry) - 1)), b"\0" * 100, entry[:7] + b"\0" * 9, b"\xff"]:
        write(tmp_path, *map(line_of, GOOD), cut)
        caplog.clear()
        assert read_metrics(tmp_path) == GOOD
        assert f"{tmp_path / METRICS_FILE}: its last line, cut off while being written, is left out" in caplog.text
        drop_after(tmp_path / METRICS_FILE, 9)
        assert (tmp_path / METRICS_FILE).read_bytes() == b"".join(map(line_of, GOOD))
    write(tmp_path, *map(line_of, GOOD), entry[:-1])
    caplog.clear()
    assert read_metrics(tmp_path)[-1]["step"] == 4, "only the end of its line is missing"
    assert not caplog.text


@pytest.mark.parametrize("newline", [b"", b"\n"])
def test_a_tail_of_zeros_as_after_a_power_cut_is_an_end_cut_off(tmp_path, caplog, newline):
    entry = line_of({"step": 4, "loss": 0.5})
    for start in range(len(entry)):
        write(tmp_path, *map(line_of, GOOD), entry[:start] + bytes(5000) + newline)
        caplog.clear()
        entries = read_metrics(tmp_path)
        is_whole = start == len(entry) - 1
        assert entries == GOOD + [{"step": 4, "loss": 0.5}] * is_whole
        assert ("its last line, cut off while being written, is left out" in caplog.text) != is_whole
        drop_after(tmp_path / METRICS_FILE, 9)
        assert (tmp_path / METRICS_FILE).read_bytes() == b"".join(map(line_of, GOOD)) + entry * is_whole
    write(tmp_path, bytes(5000) + newline)
    assert read_metrics(tmp_path) == []


def test_any_other_damage_is_a_sentence_with_file_and_line_before_anything_is_written(tmp_path):
    path, count = tmp_path / METRICS_FILE, 0
    for damaged in damaged_lines():
        write(tmp_path, line_of(GOOD[0]), damaged, line_of(GOOD[1]))
        before = path.read_bytes()
        start = re.escape(f"{path}, line 2, is damaged: it holds ")
        for use in (lambda: read_metrics(tmp_path), lambda: drop_after(path, 1)):
            with pytest.raises(ValueError, match=start) as raised:
                use()
            message = str(raised.value)
            assert len(message) < 700 and message.isprintable() and message.isascii()
        assert path.read_bytes() == before
        count += 1
    assert count > 200
    with pytest.raises(ValueError, match=start):
        prepare_workdir(tmp_path, toy_run())
    assert [each.name for each in tmp_path.iterdir()] == [METRICS_FILE]


def test_what_is_wrong_is_named(tmp_path):
    reasons = {
        b'{"step": "7"}\n': "whose step is no whole number of 0 or more",
        b"\xff\n": "which is no UTF-8",
        b"{\n": "which is no JSON",
        b"[]\n": "which is no object",
        b'{"loss": 1}\n': "which has no step",
        b'{"step": 1, "loss": "x"}\n': "whose 'loss' is no number",
        b'{"step": 1, "step": 2}\n': "which has a key twice",
    }
    for line, reason in reasons.items():
        write(tmp_path, line)
        with pytest.raises(ValueError, match=f'{reason}; right is an object such as {{"step": 7, "loss": 0.5}}'):
            read_metrics(tmp_path)


def test_dropping_needs_no_file_and_writes_only_what_changes(tmp_path):
    path = tmp_path / METRICS_FILE
    drop_after(path, 3)
    assert not list(tmp_path.iterdir())
    write(tmp_path, *map(line_of, GOOD))
    before = path.stat()
    drop_after(path, 3)
    assert path.stat().st_ino == before.st_ino
    drop_after(path, 2)
    assert read_metrics(tmp_path) == GOOD[:2]
