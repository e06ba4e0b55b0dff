"""Logs for machines and the metrics endpoint, in a run as users start it."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.progress.breakdown import ADVICE
from tests.conftest import DEMO, ROOT, Cli
from tests.pipeline.progress.test_metrics import scrape


def with_a_bad_image(folder: Path) -> Path:
    shutil.copytree(DEMO / "images", folder / "photos")
    (folder / "photos" / "chelsea.jpg").write_bytes(b"\xff\xd8 no more")
    return folder / "photos"


@pytest.mark.slow
def test_json_lines_carry_run_and_chunk(tmp_path: Path, relabel: Cli) -> None:
    config = tmp_path / "relabel.yaml"
    config.write_text("operation: {log_format: json, chunk_images: 2, actors_max: 1, max_failed_share: 0.5}")
    inputs = {
        "RELABEL_IMAGES": str(with_a_bad_image(tmp_path)),
        "RELABEL_MASKS": str(DEMO / "coarse.json"),
        "RELABEL_OUTPUT": str(tmp_path / "out"),
    }
    done = relabel("run", "--config", config, RELABEL_RUN_ID="night-7", **inputs)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert {event["run"] for event in events} == {"night-7"}
    assert [event["event"] for event in events if event["event"] != "chunk"] == [
        "planning",
        "covered",
        "planned",
        "starting",
        "refining",
        "refined",
        "sealing",
        "sealed",
    ]
    chunks = {event["chunk"]: event for event in events if event["event"] == "chunk"}
    assert len(chunks) == 3
    assert sum(event["images"] for event in chunks.values()) == 5
    [bad] = [event for event in chunks.values() if event["level"] == "warning"]
    assert sum(bad["image_reasons"].values()) == 1
    assert min(event[f"{stage}_s"] for event in chunks.values() for stage in ("load", "refine", "write", "wait")) >= 0
    [spent] = [event for event in events if event["event"] == "refined"]
    assert (spent["chunks"], spent["images"]) == (3, 5)
    assert spent["refine_s"] == pytest.approx(sum(event["refine_s"] for event in chunks.values()), abs=0.01)
    assert 0 < spent["fetch_s"] + spent["decode_s"] < spent["wall_s"]
    assert spent["bound_by"] in ADVICE
    again = relabel("run", "--config", config, **{**inputs, "RELABEL_IMAGES": str(tmp_path / "nowhere")})
    assert again.returncode == 2, "a refusal is still one plain line"


@pytest.mark.slow
def test_the_endpoint_of_a_run(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "relabel.yaml"
    config.write_text(f"operation: {{metrics_port: {port}, metrics_linger_s: 120, actors_max: 1}}")
    arguments = ["--images", DEMO / "images", "--masks", DEMO / "coarse.json", "--output", tmp_path / "out"]
    command = [sys.executable, "-m", "jobs.cli", "run", *arguments, "--config", config]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (run.wait(), ended.set()), daemon=True).start()
    seen: dict[tuple[str, ...], float] = {}
    deadline = time.monotonic() + 300
    while not ended.wait(1.0):
        assert time.monotonic() < deadline
        try:
            seen = scrape(port)
        except OSError:
            continue  # not up yet, or just gone
    assert run.returncode == 0, run.stderr
    assert seen["relabel_dataset_images", "ok"] == 5, "the scrape after the seal has the last numbers"
    assert seen["relabel_masks_total", "ok"] == 10
    assert seen["relabel_dataset_quality_bucket", "+Inf"] == 10
