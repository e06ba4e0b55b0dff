"""CVAT review tasks: `annotations.xml` in "CVAT for images 1.1" and `labels.json`, the task's labels in raw form.

https://docs.cvat.ai/docs/manual/advanced/xml_format. Create a task with the labels and the images, then upload the XML.
Masks keep every pixel: the run lengths of the box's rows, background first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.dataset.by_image import Group, Row
from pipeline.exports import fragments
from pipeline.exports.text import to_json, xml_attribute, xml_content, xml_text
from pipeline.exports.types import Export, Job, Piece, named
from pipeline.masks import binary

ATTRIBUTES = ("mask_id", "decision", "quality", "is_crowd")


def write(job: Job, group: Group, index: int) -> Piece:
    """The group's images, as lines."""
    piece = Piece()
    with fragments.Fragments(job, index, piece) as lines:
        for image in job.read(group, piece):
            shapes = "".join(shape(mask, job.survey.categories[mask["class_id"]], piece) for mask in image.masks)
            name, size = xml_attribute(image.uri, piece), f'width="{image.width}" height="{image.height}"'
            lines.add("images", image.split, f'<image id="{image.number}" name={name} {size}>{shapes}</image>')
            piece.count(image)
    return piece


def finish(job: Job, pieces: Sequence[Piece]) -> Piece:  # noqa: ARG001 - others need the pieces
    """One XML a split, and the labels."""
    piece = Piece(files=["labels.json"])
    names = [xml_text(name, piece) for name in job.survey.labels]
    labels = "".join(f"<label><name>{xml_content(name, piece)}</name></label>" for name in names)
    for split in job.splits:
        path = named("annotations", split, ".xml")
        with job.target.writer(path) as sink:
            head = f"<version>1.1</version>\n<meta><task><labels>{labels}</labels></task></meta>"
            sink.write(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n{head}\n'.encode())
            for line in fragments.lines(job, "images", split):
                sink.write(line + b"\n")
            sink.write(b"</annotations>\n")
        piece.files.append(path)
    job.target.put("labels.json", to_json([label(name) for name in names], piece, indent=1).encode())
    return piece


def shape(mask: Row, name: str, piece: Piece) -> str:
    """One mask as an element."""
    x, y, width, height = (int(side) for side in mask["bbox_xywh"])
    box = binary.decode(mask["mask_rle"])[y : y + height, x : x + width]
    runs = ", ".join(map(str, row_runs(box)))
    quality = "" if mask["quality"] is None else f"{mask['quality']:.4f}"
    values = {**mask, "quality": quality, "is_crowd": "true" if mask["crowd"] else "false"}
    attributes = "".join(
        f'<attribute name="{key}">{xml_content(str(values[key]), piece)}</attribute>' for key in ATTRIBUTES
    )
    place = f'left="{x}" top="{y}" width="{width}" height="{height}" z_order="0"'
    return (
        f'<mask label={xml_attribute(name, piece)} source="auto" occluded="0" rle="{runs}" {place}>{attributes}</mask>'
    )


def row_runs(box: binary.Mask) -> list[int]:
    """(h, w) {0, 1} -> lengths of its runs row by row, background first (0 where it begins inside)."""
    flat = box.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), len(flat) - 1)
    lengths = np.diff(ends, prepend=-1).tolist()
    return [0, *lengths] if flat[0] else list(lengths)


def label(name: str) -> Row:
    """A label as CVAT's raw constructor takes it; for shapes of any kind, as a correction may be a polygon."""
    return {"name": name, "type": "any", "attributes": [_attribute(key) for key in ATTRIBUTES]}


def _attribute(name: str) -> Row:
    kind, default = ("checkbox", "false") if name == "is_crowd" else ("text", "")
    return {"name": name, "mutable": False, "input_type": kind, "default_value": default, "values": [default]}


EXPORT = Export(write, finish)
