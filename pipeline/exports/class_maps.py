"""A result as class maps: one indexed PNG for each image, `NAME.png` for `NAME.jpg`, as Pascal VOC has them.

The value of a pixel is the category id of the mask that holds it, 0 where none does, 255 where the void maps say that
nobody knows; images whose void map cannot be read are named. Masks that were refined with `exclusive` do not overlap;
where others do (one class kept coarse beside another that was refined, instances of two classes), the smaller is on top
(`layers.py`). What is hidden under another mask is counted. Failed images get no map; failed masks are not in one.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.dataset.by_image import Group, Row, groups
from pipeline.decoding.coarse import read_label_image
from pipeline.errors import MaskError, RefusedError
from pipeline.exports import fragments
from pipeline.exports.image_files import tell_renamed
from pipeline.exports.layers import Layers, count_hidden, paint
from pipeline.exports.names import split_suffix
from pipeline.exports.types import Export, ExportImage, Job, Piece, batches, in_split
from pipeline.storage import STORE_ERRORS, Store, brief

VOID = 255
BATCH_IMAGES = 64
THREADS = 8
GOLDEN_RATIO = 0.61803398875

Void = npt.NDArray[np.bool_]


class _NoVoidError(Exception):
    """No void can be had of an image. what: as it is counted."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(why)
        self.what = what


def check(job: Job) -> None:
    """Raise RefusedError for category ids that do not fit, among the masks that are selected."""
    if all(0 < category_id < VOID for category_id, _ in job.survey.class_ids):
        return
    for group in groups(job.result):
        for image in job.read(group, Piece()):
            values(image.masks, image.uri)


def write(job: Job, group: Group, index: int) -> Piece:
    """The maps of one group."""
    void = _void_store(job)
    piece = Piece()
    with ThreadPoolExecutor(THREADS) as pool, fragments.Fragments(job, index, piece) as lines:
        for batch in batches(job.read(group, piece), BATCH_IMAGES):
            paths = [_path(image, job) for image in batch]
            job.target.tell(paths)
            written = pool.map(lambda one: _write(one, job, void), batch)
            for image, path, (places, problem) in zip(batch, paths, written, strict=True):
                if problem is not None:
                    piece.miss(image.uri, f"void: {problem.what}", f"void {problem.what}: {problem}")
                piece.files.append(path)
                piece.count(image)
                count_hidden(image.masks, places, piece)
                tell_renamed(lines, piece, image, in_split(image.split, _own_name(image)), path)
    return piece


def finish(job: Job, pieces: Sequence[Piece]) -> Piece:  # noqa: ARG001 - every map stands for itself
    """Nothing is left to do."""
    return Piece()


def values(rows: Sequence[Row], image: str = "") -> npt.NDArray[np.uint8]:
    """(N + 1,) uint8: of each place in the layers of N mask rows, the value that its pixels have."""
    for row in rows:
        if not 0 < row["category_id"] < VOID:
            raise RefusedError(
                f"mask {row['mask_id']} of {image} has category_id {row['category_id']}; a class map holds "
                f'1 to {VOID - 1}, between background and void. Leave it out (--where "category_id between 1 and '
                f'{VOID - 1}"), or give the category another id where the masks come from'
            )
    return np.array([0, *(row["category_id"] for row in rows)], np.uint8)


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


def _own_name(image: ExportImage) -> str:
    return f"{split_suffix(image.uri)[0]}.png"


def _path(image: ExportImage, job: Job) -> str:
    return in_split(image.split, f"{job.survey.names.stem(image.uri, image.image_id)}.png")


def can_read(job: Job, image: ExportImage) -> bool:
    """Whether the void map of an image is there, and fits."""
    void = _void_store(job)
    try:
        return void is not None and _void(void, image) is not None
    except _NoVoidError:
        return False


def _write(image: ExportImage, job: Job, void: Store | None) -> tuple[Layers, _NoVoidError | None]:
    """Write the map; the layers that it shows, and why it shows no void, where it should."""
    places = paint(image.masks, (image.height, image.width))
    pixels, problem = values(image.masks, image.uri)[places], None
    try:
        if void is not None:
            pixels[_void(void, image) & (pixels == 0)] = VOID
    except _NoVoidError as error:
        problem = error
    job.target.put(_path(image, job), to_png(pixels))
    return places, problem


def _void_store(job: Job) -> Store | None:
    return None if job.options.void is None else Store(job.options.void, job.target.access)


def _void(store: Store, image: ExportImage) -> Void:
    """(H, W) bool: where the void map of an image says that nobody knows. Raises _NoVoidError."""
    name = _own_name(image)
    try:
        labels = read_label_image(store.read(name))
    except (FileNotFoundError, IsADirectoryError, ValueError):  # no such map, or a name that no file can have
        raise _NoVoidError("map missing", name) from None
    except MaskError as error:
        raise _NoVoidError("map unreadable", f"{name}: {error.detail or error}") from None
    except STORE_ERRORS as error:
        raise _NoVoidError("map unreadable", f"{name}: {brief(error)}") from None
    if labels.shape != (image.height, image.width):
        found, masks = (f"{width}x{height}" for height, width in (labels.shape, (image.height, image.width)))
        raise _NoVoidError("map of another size", f"{name} has {found} pixels, its image {masks}")
    return np.asarray(labels == VOID)


EXPORT = Export(write, finish, has_void=True, check=check, can_read=can_read)
