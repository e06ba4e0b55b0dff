"""Sealed results made of given masks, in a moment and without Ray, and what an export of them says."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pipeline.dataset import Result
from pipeline.exports.driver import Exported, export
from pipeline.exports.types import Options
from pipeline.masks import binary
from pipeline.planning.increment import ChunkLimits, plan, read_chunk, read_plan
from pipeline.refining.chunk import Inputs, load
from pipeline.sources import SourceInput, files_root, scan
from pipeline.storage import Access, Store
from schemas import layout
from schemas.config import Method
from schemas.manifest import Shard
from schemas.records import IMAGES, MASKS
from tests.results import make_manifest, publish

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass
class MaskCase:
    """One mask of a result; an empty one stands for a failed mask."""

    pixels: Pixels
    category_id: int = 1
    category: str = "thing"
    quality: float = 0.5
    decision: str = "refined"


@dataclass
class ImageCase:
    """One image of a result."""

    uri: str
    size_hw: tuple[int, int]
    masks: list[MaskCase] = field(default_factory=list)
    extra: str | None = None
    has_photo: bool = True  # some names are those of no file
    source_id: str | None = None


def make_result(folder: Path, images: Sequence[ImageCase], shards: int = 1) -> Result:
    """Write shards, manifest and current.json as `seal` does, and photographs of grey noise below folder/images."""
    store = Store(str(folder / "out"))
    shards_of: dict[str, list[Shard]] = {"images": [], "masks": []}
    for image in (image for image in images if image.has_photo):
        write_photo(folder / "images" / image.uri, image.size_hw)
    ordered = sorted(images, key=lambda image: image.uri)
    for number in range(shards):
        rows = [(index, image) for index, image in enumerate(ordered) if index * shards // len(ordered) == number]
        tables = {
            "images": pa.Table.from_pylist([_image_row(index, image) for index, image in rows], IMAGES),
            "masks": pa.Table.from_pylist([row for index, image in rows for row in _mask_rows(index, image)], MASKS),
        }
        for kind, table in tables.items():
            path = layout.in_run("f" * 12, f"{kind}/{number}.parquet")
            data = store.put_parquet(path, table)
            sha256 = hashlib.sha256(data).hexdigest()
            shards_of[kind].append(Shard(path=path, rows=table.num_rows, bytes=len(data), sha256=sha256))
    return publish(store, make_manifest(fingerprint="f" * 12, images_root=str(folder / "images"), **shards_of))


def write_photo(path: Path, size_hw: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (*size_hw, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def _image_row(index: int, image: ImageCase) -> dict[str, Any]:
    return {
        "image_id": image.uri,
        "image_uri": image.uri,
        "source_image_id": image.source_id or str(index + 1),
        "height": image.size_hw[0],
        "width": image.size_hw[1],
        "status": "ok",
        "reason": None,
        "masks": len(image.masks),
        "attempt": 0,
        "extra": image.extra,
    }


def _mask_rows(index: int, image: ImageCase) -> list[dict[str, Any]]:
    rows = []
    for number, mask in enumerate(image.masks):
        rle = binary.encode(mask.pixels) if mask.pixels.any() else None
        rows.append(
            dict.fromkeys(MASKS.names)
            | {
                "mask_id": f"{index:04d}-{number}",
                "image_id": image.uri,
                "image_uri": image.uri,
                "source_mask_id": str(1000 * index + number + 1),
                "source_image_id": str(index + 1),
                "category_id": mask.category_id,
                "category": mask.category,
                "height": image.size_hw[0],
                "width": image.size_hw[1],
                "coarse_rle": rle,
                "mask_rle": rle,
                "bbox_xywh": binary.bbox_xywh(rle) if rle else None,
                "area": binary.area(rle) if rle else None,
                "decision": mask.decision if rle else "failed",
                "reason": "improved" if rle else "mask_empty",
                "quality": mask.quality if rle else None,
            }
        )
    return rows


@st.composite
def image_cases(draw: st.DrawFn, max_images: int = 3, max_masks: int = 3, max_side: int = 12) -> list[ImageCase]:
    """A few small images with masks of any shape: parts, holes, overlaps, single pixels."""
    found = []
    for index in range(draw(st.integers(1, max_images))):
        size_hw = draw(st.tuples(st.integers(1, max_side), st.integers(1, max_side)))
        pixels = hnp.arrays(np.uint8, size_hw, elements=st.integers(0, 1)).filter(lambda mask: bool(mask.any()))
        cases = draw(st.lists(pixels, max_size=max_masks))
        categories = [draw(st.integers(1, 3)) for _ in cases]
        folder = draw(st.sampled_from(["", "sub/"]))
        names = {1: "cat", 2: "dog & <co>", 3: "épée"}
        found.append(
            ImageCase(
                f"{folder}photo {index}.png",
                size_hw,
                [MaskCase(mask, c, names[c]) for mask, c in zip(cases, categories, strict=True)],
            )
        )
    return found


def write(result: Result, folder: Path, name: str, **options: Any) -> Exported:
    """Export in this process."""
    photos = Store(result.manifest.images_root)
    return export(result, Store(str(folder)), photos, name, Options(**options))


Found = dict[str, list[tuple[str, bytes]]]


def read_back(source: str, uri: Path, images: Path, with_names: bool = True) -> Found:
    """What a source plans and the load stage makes of it: image uri -> (category, pixels) of its masks, sorted."""
    listed = {file.path: file for file in Store(str(images)).list()}
    planned = scan(source, SourceInput(str(uri), Access(), listed))
    with tempfile.TemporaryDirectory() as folder:
        output = Store(folder)
        plan(output, planned, listed, ChunkLimits(64, 1 << 30))
        chunks = [read_chunk(output, chunk) for chunk in read_plan(output).chunks]
    files = files_root(source, str(uri))
    inputs = Inputs(Store(str(images)), Store(files) if files else None)
    found: Found = {}
    for chunk in chunks:
        for image in load(chunk, inputs, Method(), 16, 2).to_pylist():
            assert image["status"] == "ok", (image["image_uri"], image["reason"])
            found[image["image_uri"]] = sorted(_loaded(mask, with_names) for mask in image["masks"])
    return found


def _loaded(mask: dict[str, Any], with_names: bool) -> tuple[str, bytes]:
    assert mask["reason"] is None, mask
    name = mask["category"] if with_names else str(mask["category_id"])
    return name, binary.decode(mask["coarse_rle"]).tobytes()


def expected(images: Sequence[ImageCase]) -> Found:
    """The same of the images that went in."""
    return {image.uri: sorted((mask.category, mask.pixels.tobytes()) for mask in image.masks) for image in images}
