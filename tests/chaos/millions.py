"""What planning millions of images costs: real planning, of images that only an inventory knows.

    python -m tests.chaos.millions --images 1000000 --folder /large/disk
    python -m tests.chaos.millions --images 1000000 --added 1000 --folder /large/disk --keep

Source and inventory are Parquet, a mask for each image; nothing is decoded. Measured of each command: CPU seconds (user
and system, children included), peak resident memory of its largest process, and bytes that it read and wrote. With
--added, so many new images come in a source of their own over the first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.masks import binary
from tests.chaos.runs import ROOT

ROWS = 100_000
SIZE_HW = (480, 640)
KIB = 1024
EVERY_S = 0.2


@dataclass(frozen=True)
class Cost:
    """Of one command."""

    images: int
    cpu_s: float
    cpu_us_per_image: float
    peak_rss_mb: float
    read_mb: float
    written_mb: float


def name_of(number: int) -> str:
    return f"{number % 1000:03d}/{number:010d}.jpg"


def make_source(folder: Path, numbers: range) -> None:
    """masks/ with the masks of some images; see `make_inventory`."""
    rle = binary.encode(_square())
    folder.mkdir(parents=True, exist_ok=True)
    for part, some in enumerate(_pieces(numbers)):
        count = len(some)
        masks = pa.StructArray.from_arrays(
            [pa.array([list(SIZE_HW)] * count, pa.list_(pa.int32())), pa.array([rle["counts"]] * count)],
            ["size", "counts"],
        )
        columns = {"image_uri": pa.array(map(name_of, some)), "segmentation": masks, "category": ["thing"] * count}
        sides = {"height": [SIZE_HW[0]] * count, "width": [SIZE_HW[1]] * count}
        pq.write_table(pa.table({**columns, **sides}), folder / f"{part:05d}.parquet", compression="zstd")


def make_inventory(folder: Path, images: range) -> None:
    """Parquet with path, size and etag, in the order of paths within each file."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, some in enumerate(_pieces(images)):
        names = sorted(map(name_of, some))
        told = {"path": names, "size": [100_000] * len(names), "etag": [f"{hash(name):032x}"[-32:] for name in names]}
        pq.write_table(pa.table(told), folder / f"{part:05d}.parquet", compression="zstd")


def plan(masks: Path, inventory: Path, output: Path, images: int, scratch: Path) -> Cost:
    """`relabel plan`, in a process of its own."""
    (output.parent / "images").mkdir(exist_ok=True)
    (output.parent / "images" / "0.jpg").touch()
    given = ["--masks", masks, "--images", output.parent / "images", "--images-inventory", inventory]
    command = [sys.executable, "-m", "jobs", "plan", *map(str, given), "--output", str(output), "--source", "parquet"]
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    process = subprocess.Popen([*command, "--json"], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    cpu_s, peak, moved = _wait(process)
    read_mb, written_mb = (count / 1e6 for count in moved)
    return Cost(images, cpu_s, 1e6 * cpu_s / images, peak / 1e6, read_mb, written_mb)


def measure(images: int, added: int, folder: Path) -> Iterator[tuple[str, Cost]]:
    """The plan of `images`; then of `added` more."""
    source, inventory, scratch = folder / "masks", folder / "inventory", folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    make_source(source, range(images))
    make_inventory(inventory, range(images))
    output = folder / "output"
    yield "planned", plan(source, inventory, output, images, scratch)
    if added:
        new = range(images, images + added)
        make_source(folder / "added", new)
        make_inventory(folder / "added-inventory", new)
        yield "added", plan(folder / "added", folder / "added-inventory", output, added, scratch)


def _wait(process: subprocess.Popen[bytes]) -> tuple[float, int, list[int]]:
    """What a process used until it ended: CPU seconds, the most memory, bytes read and written by system calls.

    The memory is that of its last sample, since what `wait4` tells begins with the parent's.
    """
    peak = 0
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        peak = _told(process.pid, "status").get("VmHWM", peak)
        time.sleep(EVERY_S)
    moved = _told(process.pid, "io")
    _, status, usage = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        print(f"{process.args!r} ended with {code}", file=sys.stderr)
    return usage.ru_utime + usage.ru_stime, KIB * peak, [moved[name] for name in ("rchar", "wchar")]


def _told(pid: int, file: str) -> dict[str, int]:
    """Numbers that the system keeps of a process; of memory in KiB."""
    lines = (line.split() for line in Path(f"/proc/{pid}/{file}").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}


def _pieces(numbers: range) -> Iterator[range]:
    return (numbers[start : start + ROWS] for start in range(0, len(numbers), ROWS))


def _square() -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    mask = np.zeros(SIZE_HW, bool)
    mask[100:300, 200:400] = True
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--added", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--keep", action="store_true", help="the folder, for a look")
    given = parser.parse_args()
    try:
        for what, cost in measure(given.images, given.added, given.folder):
            print(json.dumps({"what": what, **asdict(cost)}), flush=True)
    finally:
        if not given.keep:
            shutil.rmtree(given.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
