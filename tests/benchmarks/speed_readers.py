"""How long readers take to begin on a result of very many shards: `pipeline.open`, the first batch of a stream.

    python -m tests.benchmarks.speed_readers --shards 100000 --folder /large/disk

Each shard is a hard link to one real file of a few thousand masks; manifest, paths and pointer are real. Each reader
runs in a process of its own. Printed as JSON: CPU and wall-clock seconds after the imports, resident memory after them
and at its peak. --indexed: as if the stream looked at every shard beforehand, for comparison.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from pipeline import open as open_output
from pipeline.storage import Store
from schemas import layout
from schemas.manifest import Counts, Shard, ShardGroup
from tests.results import SIZE_HW, ellipse, make_manifest, mask_row, publish, write_photo, write_result

IMAGES, MASKS_PER_IMAGE = 1000, 3
LINKS = 30_000
"""Of one file: file systems have a limit."""
SCORES, BINS = 8, 10
BATCH = 8
MIB = 1 << 20


def make_output(folder: Path, shards: int) -> None:
    """An output of so many shards."""
    shape = ellipse((32, 24), 12)
    write_photo(folder / "photo.png", [shape], 0)
    rows = [
        mask_row(f"{image:06d}.jpg", number, shape, shape, image_uri="photo.png")
        for image in range(IMAGES)
        for number in range(MASKS_PER_IMAGE)
    ]
    one = write_result(folder / "out", [rows], str(folder), row_group_rows=16_384).manifest
    listed = {kind: _linked(folder / "out", one.shards(kind)[0], shards) for kind in ("masks", "images")}
    made = make_manifest(images_root=str(folder), counts=one.counts, groups=_groups(shards, one.counts), **listed)
    publish(Store(str(folder / "out")), made)


def _linked(output: Path, shard: Shard, count: int) -> list[Shard]:
    source, data = output / shard.path, (output / shard.path).read_bytes()
    found = []
    for number in range(count):
        name = hashlib.sha256(f"{number}".encode()).hexdigest()
        path = f"{shard.path.rpartition('/')[0]}/{name}.parquet"
        if number % LINKS == 0:
            source = output / path
            source.write_bytes(data)
        else:
            os.link(source, output / path)
        found.append(shard.model_copy(update={"path": path, "sha256": name}))
    return found


def _groups(count: int, counts: Counts) -> list[ShardGroup]:
    drift = {f"score_{number}": [100] * BINS for number in range(SCORES)}
    return [
        ShardGroup(key=f"{number:064x}", execution_classes=["cpu; 1 threads"], counts=counts, drift=drift, files=53)
        for number in range(count)
    ]


def read_open(output: str) -> Any:
    return len(open_output(output).manifest.masks)


def read_stream(output: str, indexed: bool = False) -> Any:
    from pipeline.dataset import MaskStream, feed

    if indexed:
        feed.INDEXED_SHARDS = sys.maxsize
    batch = next(iter(MaskStream(output, "quality >= 0.5", batch_size=BATCH).loader()))
    return len(batch[1])


def read_indexed(output: str) -> Any:
    return read_stream(output, indexed=True)


READERS: dict[str, Callable[[str], Any]] = {
    "open": read_open,
    "first batch": read_stream,
    "first batch, all indexed": read_indexed,
}


def measure(reader: str, output: str) -> dict[str, Any]:
    """In this process."""
    if reader != "open":
        import pipeline.dataset.feed  # noqa: F401 - imports are not what is measured
    before_mb = psutil.Process().memory_info().rss / MIB
    usage, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    found = READERS[reader](output)
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    memory = {"imports_mb": before_mb, "peak_mb": int(peak.split()[1]) / 1024}  # ru_maxrss begins with the parent's
    return {"reader": reader, "found": found, "cpu_s": cpu_s, "wall_s": wall_s, **memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--indexed", action="store_true")
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    given = parser.parse_args()
    output = given.folder / "out"
    if given.reader:
        print(json.dumps(measure(given.reader, str(output))))
        return
    given.folder.mkdir(parents=True)
    make_output(given.folder, given.shards)
    size = sum(file.stat().st_size for file in output.rglob(layout.MANIFEST_NAME))
    print(json.dumps({"shards": given.shards, "manifest_mb": size / 1e6, "image": SIZE_HW}), flush=True)
    for reader in READERS if given.indexed else list(READERS)[:2]:
        command = [sys.executable, "-m", "tests.benchmarks.speed_readers", "--folder", given.folder, "--reader", reader]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
