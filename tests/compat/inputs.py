"""Tiny inputs of every source: the same five images and their masks, written as each format has them.

A `Write` makes the whole input of a source below a folder: `images/` where the format keeps images apart, and the
masks. Writing the base images and then the grown ones into two folders gives what differs between two nights.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.compat.photos import (
    BROKEN,
    LEFT,
    NAMES,
    SIZE_HW,
    Mask,
    Photo,
    encode,
    image_bytes,
    labels,
    pixels,
    put,
    put_images,
    rle,
)


def categories() -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number, name in NAMES.items()]


def coco_images(photos: Sequence[Photo]) -> list[dict[str, Any]]:
    height, width = SIZE_HW
    return [{"id": photo.number, "file_name": photo.uri, "height": height, "width": width} for photo in photos]


def coco_annotations(photos: Sequence[Photo]) -> list[dict[str, Any]]:
    """Polygons for the first mask of an image, RLE for the others, and none of the pixels as run lengths."""

    def segmentation(number: int, mask: Mask) -> Any:
        if not mask.ring:
            return {"size": list(SIZE_HW), "counts": [SIZE_HW[0] * SIZE_HW[1]]}
        return rle(mask) if number else [list(mask.ring)]

    return [
        {
            "id": 10 * photo.number + number,
            "image_id": photo.number,
            "category_id": mask.category,
            "iscrowd": 0,
            "segmentation": segmentation(number, mask),
        }
        for photo in photos
        for number, mask in enumerate(photo.masks)
    ]


def write_coco(folder: Path, photos: Sequence[Photo]) -> None:
    """With an annotation of an image that the file does not have."""
    put_images(folder / "images", photos)
    lost = {"id": 990, "image_id": 99, "category_id": 1, "iscrowd": 0, "segmentation": [list(LEFT)]}
    put(
        folder / "coarse.json",
        {"images": coco_images(photos), "annotations": [*coco_annotations(photos), lost], "categories": categories()},
    )


def write_coco_results(folder: Path, photos: Sequence[Photo]) -> None:
    """Two detections a mask, of which the second is below the score that is asked for."""
    put_images(folder / "images", photos)
    put(folder / "index.json", {"images": coco_images(photos), "annotations": [], "categories": categories()})
    detections = [
        {"image_id": photo.number, "category_id": mask.category, "score": score, "segmentation": rle(mask)}
        for photo in photos
        for mask in photo.masks
        for score in (0.9, 0.1)
    ]
    put(folder / "results.json", detections)


def write_lvis(folder: Path, photos: Sequence[Photo]) -> None:
    put_images(folder / "images", photos)
    images = [
        {
            **{key: value for key, value in image.items() if key != "file_name"},
            "coco_url": f"http://images.example.org/{image['file_name']}",
            "neg_category_ids": [],
            "not_exhaustive_category_ids": [],
        }
        for image in coco_images(photos)
    ]
    put(
        folder / "lvis.json",
        {"images": images, "annotations": coco_annotations(photos), "categories": categories()},
    )


def write_coco_panoptic(folder: Path, photos: Sequence[Photo]) -> None:
    put_images(folder / "images", photos)
    segments = [
        {
            "image_id": photo.number,
            "file_name": f"{photo.stem}.png",
            "segments_info": [
                {"id": 70_000 + number, "category_id": mask.category} for number, mask in enumerate(photo.masks)
            ],
        }
        for photo in photos
    ]
    for photo in photos:
        ids = labels(photo, range(70_000, 70_000 + len(photo.masks)))
        packed = np.stack([ids % 256, ids // 256 % 256, ids // 65_536], axis=2).astype(np.uint8)
        put(folder / "panoptic" / f"{photo.stem}.png", encode(packed) if _drawable(photo) else BROKEN)
    content = {"images": coco_images(photos), "annotations": segments, "categories": categories()}
    put(folder / "panoptic.json", content)


def write_png(folder: Path, photos: Sequence[Photo]) -> None:
    """The first image's masks in one file, those of the others in a folder of files; and one of no image."""
    put_images(folder / "images", photos)
    put(folder / "masks" / "orphan.png", encode(pixels(Mask(LEFT, 1)) * 255))
    for photo in photos:
        if photo.number == 1:
            put(folder / "masks" / f"{photo.stem}.png", encode(labels(photo, (3, 7)).astype(np.uint8)))
            continue
        for number, mask in enumerate(photo.masks):
            put(folder / "masks" / photo.stem / f"{number}.png", encode(pixels(mask) * 255))


def write_instances(folder: Path, photos: Sequence[Photo]) -> None:
    put_images(folder / "images", photos)
    put(folder / "ids" / "orphan.png", encode(pixels(Mask(LEFT, 1))))
    for photo in photos:
        ids = labels(photo, [1000 * mask.category + number for number, mask in enumerate(photo.masks)])
        if photo.masks:
            put(folder / "ids" / f"{photo.stem}.png", encode(ids.astype(np.uint16)) if _drawable(photo) else BROKEN)


def write_voc(folder: Path, photos: Sequence[Photo]) -> None:
    put_images(folder / "VOC" / "JPEGImages", photos)
    for photo in (photo for photo in photos if photo.masks):
        objects = labels(photo, range(1, len(photo.masks) + 1)).astype(np.uint8)
        classes = labels(photo, [8 * mask.category for mask in photo.masks]).astype(np.uint8)
        for kind, found in (("SegmentationObject", objects), ("SegmentationClass", classes)):
            put(folder / "VOC" / kind / f"{photo.stem}.png", encode(found) if _drawable(photo) else BROKEN)


def write_class_maps(folder: Path, photos: Sequence[Photo]) -> None:
    put_images(folder / "images", photos)
    for photo in (photo for photo in photos if photo.masks):
        found = labels(photo, [mask.category for mask in photo.masks]).astype(np.uint8)
        put(folder / "maps" / f"{photo.stem}.png", encode(found) if _drawable(photo) else BROKEN)


def write_cam(folder: Path, photos: Sequence[Photo]) -> None:
    """.npz with the categories of its channels, and .npy without, of the late image."""
    put_images(folder / "images", photos)
    for photo in (photo for photo in photos if photo.masks):
        scores = np.stack([np.where(pixels(mask) > 0, 0.95, 0.05) for mask in photo.masks]).astype(np.float32)
        sink = io.BytesIO()
        if photo.late:
            np.save(sink, scores)
        else:
            np.savez_compressed(sink, cam=scores, keys=np.array([mask.category for mask in photo.masks]))
        data = sink.getvalue() if _drawable(photo) else BROKEN
        put(folder / "cams" / f"{photo.stem}.{'npy' if photo.late else 'npz'}", data)


def write_yolo(folder: Path, photos: Sequence[Photo]) -> None:
    put_images(folder / "images", photos)
    put(folder / "data.yaml", "path: .\nnames:\n" + "".join(f"  {key}: {name}\n" for key, name in NAMES.items()))
    sides = np.tile(SIZE_HW[::-1], len(LEFT) // 2)
    for photo in (photo for photo in photos if photo.masks):
        lines = [
            " ".join(map(str, [mask.category, *(np.asarray(mask.ring) / sides if mask.ring else ["nan"] * 6)]))
            for mask in photo.masks
        ]
        put(folder / "labels" / f"{photo.stem}.txt", "\n".join(lines) + "\n")


def write_parquet(folder: Path, photos: Sequence[Photo]) -> None:
    """As Hugging Face has it: images inside, late ones in a file of their own."""
    for late in (False, True):
        rows = [
            {
                "image": {"bytes": image_bytes(photo), "path": photo.uri},
                "image_id": photo.number,
                "objects": [_object(photo, number) for number in range(len(photo.masks))],
            }
            for photo in photos
            if photo.late is late
        ]
        if rows:
            (folder / "data").mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), folder / "data" / f"train-{int(late)}.parquet")


def write_webdataset(folder: Path, photos: Sequence[Photo]) -> None:
    """JSON beside each image; late ones in a tar of their own."""
    for late in (False, True):
        chosen = [photo for photo in photos if photo.late is late]
        if not chosen:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / f"shard-00{int(late)}.tar", "w") as archive:
            for photo in chosen:
                content = {"annotations": [_object(photo, number) for number in range(len(photo.masks))]}
                _add(archive, photo.uri, image_bytes(photo))
                _add(archive, f"{photo.stem}.json", json.dumps(content).encode())


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _object(photo: Photo, number: int) -> dict[str, Any]:
    mask = photo.masks[number]
    return {
        "id": 10 * photo.number + number,
        "segmentation": rle(mask),
        "category_id": mask.category,
        "category_name": NAMES[mask.category],
    }


def _drawable(photo: Photo) -> bool:
    return all(mask.ring for mask in photo.masks)
