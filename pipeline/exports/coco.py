"""COCO instances JSON: RLE, which loses nothing, or polygons, which fill holes (counted).

https://cocodataset.org/#format-data. `instances.json`, or one `instances_<split>.json` each. An annotation also has
`quality`, `decision`, `mask_id` and `source_mask_id`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pipeline.dataset.by_image import Group, Row
from pipeline.exports import fragments
from pipeline.exports.types import Export, ExportImage, Job, Piece, named
from pipeline.masks import binary
from pipeline.masks.outlines import outlines


def write(job: Job, group: Group, index: int) -> Piece:
    """The group's images and annotations, as lines."""
    piece = Piece()
    with fragments.Fragments(job, index) as lines:
        for image in job.read(group, piece):
            lines.add("images", image.split, image_entry(image))
            for mask in image.masks:
                lines.add("annotations", image.split, annotation(mask, image, job, piece))
            piece.count(image)
    return piece


def finish(job: Job, pieces: Sequence[Piece]) -> Piece:  # noqa: ARG001 - others need the pieces
    """One file a split."""
    categories = [{"id": number, "name": name} for number, name in sorted(job.survey.categories.items())]
    return write_files(job, categories)


def write_files(job: Job, categories: Sequence[dict[str, Any]], stem: str = "instances") -> Piece:
    """The lines of every split in a file each."""
    piece = Piece()
    for split in job.splits:
        path = named(stem, split, ".json")
        with job.target.writer(path) as sink:
            sink.write(b'{"info": {"description": "refined by relabel"}, "licenses": [], "categories": ')
            sink.write(json.dumps(categories).encode())
            for kind in ("images", "annotations"):
                sink.write(f',\n"{kind}": '.encode())
                fragments.write_list(sink, fragments.lines(job, kind, split))
            sink.write(b"}\n")
        piece.files.append(path)
    return piece


def image_entry(image: ExportImage) -> Row:
    """An entry of `images`."""
    return {"id": image.number, "file_name": image.uri, "height": image.height, "width": image.width}


def annotation(mask: Row, image: ExportImage, job: Job, piece: Piece) -> Row:
    """An entry of `annotations`; what polygons lose is counted in `piece`."""
    segmentation = polygons(mask, piece) if job.options.polygons else mask["mask_rle"]
    return {
        "id": mask["number"],
        "image_id": image.number,
        "category_id": mask["class_id"],
        "segmentation": segmentation,
        "area": mask["area"],
        "bbox": mask["bbox_xywh"],
        "iscrowd": 0,
        **provenance(mask),
    }


def provenance(mask: Row) -> Row:
    """Where a mask comes from and how good it is."""
    return {
        "quality": mask["quality"],
        "decision": mask["decision"],
        "mask_id": mask["mask_id"],
        "source_mask_id": mask["source_mask_id"],
    }


def polygons(mask: Row, piece: Piece) -> list[list[float]]:
    """The outer outlines, which pycocotools draws as exactly this mask with its holes filled."""
    pixels = binary.decode(mask["mask_rle"])
    outer, holes = outlines(pixels)
    found: list[list[float]] = [outline.ravel().tolist() for outline in outer]
    if holes:
        drawn = binary.area(binary.from_polygons(found, (pixels.shape[0], pixels.shape[1])))
        piece.lost.update({"masks whose holes were filled": 1, "hole pixels filled": drawn - mask["area"]})
    return found


EXPORT = Export(write, finish)
