"""YOLO segmentation: `images/<split>/NAME.jpg`, `labels/<split>/NAME.txt` and `data.yaml`; without splits, `train`.

One polygon an object, along the edges of its pixels. A polygon has no holes, which are filled, and no parts, of which
the largest is kept; both are counted, in masks and in pixels. Classes are numbered from 0 in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import yaml

from pipeline.dataset.by_image import Group, Row
from pipeline.exports.image_files import file_name, with_photos
from pipeline.exports.types import Export, ExportImage, Job, Piece
from pipeline.masks import binary
from pipeline.masks.outlines import outlines, signed_area

WHOLE = "train"


def write(job: Job, group: Group, index: int) -> Piece:  # noqa: ARG001 - files are named by their images
    """The label files of one group, and copies of its images."""
    piece = Piece()
    classes = {class_id: number for number, class_id in enumerate(sorted(job.survey.categories))}
    for image, data in with_photos(job, job.read(group, piece), piece):
        path = PurePosixPath(file_name(image.uri, data))
        if not job.survey.stems_differ:  # a.jpg and a.png would have one label file
            path = path.with_name(f"{path.name.replace('.', '_')}{path.suffix}")
        split = image.split or WHOLE
        crowds = [mask for mask in image.masks if mask["crowd"]]
        piece.lose("crowd regions, which would be objects", len(crowds))
        lines = [line(mask, image, classes, piece) for mask in image.masks if not mask["crowd"]]
        label = f"labels/{split}/{path.with_suffix('.txt')}"
        job.target.put(label, "".join(lines).encode())
        piece.files.append(label)
        if data:
            job.target.put(f"images/{split}/{path}", data)
            piece.files.append(f"images/{split}/{path}")
        piece.count(image)
    return piece


def finish(job: Job, pieces: Sequence[Piece]) -> Piece:  # noqa: ARG001 - others need the pieces
    """data.yaml: where the splits are, and the classes' names."""
    names = dict(enumerate(name for _, name in sorted(job.survey.categories.items())))
    splits = {split or WHOLE: f"images/{split or WHOLE}" for split in job.splits}
    text = yaml.safe_dump({"path": ".", **splits, "names": names}, sort_keys=False, allow_unicode=True)
    job.target.put("data.yaml", text.encode())
    return Piece(files=["data.yaml"])


def line(mask: Row, image: ExportImage, classes: dict[int, int], piece: Piece) -> str:
    """The line of one mask, with its end; what it loses is counted in `piece`."""
    pixels = binary.decode(mask["mask_rle"])
    outer, holes = outlines(pixels)
    largest = max(outer, key=signed_area)
    ring: Sequence[float] = largest.ravel().tolist()
    kept = binary.decode(binary.from_polygons([ring], (image.height, image.width)))
    piece.lose("masks whose holes were filled", int(bool(holes)))
    piece.lose("hole pixels filled", int((kept & (1 - pixels)).sum()))
    piece.lose("masks of several parts, of which the largest was kept", int(len(outer) > 1))
    piece.lose("parts left out", len(outer) - 1)
    piece.lose("pixels in parts left out", int((pixels & (1 - kept)).sum()))
    shares = [f"{value / (image.width, image.height)[axis % 2]:.10g}" for axis, value in enumerate(ring)]
    return f"{classes[mask['class_id']]} {' '.join(shares)}\n"


EXPORT = Export(write, finish, copies_images=True)
