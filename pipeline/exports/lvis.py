"""LVIS JSON: COCO's annotations, with what LVIS asks for about categories and about what was left out.

https://www.lvisdataset.org/dataset. `lvis.json`, or `lvis_<split>.json`. The categories whose masks a filter took from
an image are its `not_exhaustive_category_ids`, so that an evaluation does not count them as background. RLE unless
polygons are asked for; the lvis package reads both.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.dataset.by_image import Group, Row
from pipeline.exports import coco, fragments
from pipeline.exports.types import Export, ExportImage, Job, Piece
from pipeline.sources.fields import as_list

RARE, COMMON = 10, 100  # images that have the category: up to so many


def write(job: Job, group: Group, index: int) -> Piece:
    """The group's images and annotations, as lines."""
    piece = Piece()
    with fragments.Fragments(job, index, piece) as lines:
        for image in job.read(group, piece):
            lines.add("images", image.split, image_entry(image, job))
            for mask in image.masks:
                entry = coco.annotation(mask, image, job, piece)
                lines.add("annotations", image.split, {k: v for k, v in entry.items() if k != "iscrowd"})
                piece.lose("marks of crowd regions", int(mask["crowd"] or 0))
            piece.count(image)
    return piece


def finish(job: Job, pieces: Sequence[Piece]) -> Piece:
    """One file a split; counts that the source has not are those of all splits."""
    total = Piece()
    for piece in pieces:
        total.images_of.update(piece.images_of)
        total.masks_of.update(piece.masks_of)
    categories = [{**entry, **_counts(entry, total, job.splits)} for entry in coco.categories(job)]
    return coco.write_files(job, categories, "lvis")


def image_entry(image: ExportImage, job: Job) -> Row:
    """An entry of `images`; the package wants a `coco_url`, whose last two parts it takes for folder and name.

    What the source says of categories that were looked for, and not annotated exhaustively, stays.
    """
    not_exhaustive = {*as_list(image.extra.get("not_exhaustive_category_ids")), *image.left_out}
    return {
        "coco_url": image.uri,
        "neg_category_ids": [],
        **coco.image_entry(image, job),
        "not_exhaustive_category_ids": sorted(not_exhaustive),
    }


def _counts(entry: Row, total: Piece, splits: Sequence[str]) -> Row:
    """What LVIS has of a category: the source's own, and the export's where the source has none.

    In LVIS's own files, counts and frequency are those of its training set, and an evaluation goes by them.
    """
    number = entry["id"]
    images = sum(total.images_of[f"{split}/{number}"] for split in splits)
    found = {
        "synset": "",
        "synonyms": [entry["name"]],
        "def": "",
        "frequency": "r" if images <= RARE else "c" if images <= COMMON else "f",
        "image_count": images,
        "instance_count": sum(total.masks_of[f"{split}/{number}"] for split in splits),
    }
    return {name: entry.get(name, value) for name, value in found.items()}


EXPORT = Export(write, finish)
