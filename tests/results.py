"""Sealed results made to measure, without a model: real files, real manifest, chosen rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from pipeline.dataset import open_result
from pipeline.dataset.result import Result
from pipeline.masks import binary
from pipeline.output.shard_rows import add_counts, count
from pipeline.storage import Store, parquet_bytes
from pipeline.storage.documents import run_store
from schemas import layout
from schemas.manifest import (
    Counts,
    Manifest,
    PartsListing,
    PlannedTotals,
    Pointer,
    Retries,
    SealedTotals,
    Shard,
    to_json,
)
from schemas.records import IMAGES, MASKS

FINGERPRINT = "feedc0ffee00"
SIZE_HW = (48, 64)

Row = dict[str, Any]


def mask_row(image: str, number: int, coarse: npt.ArrayLike, refined: npt.ArrayLike, **values: Any) -> Row:
    """A row of `masks/`; `values` win over what is derived."""
    rles = binary.encode(coarse), binary.encode(refined)
    decision = values.get("decision", "refined")
    kept = {"refined": rles[1], "kept_coarse": rles[0], "review": rles[0]}.get(decision)
    iou = binary.iou(coarse, refined)
    row: Row = {
        **dict.fromkeys(MASKS.names),
        "mask_id": hashlib.sha256(f"{image}/{number}".encode()).hexdigest()[:32],
        "image_id": image,
        "image_uri": image,
        "source_mask_id": str(number),
        "category_id": 1,
        "category": "thing",
        "height": rles[0]["size"][0],
        "width": rles[0]["size"][1],
        "coarse_rle": rles[0],
        "refined_rle": rles[1] if decision != "failed" else None,
        "mask_rle": kept,
        "bbox_xywh": binary.bbox_xywh(kept) if kept else None,
        "area": binary.area(kept) if kept else None,
        "decision": decision,
        "reason": {"refined": "improved", "failed": "mask_empty"}.get(decision, "refined_less_certain"),
        "quality": 0.9 if kept else None,
        "quality_coarse": 0.9 * iou,
        "quality_refined": 0.9,
        "predicted_iou": 0.9,
        "coarse_iou": iou,
        "area_ratio": 1.0,
    }
    return row | values


def write_result(output: Path, shards: Sequence[Sequence[Row]], images_root: str, row_group_rows: int = 5) -> Result:
    """One file of masks (and of images) for each list of rows, and the manifest over them."""
    store = Store(str(output))
    run = run_store(store, FINGERPRINT)
    entries: dict[str, list[Shard]] = {"masks": [], "images": []}
    counts = []
    for rows in shards:
        images = {row["image_id"]: _image_row(row) for row in rows}
        for row in rows:
            images[row["image_id"]]["masks"] += 1
        counts.append(count(list(images.values()), list(rows)))
        for kind, found, schema in (("masks", list(rows), MASKS), ("images", list(images.values()), IMAGES)):
            data = parquet_bytes(pa.Table.from_pylist(found, schema), row_group_rows)
            sha256 = hashlib.sha256(data).hexdigest()
            path = layout.shard(kind, sha256)
            run.put(path, data)
            path = layout.in_run(FINGERPRINT, path)
            entries[kind].append(Shard(path=path, rows=len(found), bytes=len(data), sha256=sha256))
    total = add_counts(counts)
    images_and_masks = {"images": sum(total.images.values()), "masks": sum(total.decisions.values())}
    manifest = make_manifest(
        images_root=images_root,
        planned=PlannedTotals(images=images_and_masks["images"], chunks=len(shards)),
        sealed=SealedTotals(**images_and_masks, chunks=len(shards)),
        counts=total,
        **entries,
    )
    return publish(store, manifest)


def make_manifest(**values: Any) -> Manifest:
    """A manifest of nothing, `values` apart."""
    nothing: dict[str, Any] = {
        "schema_version": 1,
        "fingerprint": FINGERPRINT,
        "generation": 0,
        "gate": {},
        "gate_digest": "",
        "calibration_id": "uncalibrated-1",
        "calibration_digest": None,
        "drift": {},
        "images_root": "/photos",
        "increments": 0,
        "plan": [],
        "execution_classes": [],
        "planned": PlannedTotals(images=0, chunks=0),
        "sealed": SealedTotals(images=0, masks=0, chunks=0),
        "counts": Counts(),
        "masks": [],
        "images": [],
        "groups": [],
        "parts": PartsListing(files=0, bytes=0, sha256=""),
        "retries": Retries(done=0, sha256=[]),
    }
    return Manifest(**{**nothing, **values})


def publish(output: Store, manifest: Manifest) -> Result:
    """Write the manifest, and the pointer to it."""
    data = manifest.to_json()
    run_store(output, manifest.fingerprint).put(layout.Seal(manifest.generation).manifest, data)
    sha256 = hashlib.sha256(data).hexdigest()
    pointer = Pointer(fingerprint=manifest.fingerprint, generation=manifest.generation, manifest_sha256=sha256)
    output.put(layout.CURRENT, to_json(pointer))
    return open_result(output.uri)


def ellipse(
    centre_xy: tuple[int, int], radius: int, angle: float = 0, size_hw: tuple[int, int] = SIZE_HW
) -> npt.NDArray[np.uint8]:
    """(H, W) {0, 1}."""
    canvas = np.zeros(size_hw, np.uint8)
    return cv2.ellipse(canvas, centre_xy, (radius, max(2, radius * 2 // 3)), angle, 0, 360, 1, -1)


def write_photo(path: Path, shapes: Sequence[npt.NDArray[np.uint8]], seed: int) -> None:
    """Textured shapes on a textured ground, as PNG."""
    random = np.random.default_rng(seed)
    pixels = random.integers(60, 110, (*shapes[0].shape, 3))
    for shape in shapes:
        pixels[shape > 0] = random.integers(150, 200, (int(shape.sum()), 3)) * random.uniform(0.8, 1.25, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def _image_row(row: Row) -> Row:
    names = ("image_id", "image_uri", "source_image_id", "height", "width")
    return {**{name: row[name] for name in names}, "status": "ok", "reason": None, "masks": 0, "attempt": 0}
