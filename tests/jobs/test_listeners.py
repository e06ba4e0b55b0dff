"""What the command line makes of a run's events: lines for people, JSON for machines."""

from __future__ import annotations

import json
import time

import pytest

from jobs import progress
from jobs.json_log import JsonLog
from pipeline.planning.increment import Planned
from pipeline.progress.breakdown import Breakdown, ChunkFinished
from pipeline.progress.events import Event, Planning, Refined, Refining, Retrying, Sealing, Starting, Waiting
from pipeline.refining.pending import Share, Unsealed
from tests.results import make_manifest

SPENT = Breakdown(chunks=1, images=5, masks=9, wall_s=2.00049, refine_s=1.0)
CHUNK = ChunkFinished(
    *("0000-0000000-0123456789ab", 5, 9, 1, 3, {"image_truncated": 1}, {"mask_empty": 2}),
    load_s=0.12345,
    fetch_s=0.1,
    wait_s=0.0,
    refine_s=1.0,
    write_s=0.1,
)
EVENTS: list[Event] = [
    Planning(0),
    Planning(1),
    Planned(0, images=5, masks=9, chunks=1, unchanged=2),
    Waiting("waiting for another run"),
    Starting("ray:6379"),
    Refining(5, (1, 2)),
    CHUNK,
    Refined(SPENT),
    Retrying(1, 1),
    Retrying(None, 0),
    Refining(0, (1, 1)),
    Refined(Breakdown()),
    Sealing(0, 1),
    Sealing(1, 1),
]


def test_json_lines_have_their_names_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    log = JsonLog("night-7")
    for event in EVENTS:
        log(event)
    log.sealed(make_manifest(generation=3))
    log.unsealed(Unsealed(Share(1, 3), 2, 128, [2, 3]))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert {line["run"] for line in lines} == {"night-7"}
    told = {line["event"]: line for line in reversed(lines)}
    assert [line["event"] for line in lines] == [
        *("planning", "planned", "waiting", "starting", "refining", "chunk", "refined", "retrying", "retrying"),
        *("refining", "sealing", "sealed", "unsealed"),
    ]
    common = {"time", "level", "run", "event"}
    assert {name: sorted(line.keys() - common) for name, line in told.items()} == {
        "planning": [],
        "planned": ["chunks", "images", "increment", "masks", "superseded", "unchanged"],
        "waiting": ["message"],
        "starting": ["address"],
        "refining": ["actors_max", "actors_min", "images"],
        "chunk": sorted([*vars(CHUNK).keys() - {"chunk_id"}, "chunk", "error", "fatal"]),
        "refined": sorted(SPENT.as_dict()),
        "retrying": ["images", "round"],
        "sealing": ["chunks"],
        "sealed": ["counts", "fingerprint", "generation", "planned", "sealed"],
        "unsealed": ["chunks", "images", "part", "parts"],
    }
    assert (told["chunk"]["level"], told["chunk"]["load_s"]) == ("warning", 0.123)
    assert told["chunk"]["mask_reasons"] == {"mask_empty": 2}
    assert told["refined"]["wall_s"] == 2.0
    assert (told["sealed"]["generation"], told["sealed"]["sealed"]["masks"]) == (3, 0)
    assert (told["unsealed"]["part"], told["unsealed"]["parts"]) == ("1/3", [2, 3])


def test_people_get_a_line_for_each_step_and_no_bar_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.drawing() as draw:
        for event in [*EVENTS, Planning(0)]:
            draw(event)
        assert draw._bar is not None
    assert draw._bar is None
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert lines[:5] == [
        "plan: reading the input",
        "plan: 5 new or changed images with 9 masks in 1 chunk; 2 images were planned before",
        "waiting for another run",
        "connecting to Ray at ray:6379, which takes a few seconds",
        "refine: 5 images with 1 to 2 model actors",
    ]
    assert lines[5].startswith("refine: 5 of 5 images, 9 masks, ")
    assert "4 failed" in lines[5]
    assert lines[6].startswith("refine: 2.0 s, ")
    assert lines[8:11] == ["retry: round 1, 1 image left", "retry: no failed row", "refine: nothing pending"]


def test_a_log_shows_that_a_silent_phase_is_alive(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.Pulse, "EVERY_S", 0.02)
    with progress.drawing() as draw:
        draw(Starting(None))
        told = ""
        deadline = time.monotonic() + 20
        while "starting Ray: 0 s so far" not in told and time.monotonic() < deadline:
            told += capsys.readouterr().err
            time.sleep(0.02)
    assert "starting Ray: 0 s so far" in told
    time.sleep(0.1)
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
