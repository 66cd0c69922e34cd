import io

from rich.console import Console

from videodit.train import progress
from videodit.train.progress import TerminalProgress


def test_plain_lines_come_every_few_seconds_and_at_the_end(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with TerminalProgress("dit", 10, 40, Console(file=out)) as shown:
        shown.message("[a] line")
        for step in range(11, 41):
            shown.update(step, 0.5, 4)
            now[0] += 1.0
    lines = out.getvalue().splitlines()
    assert lines[:3] == [
        "dit: [a] line",
        "dit: step 11/40  loss 0.5000",
        "dit: step 16/40  loss 0.5000  4 clips/s  0:24 left",
    ]
    assert lines[-1] == "dit: step 40/40  loss 0.5000  4 clips/s"
    assert len(lines) == 8


def test_a_terminal_gets_a_bar():
    out = io.StringIO()
    with TerminalProgress("vae", 0, 4, Console(file=out, force_terminal=True, width=120)) as shown:
        for step in range(1, 5):
            shown.update(step, 0.25, 4)
        shown.message("a line above")
    assert "4/4" in out.getvalue()
    assert "loss 0.2500" in out.getvalue()
    assert "a line above" in out.getvalue()
