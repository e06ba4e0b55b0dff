"""Tiny inputs of every source: the same five images and their masks, written as each format has them.

A `Write` makes the whole input of a source below a folder: `images/` where the format keeps images apart, and the
masks. Writing the base images and then the grown ones into two folders gives what differs between two nights.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pycocotools import mask as coco_mask

SIZE_HW = (48, 64)
LEFT = (8.0, 6.0, 30.0, 8.0, 28.0, 30.0, 10.0, 34.0)
RIGHT = (36.0, 10.0, 58.0, 12.0, 50.0, 42.0, 34.0, 36.0)
NOTHING: tuple[float, ...] = ()
"""No pixel: an empty mask, or a broken mask file where a format cannot say that."""
NAMES = {1: "猫", 2: "Straßenbahn"}
BROKEN = b"\xff\xd8\xff\xe0 this is no image"

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Rle = dict[str, Any]


class Mask(NamedTuple):
    """One ring x1, y1, x2, y2, ... in pixels, and its category."""

    ring: tuple[float, ...]
    category: int


class Photo(NamedTuple):
    """An image with its masks. late: arrives in the second night; readable: whether its file can be decoded."""

    number: int
    uri: str
    masks: tuple[Mask, ...]
    late: bool = False
    readable: bool = True

    @property
    def stem(self) -> str:
        return str(PurePosixPath(self.uri).with_suffix(""))


Write = Callable[[Path, Sequence[Photo]], None]

BASE = (
    Photo(1, "a.jpg", (Mask(LEFT, 1), Mask(RIGHT, 2))),
    Photo(2, "sub/ö b.jpg", (Mask(RIGHT, 2),)),
    Photo(3, "odd.png", (Mask(NOTHING, 1),)),
    Photo(4, "broken.jpg", (Mask(LEFT, 1),), readable=False),
    Photo(5, "plain.jpg", ()),
)
GROWN = (*BASE, Photo(6, "new.jpg", (Mask(LEFT, 2),), late=True))


def rle(mask: Mask) -> Rle:
    """COCO compressed RLE."""
    if mask.ring:
        found = coco_mask.frPyObjects([list(mask.ring)], *SIZE_HW)[0]
    else:
        found = coco_mask.encode(np.zeros(SIZE_HW, np.uint8, order="F"))
    return {"size": list(SIZE_HW), "counts": found["counts"].decode()}


def pixels(mask: Mask) -> Pixels:
    """(H, W) uint8 {0, 1}."""
    return np.asarray(coco_mask.decode(rle(mask)), np.uint8)


def labels(photo: Photo, values: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(H, W) int64: 0, or the value of the last mask that covers the pixel."""
    canvas = np.zeros(SIZE_HW, np.int64)
    for mask, value in zip(photo.masks, values, strict=True):
        canvas[pixels(mask) > 0] = value
    return canvas


def image_bytes(photo: Photo) -> bytes:
    """A JPEG or PNG of coloured shapes on a gradient; what cannot be decoded where the image is broken."""
    if not photo.readable:
        return BROKEN
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    canvas = np.stack([x * 2, y * 3, np.full_like(x, 20 * photo.number)], axis=2).astype(np.uint8)
    for number, mask in enumerate(photo.masks):
        canvas[pixels(mask) > 0] = (220, 60 + 90 * number, 40)
    return encode(canvas, "PNG" if photo.uri.endswith(".png") else "JPEG")


def encode(canvas: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(canvas).save(sink, kind)
    return sink.getvalue()


def put(path: Path, data: bytes | str | dict[str, Any] | list[Any]) -> None:
    """Bytes and text as they are, all else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(data, bytes | str):
        data = json.dumps(data, ensure_ascii=False)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def put_images(folder: Path, photos: Sequence[Photo]) -> None:
    for photo in photos:
        put(folder / photo.uri, image_bytes(photo))


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
