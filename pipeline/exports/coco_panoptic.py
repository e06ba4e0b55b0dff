"""COCO panoptic: a JSON file and a folder of PNGs whose pixels are segment ids (R + 256 G + 65536 B).

https://cocodataset.org/#format-data. `panoptic.json` and `panoptic/NAME.png`, with `_<split>` where there are splits. A
pixel has one segment: where masks overlap the smaller is on top (`layers.py`); hidden pixels, and masks of which
nothing is left to see, are counted. Segments keep the ids that they have in the source, where these fit and differ;
else they count from 1 in each image. An image of which nothing is known has no segments, since 0 says that a pixel is
unknown: so panopticapi's `pq_compute` finds every image of the original.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.dataset.by_image import Group, Row
from pipeline.exports import coco, fragments
from pipeline.exports.image_files import tell_renamed
from pipeline.exports.layers import count_hidden, paint
from pipeline.exports.names import split_suffix
from pipeline.exports.types import Export, ExportImage, Job, Piece, batches, named
from pipeline.masks import binary

STEM = "panoptic"
BATCH_IMAGES = 64
MAX_SEGMENT_ID = 256**3 - 1


def write(job: Job, group: Group, index: int) -> Piece:
    """The group's PNGs, and its entries as lines."""
    piece = Piece()
    with fragments.Fragments(job, index, piece) as lines:
        for batch in batches(job.read(group, piece, with_unknown=True), BATCH_IMAGES):
            names = [f"{job.survey.names.stem(image.uri, image.image_id)}.png" for image in batch]
            paths = [f"{named(STEM, image.split, '')}/{name}" for image, name in zip(batch, names, strict=True)]
            job.target.tell(paths)
            for image, name, path in zip(batch, names, paths, strict=True):
                ids, segments = segments_of(image, piece)
                job.target.put(path, to_png(ids))
                piece.files.append(path)
                tell_renamed(lines, piece, image, f"{split_suffix(image.uri)[0]}.png", name)
                lines.add("images", image.split, coco.image_entry(image, job))
                entry = {"image_id": image.number, "file_name": name, "segments_info": segments}
                lines.add("annotations", image.split, entry)
                piece.count(image)
    return piece


def finish(job: Job, pieces: Sequence[Piece]) -> Piece:  # noqa: ARG001 - others need the pieces
    """One file a split."""
    categories = [{**entry, "supercategory": entry["supercategory"] or entry["name"]} for entry in _categories(job)]
    return coco.write_files(job, categories, STEM)


def _categories(job: Job) -> list[Row]:
    return coco.categories(job, supercategory="", isthing=1)


def segments_of(image: ExportImage, piece: Piece) -> tuple[npt.NDArray[np.uint32], list[Row]]:
    """(H, W) uint32 ids, 0 where no mask is; and what the JSON says of each segment that is seen."""
    places = paint(image.masks, (image.height, image.width))
    count_hidden(image.masks, places, piece)
    numbers = segment_ids(image.masks)
    found = [_segment(*given, places == place) for place, given in enumerate(zip(numbers, image.masks, strict=True), 1)]
    return np.array([0, *numbers], np.uint32)[places], [segment for segment in found if segment["area"]]


def segment_ids(masks: Sequence[Row]) -> list[int]:
    """A number for each mask of one image: what its id in the source is, or ends in (`000000142238#3226956`)."""
    texts = [(mask["source_mask_id"] or "").rpartition("#")[2] for mask in masks]
    own = [int(text) if text.isascii() and text.isdigit() else 0 for text in texts]
    fit = len({*own}) == len(own) and all(0 < number <= MAX_SEGMENT_ID for number in own)
    return own if fit else list(range(1, len(masks) + 1))


def to_png(ids: npt.NDArray[np.uint32]) -> bytes:
    """(H, W) uint32 below 2**24 -> RGB PNG."""
    sink = io.BytesIO()
    packed = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
    Image.fromarray(packed).save(sink, "PNG")
    return sink.getvalue()


def _segment(number: int, mask: Row, seen: npt.NDArray[np.bool_]) -> Row:
    visible = binary.encode(seen)
    return {
        **mask["extra"],
        "id": number,
        "category_id": mask["class_id"],
        "area": binary.area(visible),
        "bbox": [int(side) for side in binary.bbox_xywh(visible)],
        "iscrowd": int(mask["crowd"] or 0),
        **coco.provenance(mask),
    }


EXPORT = Export(write, finish)
