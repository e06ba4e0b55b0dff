"""COCO instances JSON: RLE, which loses nothing, or polygons, which fill holes (counted).

https://cocodataset.org/#format-data. `instances.json`, or one `instances_<split>.json` each. An annotation also has
`quality`, `decision`, `mask_id` and `source_mask_id`. What a COCO source says beside what is used here (attributes,
licenses, supercategories, ...) is written as it came; crowd regions are RLE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.dataset.by_image import Group, Row
from pipeline.exports import fragments
from pipeline.exports.text import to_json
from pipeline.exports.types import Export, ExportImage, Job, Piece, named
from pipeline.masks import binary
from pipeline.masks.outlines import outlines
from pipeline.sources.fields import as_int, as_name


def write(job: Job, group: Group, index: int) -> Piece:
    """The group's images and annotations, as lines."""
    piece = Piece()
    with fragments.Fragments(job, index, piece) as lines:
        for image in job.read(group, piece):
            lines.add("images", image.split, image_entry(image, job))
            for mask in image.masks:
                lines.add("annotations", image.split, annotation(mask, image, job, piece))
            piece.count(image)
    return piece


def finish(job: Job, pieces: Sequence[Piece]) -> Piece:  # noqa: ARG001 - others need the pieces
    """One file a split."""
    return write_files(job, categories(job))


def categories(job: Job, **defaults: Any) -> list[Row]:
    """Every class, with the fields that the source has for it; and the source's classes that no mask has."""
    entries = [entry for entry in job.survey.dataset.get("categories", []) if isinstance(entry, dict)]
    own = {as_int(entry.get("id")): entry for entry in entries}
    named = {as_name(entry.get("name")): entry for entry in entries}
    found = {}
    for number, name in job.survey.categories.items():
        entry = own.get(number, {})
        entry = entry if as_name(entry.get("name")) == name else named.get(name, {})
        found[number] = {**defaults, **entry, "id": number, "name": name}
    if all(pair[0] == number for pair, number in job.survey.class_ids.items()):
        for unused, entry in own.items():
            if unused is not None and unused not in found:
                found[unused] = {**defaults, **entry, "id": unused}
    return [found[number] for number in sorted(found)]


def write_files(job: Job, categories: Sequence[dict[str, Any]], stem: str = "instances") -> Piece:
    """The lines of every split in a file each."""
    piece = Piece()
    for split in job.splits:
        path = named(stem, split, ".json")
        with job.target.writer(path) as sink:
            info = job.survey.dataset.get("info") or {"description": "refined by relabel"}
            head = {"info": info, "licenses": job.survey.dataset.get("licenses", []), "categories": list(categories)}
            sink.write(to_json(head, piece)[:-1].encode())
            for kind in ("images", "annotations"):
                sink.write(f',\n"{kind}": '.encode())
                fragments.write_list(sink, fragments.lines(job, kind, split))
            sink.write(b"}\n")
        piece.files.append(path)
    return piece


def image_entry(image: ExportImage, job: Job) -> Row:
    """An entry of `images`; an id that is no number of its own stands beside it."""
    source_id = {} if job.survey.own_image_ids or not image.source_id else {"source_image_id": image.source_id}
    size = {"height": image.height, "width": image.width}
    return {**image.extra, "id": image.number, **source_id, "file_name": image.uri, **size}


def annotation(mask: Row, image: ExportImage, job: Job, piece: Piece) -> Row:
    """An entry of `annotations`; what polygons lose is counted in `piece`."""
    as_polygons = job.options.polygons and not mask["crowd"]
    return {
        **mask["extra"],
        "id": mask["number"],
        "image_id": image.number,
        "category_id": mask["class_id"],
        "segmentation": polygons(mask, piece) if as_polygons else mask["mask_rle"],
        "area": mask["area"],
        "bbox": mask["bbox_xywh"],
        "iscrowd": int(mask["crowd"] or 0),
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


def polygons(mask: Row, piece: Piece) -> list[Sequence[float]]:
    """The outer outlines, which pycocotools draws as exactly this mask with its holes filled."""
    pixels = binary.decode(mask["mask_rle"])
    outer, holes = outlines(pixels)
    found: list[Sequence[float]] = [outline.ravel().tolist() for outline in outer]
    if holes:
        drawn = binary.area(binary.from_polygons(found, (pixels.shape[0], pixels.shape[1])))
        piece.lost.update({"masks whose holes were filled": 1, "hole pixels filled": drawn - mask["area"]})
    return found


EXPORT = Export(write, finish)
