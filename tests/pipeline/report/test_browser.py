"""The page in a real browser: it renders, filters, takes verdicts by key, downloads them, and calls nobody."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import Result
from pipeline.dataset.verdicts import rejected
from pipeline.report.page import report
from pipeline.review import verdicts
from tests.pipeline.report.browser import SIZES, cards, key, resize, text, wait
from tests.pipeline.report.conftest import HOSTILE
from tests.pipeline.report.large import write_large
from tests.results import write_result

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.options import Options  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")

SWITCHES = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)
MEASURED = (
    "import resource as r, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
    "print(r.getrusage(r.RUSAGE_CHILDREN).ru_maxrss)"
)
FAINT = (Path(__file__).parent / "faint.js").read_text()
CONTRAST = 4.5  # WCAG 2.2 AA, text of ordinary size


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[Any]:
    options = Options()
    options.binary_location = CHROMIUM or ""
    for switch in (*SWITCHES.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    driver.set_script_timeout(60)
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads), "eventsEnabled": True}
    )
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(result: Result, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report(result.store.uri, per_stratum=20).html)
    return path.as_uri()


@pytest.fixture
def opened(browser: Any, page: str) -> Iterator[Any]:
    """The page, freshly opened, 1280 pixels wide; afterwards: no word on the console and no request to anywhere."""
    resize(browser, 1280)
    browser.get(page)
    browser.execute_script("localStorage.clear()")
    browser.get_log("performance")  # what the browser itself loaded before
    browser.get(page)
    wait(lambda: cards(browser))  # on a machine that is very busy, the driver is sometimes ahead of the page
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith(("file:", "data:", "blob:")) for url in urls), urls


@pytest.mark.slow
def test_a_hundred_thousand_masks(browser: Any, tmp_path: Path) -> None:
    """The page holds a sample, so its size, and what a browser and the command need, do not grow with the result."""
    output = write_large(tmp_path, 100_000)
    started = time.monotonic()
    command = [sys.executable, "-m", "jobs.cli", "report", str(output), "--to", str(tmp_path / "report.html")]
    done = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seconds, peak_mb = time.monotonic() - started, int(done.stdout.split()[-1]) >> 10
    megabytes = (tmp_path / "report.html").stat().st_size / 1e6
    browser.get((tmp_path / "report.html").as_uri())
    wait(lambda: cards(browser))
    print(f"{text(browser, '#shown')}: {megabytes:.1f} MB, {seconds:.0f} s, {peak_mb} MB of memory")
    assert "100,000" in text(browser, ".tiles")
    assert 150 < cards(browser) <= 300
    assert megabytes < 20
    assert peak_mb < 1024
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_it_renders_and_hostile_names_do_nothing(opened: Any) -> None:
    assert cards(opened) == 18
    assert text(opened, "#shown") == "18 of 18 sampled masks"
    loaded = (
        "return [...document.querySelectorAll('.card image')].filter(i => i.href.baseVal.startsWith('data:')).length"
    )
    assert opened.execute_script(loaded) == 0  # photographs below the fold wait
    opened.execute_script("document.getElementById('gallery').scrollIntoView()")
    wait(lambda: opened.execute_script(loaded) > 0)
    assert opened.execute_script("return document.scripts.length") == 2
    names = opened.execute_script("return [...document.querySelectorAll('.what .name')].map(e => e.textContent)")
    assert set(names) == {*HOSTILE, "plain cat"}
    assert opened.execute_script("return document.querySelectorAll('img, .what svg, .what script').length") == 0


def test_filters(opened: Any) -> None:
    def choose(control: str, value: str) -> int:
        found = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        opened.execute_script(f"{found} e.dispatchEvent(new Event('input'))", control, value)
        return cards(opened)

    assert choose("by-category", "plain cat") == 6
    assert choose("by-decision", "failed") == 2
    assert choose("by-category", HOSTILE[0]) == 1
    assert choose("by-verdict", "better") == 0
    assert opened.execute_script("return document.getElementById('nothing').hidden") is False
    for control in ("by-category", "by-decision", "by-verdict"):
        choose(control, "")
    assert choose("by-quality", "0.5") == 3
    assert choose("by-quality", "1") == 18
    opened.execute_script("document.querySelector('[data-stratum=kept]').click()")
    assert cards(opened) == 6
    tags = opened.execute_script("return [...document.querySelectorAll('.tag')].map(e => e.textContent)")
    assert set(tags) == {"Kept coarse"}
    opened.execute_script("document.querySelector('[data-stratum=changed]').click()")
    told = opened.execute_script("return [...document.querySelectorAll('.figures')].map(e => e.textContent.slice(-4))")
    assert told == sorted(told)


def shown_names(browser: Any) -> list[str]:
    return browser.execute_script("return [...document.querySelectorAll('.card')].map(e => e.dataset.id)")


def test_a_view_is_a_url(opened: Any, page: str) -> None:
    change = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
    for control, value in (("by-decision", "kept_coarse"), ("by-quality", "0.6"), ("by-sort", "gain")):
        opened.execute_script(f"{change} e.dispatchEvent(new Event('input'))", control, value)
    opened.execute_script("document.querySelector('[data-stratum=kept]').click()")
    seen = shown_names(opened)
    assert 0 < len(seen) < 6
    opened.execute_script("document.querySelector('.open').click()")
    url = opened.current_url
    assert "#view?" in url
    opened.get("about:blank")
    opened.get(url)
    wait(lambda: opened.execute_script("return document.getElementById('zoom').open"))  # the mask that was open
    assert shown_names(opened) == seen
    key(opened, "Escape")
    wait(lambda: "mask=" not in opened.current_url)
    opened.get(page + "#view?decision=no-such&sort=no-such&show=no-such&mask=no-such")  # only what there is counts
    wait(lambda: cards(opened) == 18)


def test_sorting(opened: Any) -> None:
    sort = """
        const e = document.getElementById('by-sort'); e.value = arguments[0]; e.dispatchEvent(new Event('input'));
        const items = new Map(JSON.parse(document.getElementById('data').textContent).items.map((i) => [i.id, i]));
        return [...document.querySelectorAll('.card')].map((c) => items.get(c.dataset.id))
    """
    for name in ("category", "reason"):
        told = [item[name] for item in opened.execute_script(sort, name)]
        starts = [told[0], *(new for old, new in pairwise(told) if new != old)]
        assert len(starts) == len(set(told)) > 1  # each value stands together
    known = [one for one in opened.execute_script(sort, "gain") if one["quality_coarse"] is not None]
    gains = [one["quality_refined"] - one["quality_coarse"] for one in known]
    assert gains == sorted(gains, reverse=True)


def test_commands_take_the_filters_along(opened: Any, result: Result) -> None:
    assert f"--to to-review\nrelabel review {result.store.uri} --from" in text(opened, "#commands")
    change = (
        "const e = document.getElementById('by-category'); e.value = arguments[0]; e.dispatchEvent(new Event('input'))"
    )
    opened.execute_script(change, HOSTILE[2])
    line = text(opened, "#commands").splitlines()[1]
    [*_, option, expression] = shlex.split(line)
    assert (option, expression) == ("--where", "category = '" + HOSTILE[2].replace("'", "''") + "'")
    assert len(result.masks(expression)) == 3
    assert shlex.split(text(opened, "#commands").splitlines()[0])[:3] == ["relabel", "review", result.store.uri]


def test_before_and_after(opened: Any) -> None:
    opened.execute_script("document.querySelector('.card image').closest('.open').click()")
    key(opened, "s")
    line = "const l = document.querySelector('line.wipe'); return l && l.getBoundingClientRect().x"
    before = opened.execute_script(line)
    assert before > 0
    clipped = "return document.querySelectorAll('#stage path[clip-path]').length"
    assert opened.execute_script(clipped) == 4  # outline and halo of both
    y = opened.execute_script("return document.getElementById('stage').getBoundingClientRect().y") + 100
    for kind, x in (("mousePressed", before), ("mouseMoved", before + 90), ("mouseReleased", before + 90)):
        event = {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
        opened.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    assert opened.execute_script(line) == pytest.approx(before + 90, abs=3)
    key(opened, "s")
    assert opened.execute_script(clipped) == 0
    key(opened, "Escape")


def test_two_fingers_zoom(opened: Any) -> None:
    opened.execute_script("document.querySelector('.open').click()")
    box = "return document.getElementById('stage').getAttribute('viewBox').split(' ').map(Number)"
    whole, left, top = opened.execute_script(box), *opened.execute_script(
        "const r = document.getElementById('stage').getBoundingClientRect(); return [r.x + r.width / 2, r.y + 200]"
    )  # fmt: skip
    for kind, apart in (("touchStart", 40), ("touchMove", 80), ("touchMove", 120), ("touchEnd", None)):
        points = [] if apart is None else [{"x": left + side * apart, "y": top, "id": side + 1} for side in (-1, 1)]
        opened.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert opened.execute_script(box)[2] == pytest.approx(whole[2] / 3, rel=0.1)
    key(opened, "Escape")


def test_on_a_narrow_screen_no_column_is_cut_off_and_the_hints_are_there(opened: Any) -> None:
    resize(opened, 390)
    wide = "return [...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth + 1).length"
    assert opened.execute_script(wide) == 0
    for hint in (".keys", ".touches"):
        assert opened.execute_script("return document.querySelector(arguments[0]).checkVisibility()", hint), hint


def test_keys_judge_move_and_zoom_and_verdicts_come_back(
    opened: Any, downloads: Path, result: Result, tmp_path: Path
) -> None:
    at = "const c = document.activeElement.closest('.card'); return c && [...c.parentNode.children].indexOf(c)"
    key(opened, "ArrowRight", "ArrowRight", "ArrowRight")
    assert opened.execute_script(at) == 2
    key(opened, "b", "ArrowLeft", "w")
    assert text(opened, "#tally") == "2 of 18 judged: 1 better, 1 worse"
    key(opened, "Enter")
    assert opened.execute_script("return document.getElementById('zoom').open")
    box = opened.execute_script("return document.getElementById('stage').getAttribute('viewBox')")
    key(opened, "+", "+")
    assert opened.execute_script("return document.getElementById('stage').getAttribute('viewBox')") != box
    key(opened, "0", "c")
    assert opened.execute_script("return document.getElementById('stage').getAttribute('viewBox')") == box
    assert (
        opened.execute_script("return getComputedStyle(document.querySelector('#stage .of-coarse')).display") == "none"
    )
    key(opened, "ArrowRight", "ArrowRight", "r", "u")  # a verdict goes on to the next mask; nothing to undo there
    assert text(opened, "#tally") == "3 of 18 judged: 1 better, 1 worse, 1 reject"
    key(opened, "Escape")
    wait(lambda: not opened.execute_script("return document.getElementById('zoom').open"))
    opened.refresh()  # verdicts outlive a reload
    assert text(opened, "#tally") == "3 of 18 judged: 1 better, 1 worse, 1 reject"
    opened.execute_script("document.getElementById('download').click()")
    [path] = wait(lambda: list(downloads.glob("verdicts-*.json")))
    assert path.name == "verdicts-feedc0ffee00-0.json"
    copy = write_result(tmp_path / "copy", [result.masks().to_pylist()], str(tmp_path))
    kept = verdicts.review(copy.store.uri, str(path))
    assert kept.taken == {"better": 1, "reject": 1, "worse": 1}
    assert len(rejected(copy.store.uri)) == 1


@pytest.mark.parametrize("width", SIZES)
def test_it_fits_and_can_be_read(opened: Any, width: int) -> None:
    for scheme in ("light", "dark"):
        resize(opened, width, scheme)
        for zoomed in (False, True):
            if zoomed:
                opened.execute_script("document.querySelector('.open').click()")
            assert opened.execute_script("return document.documentElement.scrollWidth") <= width
            assert opened.execute_script(FAINT, CONTRAST) == [], f"{width} {scheme}"
        opened.execute_script("document.getElementById('close').click()")


def test_everything_that_acts_has_a_name(opened: Any) -> None:
    opened.execute_script("document.querySelector('.open').click()")
    nodes = opened.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    opened.execute_script("document.getElementById('close').click()")
    nodes += opened.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    acting = ("button", "link", "checkbox", "combobox", "slider", "dialog", "img", "image", "group", "status", "region")
    found: dict[str, list[str]] = {}
    for node in nodes:
        role = node.get("role", {}).get("value", "")
        if not node["ignored"] and role.lower() in acting and role != "status":
            found.setdefault(role.lower(), []).append(node.get("name", {}).get("value", ""))
    assert {"button", "link", "checkbox", "combobox", "slider", "dialog"} <= set(found)
    assert not [role for role, names in found.items() if not all(names)]
