"""Where the command line writes: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.status import Status
from rich.table import Table
from rich.text import Text

from pipeline.words import one_line

STEERING = {
    code: repr(chr(code))[1:-1]
    for code in (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""Control characters but tabs and ends of lines, and what turns the direction of text: each as what is shown for it."""

WIDEST = 80
"""Columns that a table takes on a narrower screen, too, rather than leave out what has no room."""

HANG = 2
"""Columns by which what goes on in a further line is set in."""


class Screen(Console):
    """A console for text as it is: brackets and colons in it are no markup."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, soft_wrap=True, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich has it, of a cell of a table, too."""
        return super().render_str(harmless(text), **options)

    def tell(self, *lines: str) -> None:
        """Print lines; on a terminal they break between words. Elsewhere a line stays one, for what reads it, whatever
        the names in it hold.
        """
        self.print(Text("\n".join(self.fitted(harmless(one_line(line))) for line in lines)))

    def fitted(self, text: str, hang: int = 0) -> str:
        """Text as a terminal shows it best; as it is elsewhere. hang: what further lines are set in by, if more."""
        if not self.is_terminal:
            return text
        return "\n".join(broken(line, self.width, hang) for line in text.split("\n"))

    def show(self, shown: RenderableType) -> None:
        """Print a table; on a terminal it fits in, with its title broken between words. No name in it is cut."""
        for table in tables_in(shown):
            for column in table.columns:
                column.overflow = "fold"
            needed = self.measure(table, options=self.options.update(width=WIDEST))
            if self.width < needed.minimum:
                table.width = needed.maximum
        self.print(shown, soft_wrap=not self.is_terminal, crop=False)

    def data(self, found: Any) -> None:
        """Print JSON for programs: one document, without colours even where those are asked for."""
        self.file.write(f"{json.dumps(found, indent=2)}\n")
        self.file.flush()

    def offer(self, text: str) -> None:
        """Print lines that are there to be copied, commands and paths: never broken."""
        self.print(Text(harmless(text)))

    @contextmanager
    def doing(self, what: str) -> Iterator[Doing]:
        """Say what is going on: on a terminal at once and until the context ends, elsewhere once a minute."""
        pulse = None if self.is_terminal else Pulse(what, self)
        try:
            with self.status(Text(what)) as status:
                status.update(spinner="dots")  # which draws it now: imports may hold up the thread that draws
                yield Doing(status, pulse)
        finally:
            if pulse is not None:
                pulse.stop()


def tables_in(shown: RenderableType) -> Iterator[Table]:
    """A table, or those of a group."""
    if isinstance(shown, Table):
        yield shown
    elif isinstance(shown, Group):
        for one in shown.renderables:
            yield from tables_in(one)


class Doing(NamedTuple):
    """What `Screen.doing` says."""

    status: Status
    pulse: Pulse | None

    def update(self, what: str) -> None:
        """Say this from now on."""
        self.status.update(Text(what))
        if self.pulse is not None:
            self.pulse.phase = what


def broken(line: str, width: int, hang: int = 0) -> str:
    """A line in several of at most `width` columns; a word that is longer, as a path may be, stays whole."""
    indent = " " * max(hang, len(line) - len(line.lstrip()) + HANG)
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )


def harmless(text: str) -> str:
    """Text in which nothing steers a terminal: names from the data may hold what moves its cursor or turns its text."""
    return text.translate(STEERING)


class Pulse:
    """A line a minute while nothing else is told, so that a log shows that the phase is alive."""

    EVERY_S = 60.0

    def __init__(self, phase: str, screen: Screen) -> None:
        self.phase, self._screen = phase, screen
        self._began = self._told = time.monotonic()
        self._over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def restart(self) -> None:
        """Something else was told just now."""
        self._told = time.monotonic()

    def stop(self) -> None:
        """The phase is over."""
        self._over.set()

    def _beat(self) -> None:
        while not self._over.wait(max(0.1, self._told + self.EVERY_S - time.monotonic())):
            if time.monotonic() - self._told >= self.EVERY_S:
                self.restart()
                self._screen.tell(f"{self.phase}: {self._told - self._began:.0f} s so far")


out = Screen()
err = Screen(stderr=True)
