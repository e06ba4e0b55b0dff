"""YOLO segmentation: `images/<split>/NAME.jpg`, `labels/<split>/NAME.txt` and `data.yaml`; without splits, `train`.

One polygon an object, holes and parts included (`one_ring.py`): Ultralytics draws it as the pixels of the mask. Of a
mask of several parts, the lines between them become part of it, and parts smaller than such a line are left out; both
are counted, in masks and in pixels. Classes are numbered from 0 in the order of their ids.

data.yaml has no `path`: its folders are relative to its own, wherever that is. `train` and `val` are always there,
since Ultralytics asks for both; where no split is called so, or has no image, another stands in. A folder called
`images` among the images' own is `images_` here, since Ultralytics takes the last one of a path for the one beside
`labels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import yaml

from pipeline.dataset.by_image import Group, Row
from pipeline.errors import RefusedError
from pipeline.exports.fragments import Fragments
from pipeline.exports.image_files import can_read, file_name, tell_renamed, with_photos
from pipeline.exports.names import in_folders, split_suffix
from pipeline.exports.one_ring import draw, one_ring
from pipeline.exports.types import Export, ExportImage, Job, Piece, batches
from pipeline.masks import binary

WHOLE = "train"
BATCH_IMAGES = 32
STANDS_IN = {"train": (), "val": ("valid", "validation", "test", "train")}
"""What Ultralytics asks for, and what else splits are called that serve."""
TRAINED_ON = frozenset((".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"))
"""Suffixes of images that Ultralytics looks for; it passes over others without a word."""

KEYS = frozenset(("names", "nc", "path", "download", "channels", "kpt_shape", "flip_idx"))
"""What data.yaml says beside the splits."""


def check(job: Job) -> None:
    """Raise RefusedError for a split that data.yaml could not name."""
    for name in KEYS.intersection(job.splits):
        raise RefusedError(f"--split: {name!r} means something else in a data.yaml: choose another name")


def write(job: Job, group: Group, index: int) -> Piece:
    """The label files of one group, and copies of its images."""
    piece = Piece()
    classes = {class_id: number for number, class_id in enumerate(sorted(job.survey.categories))}
    with Fragments(job, index, piece) as fragments:
        for batch in batches(with_photos(job, job.read(group, piece), piece), BATCH_IMAGES):
            named = [(image, data, *_name(job, image, data)) for image, data in batch]
            job.target.tell(path for given in named for path in _paths(*given))
            for image, data, stem, suffix in named:
                tell_renamed(fragments, piece, image, in_folders(image.uri), stem + split_suffix(image.uri)[1])
                crowds = [mask for mask in image.masks if mask["crowd"]]
                piece.lose("crowd regions, which would be objects", len(crowds))
                piece.lose("images of a kind that Ultralytics does not read", int(suffix.lower() not in TRAINED_ON))
                lines = [line(mask, image, classes, piece) for mask in image.masks if not mask["crowd"]]
                contents = ("".join(lines).encode(), data)
                for path, content in zip(_paths(image, data, stem, suffix), contents, strict=False):
                    job.target.put(path, content)
                    piece.files.append(path)
                piece.count(image)
    return piece


def finish(job: Job, pieces: Sequence[Piece]) -> Piece:
    """data.yaml: where the splits are, and the classes' names."""
    names = dict(enumerate(name for _, name in sorted(job.survey.categories.items())))
    present = {PurePosixPath(path).parts[1] for piece in pieces for path in piece.files if path.startswith("labels/")}
    splits = [name for name in (split or WHOLE for split in job.splits) if name in present] or [WHOLE]
    folders = {name: f"images/{name}" for name in splits}
    for asked, others in STANDS_IN.items():
        found = next((name for name in (asked, *others) if name in splits), splits[0])
        folders[asked] = f"images/{found}"
    text = yaml.safe_dump({**folders, "names": names}, sort_keys=False, allow_unicode=True)
    job.target.put("data.yaml", text.encode())
    return Piece(files=["data.yaml"])


def line(mask: Row, image: ExportImage, classes: dict[int, int], piece: Piece) -> str:
    """The line of one mask, with its end; what it loses is counted in `piece`."""
    pixels = binary.decode(mask["mask_rle"])
    ring = one_ring(pixels)
    drawn = draw(ring, (image.height, image.width))
    added, missing = int((drawn > pixels).sum()), int((drawn < pixels).sum())
    piece.lose("masks whose parts are joined by lines", int(added > 0))
    piece.lose("pixels of lines between parts", added)
    piece.lose("masks of which small parts were left out", int(missing > 0))
    piece.lose("pixels in parts left out", missing)
    shares = (ring / np.array([image.width, image.height])).ravel().tolist()
    return f"{classes[mask['class_id']]} {' '.join(f'{share:.10g}' for share in shares)}\n"


def _paths(image: ExportImage, data: bytes, stem: str, suffix: str) -> list[str]:
    """The files of one image: its labels, and itself where images are copied."""
    split = image.split or WHOLE
    return [f"labels/{split}/{stem}.txt", *([f"images/{split}/{stem}{suffix}"] if data else [])]


def _name(job: Job, image: ExportImage, data: bytes) -> tuple[str, str]:
    """Path and suffix of the image; its label file has the same path."""
    path = file_name(image.uri, data)
    folders, _, name = job.survey.names.stem(path, image.image_id).rpartition("/")
    below = "".join("images_/" if folder == "images" else f"{folder}/" for folder in folders.split("/") if folder)
    return below + name, split_suffix(path)[1] or ".img"


EXPORT = Export(write, finish, copies_images=True, check=check, can_read=can_read)
