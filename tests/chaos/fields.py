"""Replace each field of each document of each format by each kind of wrong value, and plan, load and seal what is left.

    python -m tests.chaos.fields [--all] [--number 200] [--seed 0]

An input ends as rows or as one line: never in a traceback, never in more than `LONGEST_S` or `MOST_BYTES`. Where it
ends as rows, every image that is there is planned, or named as one to which no mask belongs.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.errors import RelabelError
from tests.chaos.documents import READERS, Field
from tests.compat import inputs, photos
from tests.field import test_boxes, test_cvat, test_documents, test_label_studio, test_labelme
from tests.field.world import encoded, photograph, run

LONGEST_S = 20
MOST_BYTES = 1 << 30

WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, 10**400, -0.5, 1e308, float("nan"), float("inf"), "", "x", "²", ".", "/",
    "../../x", "/etc/passwd", "a\0b", "ü" * 300, "\ud800", "y" * 100_000, [], [None], [[[]]], [1, "2", {}], {},
    {"size": [3_000_000_000, 1], "counts": [3_000_000_000]}, {"size": [9, 9], "counts": "\xff"}, [[0.5] * 7],
)  # fmt: skip


class Document(NamedTuple):
    """A file of an input that has fields. fields: all of them; replaced: the bytes with another value in one."""

    path: Path
    fields: list[Field]
    replaced: Callable[[Field, Any], bytes]


class Case(NamedTuple):
    """One wrong value in one field of one file of one format."""

    format: str
    file: str
    field: Field
    wrong: int


def makers() -> dict[str, Callable[[Path], Path]]:
    """How each format's input is written below a folder with `images/`; returns its masks."""
    made: dict[str, Callable[[Path], Path]] = {
        name.removeprefix("write_"): _compat(name) for name in vars(inputs) if name.startswith("write_")
    }
    cvat = test_cvat.xml(test_cvat.image(test_cvat.polygon(), name="a.jpg"))
    task = [test_label_studio.region("polygonlabels", test_label_studio.POLYGON)]
    label_studio = [{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"id": 2, "result": task}]}]
    small: dict[str, tuple[str, Any]] = {
        "labelme": ("a.json", test_labelme.document(test_labelme.shape())),
        "sa1b": ("sa_1.json", test_labelme.sa1b(1, {"id": 3, "segmentation": test_documents.MMDET["masks"][0]})),
        "cvat": ("annotations.xml", cvat),
        "label-studio": ("tasks.json", label_studio),
        "voc-boxes": ("a.xml", test_boxes.voc(test_boxes.voc_object())),
        "supervisely": ("ann/a.jpg.json", test_documents.sly(test_documents.sly_object())),
        "mmdet": ("a.json", test_documents.MMDET),
        "rle-csv": ("train.csv", "ImageId,EncodedPixels,Height,Width\na.jpg,1 5 70 5,64,96\na.jpg,200 9,64,96\n"),
    }
    return made | {name: _single(*file) for name, file in small.items()}


def _compat(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        getattr(inputs, name)(folder, photos.BASE)
        return next(path for path in sorted(folder.iterdir()) if path.name != "images")

    return make


def _single(name: str, content: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        photos.put(folder / "images" / ("sa_1.jpg" if name == "sa_1.json" else "a.jpg"), encoded(photograph(), "JPEG"))
        photos.put(folder / "masks" / name, content)
        return folder / "masks" / name if name.endswith((".xml", ".csv", "tasks.json")) else folder / "masks"

    return make


def documents(root: Path) -> Iterator[Document]:
    """The files of an input that are read by field."""
    for path in sorted(path for path in [root, *root.rglob("*")] if path.is_file()):
        reader = READERS.get(path.suffix)
        if reader is not None:
            yield Document(path, *reader(path.read_bytes()))


def cases() -> list[Case]:
    """All of them, in order."""
    found = []
    with tempfile.TemporaryDirectory() as work:
        for name, make in makers().items():
            root = make(Path(work) / name)
            for document in documents(root):
                file = str(document.path.relative_to(Path(work) / name))
                found += [Case(name, file, field, wrong) for field in document.fields for wrong in range(len(WRONG))]
    return found


class TookTooLongError(Exception):
    """An input that is not done with."""


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise TookTooLongError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(case: Case, folder: Path) -> str:
    """How the input ends: "rows", "refused", or "unwritable" where the format cannot hold the value at all.

    Raises what the product raised beside its own errors, and AssertionError for rows that are not there.
    """
    masks = makers()[case.format](folder)
    document = next(one for one in documents(masks) if str(one.path.relative_to(folder)) == case.file)
    try:
        data = document.replaced(case.field, WRONG[case.wrong])
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return "unwritable"
    document.path.write_bytes(data)
    images = folder / "images"
    try:
        with alarm(LONGEST_S):
            outcome = run(images if images.exists() else None, masks, folder / "out")
    except RelabelError as error:
        if len(str(error).splitlines()) != 1:
            raise ValueError(f"more than one line: {error}") from error
        return "refused"
    if images.exists():
        there = sum(path.is_file() for path in images.rglob("*"))
        told = sum(tally["count"] for tally in outcome.scan["found"] if tally["root"] == "images")
        assert told >= there, f"{told} of {there} images are planned, or named as those of no mask"
    return "rows"


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tried(chosen: Sequence[Case], told: Callable[[str], None]) -> Counter[str]:
    """How many ended how; "wrong" are those that must not be, each told."""
    ended: Counter[str] = Counter()
    for case in chosen:
        folder, before = Path(tempfile.mkdtemp()), peak_bytes()
        try:
            how = attempt(case, folder)
        except Exception as error:
            how = "wrong"
            place = traceback.extract_tb(error.__traceback__)[-1]
            told(f"{case}: {type(error).__name__}: {str(error)[:200]} ({place.filename}:{place.lineno})")
        finally:
            shutil.rmtree(folder)
        if peak_bytes() - before > MOST_BYTES:
            how = "wrong"
            told(f"{case}: {(peak_bytes() - before) >> 20} MiB")
        ended[how] += 1
    return ended


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every field and value, in order")
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    everything = cases()
    chosen = everything if given.all else random.Random(given.seed).sample(everything, given.number)
    ended = tried(chosen, lambda line: print(line, flush=True))
    counts = ", ".join(f"{count} {how}" for how, count in sorted(ended.items()))
    print(f"{len(chosen)} of {len(everything)} wrong values in {len(makers())} formats: {counts}")
    return 1 if ended["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
