"""The same bytes with the real `lite`: any number of actors, any order of chunks, any neighbours in a batch.

On the demo's photographs, and on twenty of the development set. Each is a whole run on Ray.
"""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import job
from pipeline.refining.chunk import Task
from tests.conftest import DEV, ROOT, Cli
from tests.jobs.test_recovery import Corpus, shard_hashes, tripled_demo

pytestmark = pytest.mark.slow
DEV_IMAGES = 20


@pytest.fixture(scope="module", params=["demo", "dev"])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    if request.param == "demo":
        return tripled_demo(tmp_path_factory.mktemp("corpus"))
    if not DEV.is_dir():
        pytest.skip(f"the development set is not at {DEV}")
    return Corpus(DEV / "images", DEV / "coarse_superpixel.json", 4, (DEV_IMAGES, 0), 0)


def arguments(corpus: Corpus, output: Path, *more: str) -> list[str | Path]:
    return corpus.arguments(output, "--limit", str(corpus.rows[0]), *more)


@pytest.fixture(scope="module")
def expected(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory, relabel: Cli) -> dict[str, list[str]]:
    """Hashes of the shards that one actor makes."""
    output = tmp_path_factory.mktemp("expected") / "out"
    done = relabel(*arguments(corpus, output, "--actors", "1"))
    assert done.returncode == 0, done.stderr
    return shard_hashes(output)


@pytest.mark.parametrize("actors", ["2", "3"])
def test_more_actors(actors: str, corpus: Corpus, expected: dict[str, list[str]], tmp_path: Path, relabel: Cli) -> None:
    done = relabel(*arguments(corpus, tmp_path / "out", "--actors", actors))
    assert done.returncode == 0, done.stderr
    assert shard_hashes(tmp_path / "out") == expected


def test_chunks_in_another_order(corpus: Corpus, expected: dict[str, list[str]], tmp_path: Path) -> None:
    log = tmp_path / "attempts.log"
    (tmp_path / "config.yaml").write_text(f"operation: {{attempt_log: {log}}}")
    more = ["--actors", "2", "--config", str(tmp_path / "config.yaml")]
    command = [
        sys.executable,
        "-m",
        "tests.jobs.test_same_bytes",
        *map(str, arguments(corpus, tmp_path / "out", *more)),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr
    started = [line.split()[3] for line in log.read_text().splitlines() if " started " in line]
    assert started != sorted(started), "the order was the plan's"
    assert shard_hashes(tmp_path / "out") == expected


@pytest.mark.parametrize("chunk_images", ["3", "7", "64"])
def test_other_neighbours(
    chunk_images: str, corpus: Corpus, expected: dict[str, list[str]], tmp_path: Path, relabel: Cli
) -> None:
    done = relabel(*arguments(corpus, tmp_path / "out", "--actors", "1", "--chunk-images", chunk_images))
    assert done.returncode == 0, done.stderr
    assert shard_hashes(tmp_path / "out") == expected


def main() -> None:
    """`relabel`, but for the order of the chunks."""
    from jobs import cli

    in_order = job.pending

    def shuffled(*given: object) -> list[Task]:
        tasks = list(in_order(*given))  # type: ignore[arg-type]
        random.Random(3).shuffle(tasks)
        return tasks

    job.pending = shuffled  # type: ignore[assignment]
    cli.main()


if __name__ == "__main__":
    main()
