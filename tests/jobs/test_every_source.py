"""`relabel run` from every source and `relabel export` to every format, as commands on one Ray cluster.

The demo is run once from COCO JSON; its masks are written in each format (by `relabel export` where there is an
export of it) and run again. What then stands in `coarse_rle` is what was written, pixel for pixel, or less exactly
what the export said it lost.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset import Result, open_result
from pipeline.masks import binary
from tests.conftest import DEMO, Cli, ray_head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Masks = dict[str, list[Pixels]]
"""Name of a photograph without its ending -> its masks, (H, W)."""


class Source(NamedTuple):
    """What to give `relabel run`: --masks, --images (None: not needed), --source (None: found by looking)."""

    masks: Path
    images: Path | None = None
    name: str | None = None


class Work(NamedTuple):
    """The demo's result of one run, the Ray head for more, and `relabel run` upon it."""

    result: Result
    run: Callable[[Source, Path], Result]
    export: Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, relabel: Cli) -> Iterator[Work]:
    with ray_head() as head:

        def run(source: Source, output: Path) -> Result:
            words = ["--masks", source.masks, "--output", output, "--address", head.address, "--actors", "1"]
            words += ["--images", source.images] if source.images else []
            words += ["--source", source.name] if source.name else []
            done = relabel("run", *words)
            assert done.returncode == 0, done.stderr
            return open_result(str(output))

        def export(result: Result, name: str, to: Path, *words: str) -> dict[str, Any]:
            done = relabel("export", result.store.uri, "--format", name, "--to", to, *words)
            assert done.returncode == 0, done.stderr
            report: dict[str, Any] = json.loads((to / "export.json").read_text())
            return report

        folder = tmp_path_factory.mktemp("demo")
        yield Work(run(Source(DEMO / "coarse.json", DEMO / "images"), folder / "out"), run, export)


def stem(uri: str) -> str:
    return Path(uri.partition("#")[2] or uri).stem


def of_column(result: Result, column: str) -> Masks:
    found: Masks = {}
    for row in result.masks().sort_by("mask_id").to_pylist():
        found.setdefault(stem(row["image_uri"]), []).append(binary.decode(row[column]))
    return found


def by_content(found: Masks) -> dict[str, list[bytes]]:
    return {name: sorted(mask.tobytes() for mask in one) for name, one in found.items()}


def contents(found: Masks) -> list[bytes]:
    """Of samples that are numbered: the masks, whatever their photographs are called."""
    return sorted(mask.tobytes() for one in found.values() for mask in one)


def area(found: Masks) -> int:
    return sum(int(mask.sum()) for one in found.values() for mask in one)


def save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


WHOLE = {
    "coco": "instances.json",
    "lvis": "lvis.json",
    "webdataset": "",
    "cvat": "annotations.xml",
    "label-studio": "tasks.json",
}
"""Exports that hold every pixel, and where their masks are."""


@pytest.mark.parametrize(("name", "masks_at"), WHOLE.items())
def test_what_an_export_holds_wholly(work: Work, tmp_path: Path, name: str, masks_at: str) -> None:
    lost = work.export(work.result, name, tmp_path / "to")["lost"]
    images = None if name == "webdataset" else DEMO / "images"
    again = work.run(Source(tmp_path / "to" / masks_at, images), tmp_path / "out")
    found, wanted = of_column(again, "coarse_rle"), of_column(work.result, "mask_rle")
    assert not lost
    assert contents(found) == contents(wanted)
    if name != "webdataset":  # whose samples are numbered
        assert by_content(found) == by_content(wanted)


@pytest.mark.parametrize("with_images", [True, False])
def test_hugging_face(work: Work, tmp_path: Path, with_images: bool) -> None:
    work.export(work.result, "huggingface", tmp_path / "to", *([] if with_images else ["--no-images"]))
    again = work.run(Source(tmp_path / "to", None if with_images else DEMO / "images"), tmp_path / "out")
    assert contents(of_column(again, "coarse_rle")) == contents(of_column(work.result, "mask_rle"))


def test_coco_panoptic(work: Work, tmp_path: Path) -> None:
    lost = work.export(work.result, "coco-panoptic", tmp_path / "to")["lost"]
    again = work.run(Source(tmp_path / "to" / "panoptic.json", DEMO / "images"), tmp_path / "out")
    gone = area(of_column(work.result, "mask_rle")) - area(of_column(again, "coarse_rle"))
    assert gone == lost.get("pixels under another mask", 0)


def test_yolo(work: Work, tmp_path: Path) -> None:
    lost = work.export(work.result, "yolo", tmp_path / "to")["lost"]
    labels, images = (tmp_path / "to" / kind / "train" for kind in ("labels", "images"))
    again = work.run(Source(labels, images), tmp_path / "out")
    change = area(of_column(again, "coarse_rle")) - area(of_column(work.result, "mask_rle"))
    assert change == -lost.get("pixels in parts left out", 0)


def test_class_maps(work: Work, tmp_path: Path) -> None:
    work.export(work.result, "class-maps", tmp_path / "to")
    maps = {path.stem: np.asarray(Image.open(path)) for path in (tmp_path / "to").rglob("*.png")}
    folder = next((tmp_path / "to").rglob("*.png")).parent
    again = work.run(Source(folder, DEMO / "images", "class-maps"), tmp_path / "out")
    wanted = {name: [(ids == one).astype(np.uint8) for one in np.unique(ids) if one] for name, ids in maps.items()}
    assert by_content(of_column(again, "coarse_rle")) == by_content(wanted)


def test_its_own_output(work: Work, tmp_path: Path) -> None:
    again = work.run(Source(Path(work.result.store.uri)), tmp_path / "out")
    assert by_content(of_column(again, "coarse_rle")) == by_content(of_column(work.result, "mask_rle"))


def test_coco_results(work: Work, tmp_path: Path) -> None:
    rows = [
        {"image_id": row["source_image_id"], "category_id": 1, "score": 0.9, "segmentation": row["mask_rle"]}
        for row in work.result.masks().to_pylist()
    ]
    (tmp_path / "results.json").write_text(json.dumps([{**row, "image_id": int(row["image_id"])} for row in rows]))
    source = Source(tmp_path / "results.json", DEMO / "images", f"coco-results:images={DEMO / 'coarse.json'}")
    again = work.run(source, tmp_path / "out")
    assert by_content(of_column(again, "coarse_rle")) == by_content(of_column(work.result, "mask_rle"))


def test_a_png_a_mask(work: Work, tmp_path: Path) -> None:
    wanted = of_column(work.result, "mask_rle")
    for name, found in wanted.items():
        for number, mask in enumerate(found):
            save(tmp_path / "masks" / name / f"{number}.png", mask * 255)
    again = work.run(Source(tmp_path / "masks", DEMO / "images"), tmp_path / "out")
    assert by_content(of_column(again, "coarse_rle")) == by_content(wanted)


def instance_ids(found: list[Pixels]) -> Pixels:
    """(H, W) 0 background, then 1, 2, ...; a later mask lies over an earlier one."""
    ids = np.zeros(found[0].shape, np.uint8)
    for number, mask in enumerate(found, start=1):
        ids[mask > 0] = number
    return ids


@pytest.mark.parametrize("name", ["instances", "voc"])
def test_a_png_of_instance_ids(work: Work, tmp_path: Path, name: str) -> None:
    maps = {key: instance_ids(found) for key, found in of_column(work.result, "mask_rle").items()}
    root = tmp_path / "in"
    for key, ids in maps.items():
        save(root / "SegmentationObject" / f"{key}.png", ids)
        save(root / "SegmentationClass" / f"{key}.png", (ids > 0).astype(np.uint8))
    shutil.copytree(DEMO / "images", root / "JPEGImages")
    source = Source(root if name == "voc" else root / "SegmentationObject", root / "JPEGImages", name)
    again = work.run(source, tmp_path / "out")
    wanted = {key: [(ids == one).astype(np.uint8) for one in np.unique(ids) if one] for key, ids in maps.items()}
    assert by_content(of_column(again, "coarse_rle")) == by_content(wanted)


def test_class_activation_maps(work: Work, tmp_path: Path) -> None:
    """One class a photograph, certain inside the first mask: what is refined is that mask."""
    first = {key: found[0] for key, found in of_column(work.result, "mask_rle").items()}
    (tmp_path / "cams").mkdir()
    for key, mask in first.items():
        scores = np.where(mask[None] > 0, 0.95, 0.05).astype(np.float32)
        np.savez(tmp_path / "cams" / f"{key}.npz", cam=scores, keys=np.array([3]))
    again = work.run(Source(tmp_path / "cams", DEMO / "images", "cam"), tmp_path / "out")
    assert by_content(of_column(again, "coarse_rle")) == by_content({key: [mask] for key, mask in first.items()})
    assert set(again.masks()["category_id"].to_pylist()) == {3}
