"""Images that go along with an export: fetched as they are, never decoded anew, and named for their new place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from pipeline.errors import ImageError, JobError
from pipeline.exports.types import ExportImage, Job, Piece, batches
from pipeline.storage import STORE_ERRORS, brief
from pipeline.storage.containers import MARK, read_image, split_member

THREADS = 8
BATCH_IMAGES = 32
MAX_MISSING_IN_A_ROW = 100
SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"II*": ".tif", b"MM": ".tif"}


def with_photos(job: Job, images: Iterable[ExportImage], piece: Piece) -> Iterator[tuple[ExportImage, bytes]]:
    """Each image with its file's bytes, b"" where no images are wanted; those that are not there are left out.

    Raises JobError when nothing can be fetched at all.
    """
    missing = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for batch in batches(images, BATCH_IMAGES):
            for image, data in zip(batch, pool.map(lambda image: _fetch(job, image), batch), strict=True):
                if isinstance(data, ImageError):
                    piece.leave_out(f"images: {data.reason}", 1)
                    missing += 1
                    if missing >= MAX_MISSING_IN_A_ROW:
                        raise JobError(f"{job.images.uri} gave none of {missing} images in a row: {data}. --images?")
                    continue
                missing = 0
                yield image, data


def _fetch(job: Job, image: ExportImage) -> bytes | ImageError:
    if not job.options.with_images:
        return b""
    try:
        return read_image(job.images, image.uri)
    except ImageError as error:
        return error
    except STORE_ERRORS as error:
        return ImageError("storage", brief(error))


def file_name(uri: str, data: bytes) -> str:
    """The image's path; a container is a folder, and a name without suffix gets that of its kind of image."""
    path = uri.replace(MARK, "/") if split_member(uri) else uri
    known = next((suffix for start, suffix in SIGNATURES.items() if data.startswith(start)), "")
    known = ".webp" if data[8:12] == b"WEBP" else known
    return path if PurePosixPath(path).suffix else path + known
