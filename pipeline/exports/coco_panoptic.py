"""COCO panoptic: a JSON file and a folder of PNGs whose pixels are segment ids (R + 256 G + 65536 B).

https://cocodataset.org/#format-data. `panoptic.json` and `panoptic/NAME.png`, with `_<split>` where there are splits. A
pixel has one segment: where masks overlap the one of the higher quality is on top, among equals the smaller; hidden
pixels, and masks of which nothing is left to see, are counted. Segment ids count from 1 in each image.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.dataset.by_image import Group, Row
from pipeline.exports import coco, fragments
from pipeline.exports.class_maps import rank
from pipeline.exports.types import Export, ExportImage, Job, Piece, named
from pipeline.masks import binary

STEM = "panoptic"


def write(job: Job, group: Group, index: int) -> Piece:
    """The group's PNGs, and its entries as lines."""
    piece = Piece()
    with fragments.Fragments(job, index) as lines:
        for image in job.read(group, piece):
            ids = paint(image)
            name = png_name(image.uri, job.survey.stems_differ)
            path = f"{named(STEM, image.split, '')}/{name}"
            job.target.put(path, to_png(ids))
            piece.files.append(path)
            segments = [_segment(number, mask, ids, piece) for number, mask in enumerate(image.masks, 1)]
            shown = [segment for segment in segments if segment["area"]]
            lines.add("images", image.split, coco.image_entry(image))
            entry = {"image_id": image.number, "file_name": name, "segments_info": shown}
            lines.add("annotations", image.split, entry)
            piece.count(image)
    return piece


def finish(job: Job, pieces: Sequence[Piece]) -> Piece:  # noqa: ARG001 - others need the pieces
    """One file a split."""
    categories = [{**entry, "supercategory": entry["supercategory"] or entry["name"]} for entry in _categories(job)]
    return coco.write_files(job, categories, STEM)


def _categories(job: Job) -> list[Row]:
    return coco.categories(job, supercategory="", isthing=1)


def paint(image: ExportImage) -> npt.NDArray[np.uint32]:
    """(H, W) uint32: 0, or the place of the mask on top among the image's masks, from 1."""
    ids = np.zeros((image.height, image.width), np.uint32)
    for number, mask in sorted(enumerate(image.masks, 1), key=lambda pair: rank(pair[1])):
        ids[binary.decode(mask["mask_rle"]) > 0] = number
    return ids


def to_png(ids: npt.NDArray[np.uint32]) -> bytes:
    """(H, W) uint32 below 2**24 -> RGB PNG."""
    sink = io.BytesIO()
    packed = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
    Image.fromarray(packed).save(sink, "PNG")
    return sink.getvalue()


def png_name(uri: str, stems_differ: bool) -> str:
    """The image's path with the suffix of a PNG; beside its own where two images differ in that alone."""
    return str(PurePosixPath(uri).with_suffix(".png")) if stems_differ else f"{uri}.png"


def _segment(number: int, mask: Row, ids: npt.NDArray[np.uint32], piece: Piece) -> Row:
    visible = binary.encode(ids == number)
    area = binary.area(visible)
    piece.lose("pixels under another mask", mask["area"] - area)
    piece.lose("masks wholly under others", int(area == 0))
    return {
        **mask["extra"],
        "id": number,
        "category_id": mask["class_id"],
        "area": area,
        "bbox": [int(side) for side in binary.bbox_xywh(visible)],
        "iscrowd": int(mask["crowd"] or 0),
        **coco.provenance(mask),
    }


EXPORT = Export(write, finish)
