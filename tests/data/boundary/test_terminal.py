"""Foreign text on a terminal: whatever prints it, no control reaches the terminal."""

import io
import logging
import random
import re

import pytest
from rich.panel import Panel
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text
from videodit_data.boundary.terminal import SafeConsole, SafeFormatter, escape_controls, plain_text, print_exception

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
CONTROLS = [chr(n) for n in (*range(0x20), *range(0x7F, 0xA0)) if chr(n) not in "\t\n"]
UNSAFE = [*CONTROLS, *BIDI, "\u2028", "\u2029", "\ud800", "\udc80", "\udfff"]
SAFE = ["a fox", "[bold]", "[/b]", ":cat:", "\\", "é", "狐", "👩\u200d🚀", "\t", "می\u200cروم", "\u00a0"]


def foreign_texts(count: int) -> list[str]:
    """Return texts of harmless and harmful parts, each harmful character in at least one."""
    rng = random.Random(0)
    texts = ["".join(rng.choices(UNSAFE + SAFE, k=rng.randrange(1, 12))) for _ in range(count)]
    return [f"x{character}y" for character in UNSAFE] + texts


@pytest.mark.parametrize("character", UNSAFE, ids=lambda c: f"U+{ord(c):04X}")
def test_each_control_is_shown_as_its_number(character):
    number = ord(character)
    shown = f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
    assert escape_controls(f"a{character}b") in (f"a{shown}b", "a\\rb")


def test_other_text_stays_as_it_is_and_escaping_twice_changes_nothing():
    assert escape_controls("".join(SAFE) + "\n") == "".join(SAFE) + "\n"
    for text in foreign_texts(500):
        assert escape_controls(escape_controls(text)) == escape_controls(text)


def table_of(text: str) -> Table:
    table = Table(text, "b", title=text, caption=text)
    table.add_row(text, Text(text))
    table.add_row(plain_text(text), Panel(text))
    return table


WAYS = {
    "text": lambda console, text: console.print(text),
    "wrapped": lambda console, text: console.print(text, soft_wrap=True, style="bold red"),
    "markup on": lambda console, text: console.print(Text(text), markup=True, highlight=True),
    "table": lambda console, text: console.print(table_of(text)),
    "rule": lambda console, text: console.rule(text),
    "log": lambda console, text: console.log(text),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_of_printing_passes_a_control(way):
    console = SafeConsole()
    for text in foreign_texts(40):
        console.file = io.StringIO()
        WAYS[way](console, text)
        printed = console.file.getvalue()
        assert not set(printed) & set(UNSAFE), repr(text)
        printed.encode()


def test_the_consoles_own_controls_pass(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = SafeConsole()
    console.file = io.StringIO()
    with Progress(TextColumn("{task.description}", markup=False), console=console) as progress:
        progress.add_task("\x1b]0;title\x07 \u202e", total=1)
    printed = console.file.getvalue()
    assert "\x1b[" in printed  # colors and the cursor
    assert not set(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", printed)) & set(UNSAFE)
    assert "\\x1b]0;ti" in printed


def test_foreign_text_is_no_markup_and_no_emoji():
    console = SafeConsole()
    console.file = io.StringIO()
    console.print("[bold]:cat:[/nothing]")
    assert console.file.getvalue() == "[bold]:cat:[/nothing]\n"


def test_log_lines_and_tracebacks_are_escaped(capsys):
    record = logging.LogRecord("a", logging.WARNING, "f", 1, "no %s", ("\x1b[2J\u202e",), None)
    assert SafeFormatter("%(levelname)s: %(message)s").format(record) == "WARNING: no \\x1b[2J\\u202e"
    try:
        raise KeyError("\x1b[2J") from ValueError("\u202e\x9b")
    except KeyError as error:
        print_exception(type(error), error, error.__traceback__)
    printed = capsys.readouterr().err
    assert "Traceback" in printed and "KeyError" in printed and not set(printed) & set(UNSAFE)


@pytest.mark.parametrize("columns", [None, "40"])
def test_lines_to_a_pipe_are_not_wrapped(columns, monkeypatch, capsys):
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    console = SafeConsole()
    console.print("word " * 100 + "end")
    assert len(capsys.readouterr().out.splitlines()) == (1 if columns is None else 13)
    console.rule("1/5  clips")
    assert len(capsys.readouterr().out) <= 41
