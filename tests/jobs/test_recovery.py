"""The same bytes whatever happens: kills, more actors, object storage.

On the demo's photographs in the gate; on the development set (300 images, chunks of 8) with `make test-slow`.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import boto3
import pytest

from pipeline.dataset import open_result
from pipeline.storage import Access
from tests.conftest import DEMO, DEV, ROOT, Cli


class Corpus(NamedTuple):
    """What is run on, and what must come out."""

    images: Path
    masks: Path
    chunk_images: int
    rows: tuple[int, int]  # images, masks
    kills: int

    def arguments(self, output: str | Path, *more: str | Path) -> list[str | Path]:
        chunks = str(self.chunk_images)
        return [
            "run",
            "--images",
            self.images,
            "--masks",
            self.masks,
            "--output",
            output,
            "--chunk-images",
            chunks,
            *more,
        ]


def tripled_demo(folder: Path) -> Corpus:
    """The demo's photographs under three names each: 15 chunks of one image."""
    content = json.loads((DEMO / "coarse.json").read_text())
    images, annotations = [], []
    (folder / "photos").mkdir()
    for copy in range(3):
        for image in content["images"]:
            name = f"{copy}-{image['file_name']}"
            shutil.copy(DEMO / "images" / image["file_name"], folder / "photos" / name)
            images.append({**image, "id": 100 * copy + image["id"], "file_name": name})
        for annotation in content["annotations"]:
            key = {"id": 100 * copy + annotation["id"], "image_id": 100 * copy + annotation["image_id"]}
            annotations.append({**annotation, **key})
    (folder / "coarse.json").write_text(json.dumps({**content, "images": images, "annotations": annotations}))
    return Corpus(folder / "photos", folder / "coarse.json", 1, (15, 30), 1)


@pytest.fixture(scope="module", params=["demo", pytest.param("dev", marks=pytest.mark.slow)])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    if request.param == "demo":
        return tripled_demo(tmp_path_factory.mktemp("corpus"))
    if not DEV.is_dir():
        pytest.skip(f"the development set is not at {DEV}")
    return Corpus(DEV / "images", DEV / "coarse_superpixel.json", 8, (300, 401), 3)


@pytest.fixture(scope="module")
def undisturbed(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory, relabel: Cli) -> Path:
    """One actor, left alone."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    done = relabel(*corpus.arguments(output, "--actors", "1"), timeout=1200)
    assert done.returncode == 0, done.stderr
    return output


def shard_hashes(output: str | Path, access: Access | None = None) -> dict[str, list[str]]:
    """Content hashes of the live shards, from the manifest."""
    manifest = open_result(str(output), access).manifest
    return {kind: [shard.sha256 for shard in manifest.shards(kind)] for kind in ("masks", "images")}


def test_every_image_and_mask_is_there_once(corpus: Corpus, undisturbed: Path) -> None:
    result = open_result(str(undisturbed))
    assert (result.images().num_rows, result.masks().num_rows) == corpus.rows
    assert max(Counter(result.masks()["mask_id"].to_pylist()).values()) == 1
    assert max(Counter(result.images()["image_id"].to_pylist()).values()) == 1


def test_killed_and_run_again_gives_the_same_bytes_and_repeats_nothing(
    corpus: Corpus, undisturbed: Path, tmp_path: Path, relabel: Cli
) -> None:
    """SIGKILL with work pending, as often as the corpus asks, then SIGTERM, then to the end."""
    output, log = tmp_path / "out", tmp_path / "attempts.csv"
    (tmp_path / "config.yaml").write_text(f"operation: {{attempt_log: {log}}}")
    arguments = corpus.arguments(output, "--actors", "1", "--config", tmp_path / "config.yaml")
    all_chunks = len(list(undisturbed.glob("runs/*/parts/*.parquet")))
    finished: dict[str, int] = {}
    for with_signal in [signal.SIGKILL] * corpus.kills + [signal.SIGTERM]:
        code = interrupted(arguments, output, len(finished) + max(1, all_chunks // 6), with_signal)
        assert code == (143 if with_signal == signal.SIGTERM else -signal.SIGKILL)
        parts = part_times(output)
        assert len(parts) < all_chunks, "interrupted too late: nothing was pending"
        assert finished.items() <= parts.items(), "a finished part was written again"
        finished = parts
    attempts_before = len(log.read_text().splitlines())
    assert relabel(*arguments, timeout=1200).returncode == 0
    parts = part_times(output)
    assert finished.items() <= parts.items()
    assert len(parts) == all_chunks
    attempts = list(csv.reader(log.open(), delimiter=" "))[attempts_before:]
    assert not {row[3].removeprefix("parts/") for row in attempts} & finished.keys(), (
        "a finished chunk was started again"
    )
    assert shard_hashes(output) == shard_hashes(undisturbed)


def interrupted(arguments: list[str | Path], output: Path, parts: int, with_signal: signal.Signals) -> int:
    """Start a run, signal it when so many parts are there, and return how it ended.

    SIGKILL goes to the whole process group, as when a machine dies; SIGTERM to the driver, as Kubernetes sends it.
    """
    driver = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while len(part_times(output)) < parts:
        assert driver.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline, "no part came"
        time.sleep(0.02)
    if with_signal == signal.SIGKILL:
        os.killpg(driver.pid, signal.SIGKILL)
        return driver.wait()
    driver.send_signal(with_signal)
    return driver.wait(timeout=30)


def part_times(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in output.glob("runs/*/parts/[!.]*.parquet")}


def test_two_actors_on_s3_give_the_same_shards(
    corpus: Corpus, undisturbed: Path, s3_endpoint: str, bucket: str, relabel: Cli, cluster: dict[str, str]
) -> None:
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    for path in corpus.images.iterdir():
        client.put_object(Bucket=bucket, Key=f"in/photos/{path.name}", Body=path.read_bytes())
    client.put_object(Bucket=bucket, Key="in/coarse.json", Body=corpus.masks.read_bytes())
    remote = corpus._replace(images=f"s3://{bucket}/in/photos", masks=f"s3://{bucket}/in/coarse.json")
    done = relabel(
        *remote.arguments(f"s3://{bucket}/out", "--endpoint-url", s3_endpoint, "--actors", "2"), timeout=1200
    )
    assert done.returncode == 0, done.stderr
    assert shard_hashes(f"s3://{bucket}/out", Access(s3_endpoint)) == shard_hashes(undisturbed)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="out/")
    keys = [entry["Key"] for page in pages for entry in page["Contents"]]
    assert not [key for key in keys if key.rpartition("/")[2].startswith(".tmp-")]
    config = next(key for key in keys if key.endswith("config.yaml"))
    assert (
        os.environ["AWS_SECRET_ACCESS_KEY"] not in client.get_object(Bucket=bucket, Key=config)["Body"].read().decode()
    )


def test_another_method_asks_before_it_redoes(corpus: Corpus, undisturbed: Path, relabel: Cli, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(undisturbed, output)
    done = relabel(*corpus.arguments(output, "--preset", "published-paper"))
    assert done.returncode == 2
    assert "say so with --new-version" in done.stderr
    assert shard_hashes(output) == shard_hashes(undisturbed)
