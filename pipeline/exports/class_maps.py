"""A result as class maps: one indexed PNG for each image, `NAME.png` for `NAME.jpg`, as Pascal VOC has them.

The value of a pixel is the category id of the mask that holds it, 0 where none does, 255 where the void maps say that
nobody knows. Masks that were refined with `exclusive` do not overlap; where others do (one class kept coarse beside
another that was refined, instances of two classes), the mask of the higher quality is on top, among equals the smaller.
What is hidden under another mask is counted. Failed images get no map; failed masks are not in one.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.dataset.by_image import Group, Row
from pipeline.errors import MaskError, RefusedError
from pipeline.exports.types import Export, ExportImage, Job, Piece, batches
from pipeline.masks import binary
from pipeline.masks.coarse import read_label_image
from pipeline.storage import Store

VOID = 255
BATCH_IMAGES = 64
THREADS = 8
GOLDEN_RATIO = 0.61803398875

Void = npt.NDArray[np.bool_] | None


def write(job: Job, group: Group, index: int) -> Piece:  # noqa: ARG001 - files are named by their images
    """The maps of one group. Raises RefusedError for category ids or names that do not fit."""
    if not job.survey.stems_differ:
        raise RefusedError("two images differ in their suffix alone: their maps would be one file")
    void = None if job.options.void is None else Store(job.options.void, job.target.access)
    piece = Piece()
    with ThreadPoolExecutor(THREADS) as pool:
        for batch in batches(job.read(group, piece), BATCH_IMAGES):
            for image, (path, hidden_px) in zip(
                batch, pool.map(lambda one: _write(one, job, void), batch), strict=True
            ):
                piece.files.append(path)
                piece.count(image)
                piece.lose("pixels under another mask", hidden_px)
    return piece


def finish(job: Job, pieces: Sequence[Piece]) -> Piece:  # noqa: ARG001 - every map stands for itself
    """Nothing is left to do."""
    return Piece()


def paint(rows: list[Row], size_hw: tuple[int, int], image: str = "", void: Void = None) -> npt.NDArray[np.uint8]:
    """(H, W) uint8 class map of the mask rows of one image; void: (H, W) bool, what stays void where no class is."""
    pixels = np.zeros(size_hw, np.uint8) if void is None else np.where(void, VOID, 0).astype(np.uint8)
    for row in sorted(rows, key=rank):
        if not 0 < row["category_id"] < VOID:
            raise RefusedError(
                f"mask {row['mask_id']} of {image} has category_id {row['category_id']}; a class map holds "
                f"1 to {VOID - 1}"
            )
        pixels[binary.decode(row["mask_rle"]) > 0] = row["category_id"]
    return pixels


def to_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """(H, W) uint8 -> an indexed PNG; background black, void near white, classes in colours that are easy to tell."""
    image = Image.fromarray(pixels)
    image.putpalette(PALETTE)
    sink = io.BytesIO()
    image.save(sink, "PNG", optimize=False)
    return sink.getvalue()


def _palette() -> list[int]:
    colours = [(0.0, 0.0, 0.0)]
    colours += [colorsys.hsv_to_rgb(i * GOLDEN_RATIO % 1, 0.6 + 0.4 * (i % 2), 0.9) for i in range(1, VOID)]
    return [round(255 * value) for colour in [*colours, (0.88, 0.88, 0.75)] for value in colour]


PALETTE = _palette()


def rank(row: Row) -> tuple[float, int, str]:
    """What is painted first."""
    return -1.0 if row["quality"] is None else row["quality"], -row["area"], row["mask_id"]


def _write(image: ExportImage, job: Job, void: Store | None) -> tuple[str, int]:
    """The map's path, and how many pixels of its masks are hidden."""
    name = str(PurePosixPath(image.uri).with_suffix(".png"))
    size_hw = image.height, image.width
    pixels = paint(image.masks, size_hw, image.uri, _void(void, name, size_hw))
    path = f"{image.split}/{name}" if image.split else name
    job.target.put(path, to_png(pixels))
    shown = int(np.count_nonzero((pixels != 0) & (pixels != VOID)))
    return path, sum(mask["area"] for mask in image.masks) - shown


def _void(store: Store | None, name: str, size_hw: tuple[int, int]) -> Void:
    if store is None:
        return None
    try:
        labels = read_label_image(store.read(name))
    except FileNotFoundError:
        return None
    except MaskError as error:
        raise RefusedError(f"{store.uri}/{name} is not a class map: {error}") from None
    if labels.shape != size_hw:
        raise RefusedError(f"{store.uri}/{name} is {labels.shape}, its image {size_hw}")
    return np.asarray(labels == VOID)


EXPORT = Export(write, finish)
