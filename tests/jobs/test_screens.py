"""What a terminal shows: lines that break between words, no bar left behind, no "1 images"."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import pytest
from rich.console import Group
from rich.table import Table

from jobs import console
from jobs.console import Pulse, Screen, broken
from jobs.observe import watch
from pipeline.progress.events import Sealing
from pipeline.words import plural
from schemas.config import Operation
from tests.conftest import ROOT
from tests.results import make_manifest

PROSE = "coverage (coco): --masks 26 files and entries read; --images 12 planned, 1 without a mask"
PATH = f"/datasets/{'a-long-folder/' * 8}coarse.json"
COUNTED = "images|masks|chunks|files|rows|shards|verdicts|findings|categories|kinds|actors|threads|devices"


def terminal(width: int = 80, file: io.StringIO | None = None) -> Screen:
    return Screen(file=file or io.StringIO(), force_terminal=True, color_system=None, width=width)


def shown(screen: Screen) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_breaks_lines_between_words_and_sets_the_rest_in(width: int) -> None:
    screen = terminal(width)
    screen.tell(f"  {PROSE} {PROSE}", "end")
    *lines, last = shown(screen).splitlines()
    assert max(map(len, lines)) <= width
    assert " ".join(line.strip() for line in lines) == f"{PROSE} {PROSE}"
    assert [line.startswith("    ") for line in lines] == [False, *[True] * (len(lines) - 1)]
    assert last == "end"


def test_a_path_and_a_command_stay_whole_to_be_copied() -> None:
    assert broken(f"wrote {PATH}", 80).splitlines() == ["wrote", f"  {PATH}"]
    screen = terminal()
    screen.offer(f"apply it: relabel seal {PATH} --calibration {PATH}")
    assert shown(screen) == f"apply it: relabel seal {PATH} --calibration {PATH}\n"


def test_elsewhere_a_line_is_one_line_without_colours_or_spinners() -> None:
    pipe = Screen(file=io.StringIO(), width=80)
    with pipe.doing("loading the model") as status:
        status.update("still at it")
    pipe.tell(f"{PROSE} {PROSE}")
    assert shown(pipe) == f"{PROSE} {PROSE}\n"


def test_elsewhere_it_is_told_once_a_minute_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pulse, "EVERY_S", 0.02)
    pipe, deadline = Screen(file=io.StringIO(), width=80), time.monotonic() + 20
    with pipe.doing("looking at masks") as status:
        status.update("looking at masks: 7 of 40 images")
        while "7 of 40 images: 0 s so far" not in shown(pipe) and time.monotonic() < deadline:
            time.sleep(0.02)
    assert "looking at masks: 7 of 40 images: 0 s so far\n" in shown(pipe)


def test_a_terminal_shows_at_once_what_goes_on() -> None:
    screen = terminal()
    with screen.doing("loading the model"):
        assert "loading the model" in shown(screen)


def test_text_from_the_data_is_shown_as_it_is() -> None:
    screen = terminal()
    screen.tell("failed: [red]/:dog:.jpg[/]")
    assert shown(screen) == "failed: [red]/:dog:.jpg[/]\n"


def test_text_from_the_data_does_not_steer_the_terminal() -> None:
    hostile = "cat\x1b]0;title\x07\x1b[2J\r\u202egpj.a"
    table = Table("class")
    table.add_row(hostile)
    for say in (lambda screen: screen.tell(hostile), lambda screen: screen.show(table)):
        screen = terminal()
        say(screen)
        assert r"cat\x1b]0;title\x07\x1b[2J\r\u202egpj.a" in shown(screen)
        assert not set(shown(screen)) & set("\x1b\x07\r\u202e")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_name_begins_no_line(is_terminal: bool) -> None:
    screen = Screen(file=io.StringIO(), force_terminal=is_terminal, color_system=None, width=80)
    screen.tell("failed: a\nok: all is well.jpg", "the end")
    assert shown(screen) == "failed: a\\nok: all is well.jpg\nthe end\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_name_that_a_table_has_no_room_for_is_on_several_lines(is_terminal: bool) -> None:
    screen = Screen(file=io.StringIO(), force_terminal=is_terminal, color_system=None, width=30)
    name, table = "a-name-without-a-blank" * 3, Table("class", "masks")
    table.add_row(name, "7")
    screen.show(Group(table))
    assert name in re.sub(r"[^a-z-]", "", shown(screen))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_narrow_screen_hides_no_column(is_terminal: bool) -> None:
    screen = Screen(file=io.StringIO(), force_terminal=is_terminal, color_system=None, width=20)
    table = Table("", "planned", "done", "of them failed", "pending", "sealed")
    table.add_row("images", "700", "600", "500", "400", "300")
    screen.show(table)
    for word in ("planned", "done", "failed", "pending", "sealed", "images", "700", "600", "500", "400", "300"):
        assert word in shown(screen)


def test_json_has_no_colours() -> None:
    screen = Screen(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=20)
    screen.data([{"name": "größe\x1b[31m", "count": 7}])
    assert json.loads(shown(screen)) == [{"name": "größe\x1b[31m", "count": 7}]


def test_the_bar_is_gone_before_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    for name in ("out", "err"):  # two streams, as in a shell, and one screen
        monkeypatch.setattr(console, name, terminal(file=file))
    with watch(Operation()) as watching:
        for done in (0, 1):
            watching.on_event(Sealing(done, 1))
        watching.sealed(make_manifest(generation=3), "out")
    assert "1/1" in file.getvalue()
    [title] = [line for line in file.getvalue().splitlines() if "generation" in line]
    assert not re.search("sealing|chunks", title.rpartition("\x1b[2K")[2])


def test_numbers_and_their_nouns_agree() -> None:
    counts = (0, 1, 2, 12345)
    assert [plural(count, "image") for count in counts] == ["0 images", "1 image", "2 images", "12,345 images"]
    assert plural(2, "entry", "entries") == "2 entries"


@pytest.mark.parametrize("module", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.stem)
def test_no_command_puts_a_bare_number_before_a_plural(module: Path) -> None:
    """`{n} images` says "1 images" some day; `plural` does not."""
    bare = re.findall(rf"(?<!of )\{{[^{{}}]+\}} (?:{COUNTED})\b(?!/)", module.read_text())
    assert not [text for text in bare if "plural(" not in text], module


def test_the_title_of_a_table_is_broken_between_words_too() -> None:
    table = Table("name", title=f"{PROSE} {PROSE}")
    table.add_row("[red]:dog:")
    screen = terminal()
    screen.show(table)
    lines = shown(screen).splitlines()
    assert max(map(len, lines)) <= 80
    assert {word for line in lines[:-6] for word in line.split()} <= set(PROSE.split())
    assert "[red]:dog:" in shown(screen)
