"""Printing of foreign text (names, captions, prompts, replies): nothing in it controls the terminal."""

import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# Controls apart from tabs and line ends, marks that turn the direction of text, line ends of Unicode, lone surrogates.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNWRAPPED = 1 << 20


def escape_controls(text: str) -> str:
    r"""Return the text with characters that control a terminal or the direction of text as \x1b or \u202e."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def plain_text(text: str) -> Text:
    """Return foreign text for any console: without markup, and with controls escaped."""
    return Text(escape_controls(text))


def print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback with controls escaped; for `sys.excepthook`."""
    sys.stderr.write(escape_controls("".join(traceback.format_exception(kind, error, trace))))


class SafeConsole(Console):
    """A console that prints foreign text: as it is, without markup or emoji codes, and with controls escaped."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False):
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = _UNWRAPPED  # a pipe has no columns, and what reads it wants whole lines

    def rule(self, title: str = "", **options: Any) -> None:
        """Print a heading, on a terminal within a line over its width."""
        self.print(title) if self.width == _UNWRAPPED else super().rule(title, **options)

    def render_str(self, text: str, **options: object) -> Text:
        """Return the text to render, escaped before it is laid out."""
        return super().render_str(escape_controls(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of anything, their text escaped; the console's own controls pass."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else escape_controls(segment.text)
            yield Segment(text, segment.style, segment.control)


class SafeFormatter(logging.Formatter):
    """A formatter of log lines with controls escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return escape_controls(super().format(record))
