"""Images that go along with an export: fetched as they are, never decoded anew, and named for their new place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from pipeline.decoding.decode import size_by_header
from pipeline.errors import ImageError, JobError, RefusedError
from pipeline.exports.fragments import Fragments, lines
from pipeline.exports.names import in_folders, split_suffix
from pipeline.exports.types import ExportImage, Job, Piece, batches
from pipeline.storage import STORE_ERRORS, brief
from pipeline.storage.containers import read_image

THREADS = 8
RENAMED = "renamed"
UNREAD = "unread.jsonl"
BATCH_IMAGES = 32
MAX_MISSING_IN_A_ROW = 100
SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"II*": ".tif", b"MM": ".tif"}


def with_photos(job: Job, images: Iterable[ExportImage], piece: Piece) -> Iterator[tuple[ExportImage, bytes]]:
    """Each image with its file's bytes, b"" where no images are wanted; those that are not there, or not what they
    were, are left out and named.

    Raises JobError when nothing can be fetched at all.
    """
    missing = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for batch in batches(images, BATCH_IMAGES):
            for image, data in zip(batch, pool.map(lambda image: _fetch(job, image), batch), strict=True):
                if isinstance(data, ImageError):
                    piece.miss(image.uri, f"images: {data.reason}", str(data))
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
        return _unchanged(image, read_image(job.images, image.uri))
    except ImageError as error:
        return error
    except RefusedError as error:  # a container that is damaged now
        return ImageError("image_unreadable", str(error))
    except STORE_ERRORS as error:
        return ImageError("storage", brief(error))


def _unchanged(image: ExportImage, data: bytes) -> bytes:
    """The image's bytes. Raises ImageError where they are no image, or one of another size than its masks have."""
    size_hw = size_by_header(data, (image.height, image.width))
    if size_hw is None:
        raise ImageError("image_unreadable", "no image any more")
    if size_hw != (image.height, image.width):
        found, masks = (f"{width}x{height}" for height, width in (size_hw, (image.height, image.width)))
        raise ImageError("image_changed", f"{found} pixels, its masks {masks}")
    return data


def can_read(job: Job, image: ExportImage) -> bool:
    """Whether the image is there, as it was when it was refined."""
    return not isinstance(_fetch(job, image), ImageError)


def write_unread(job: Job, unread: Mapping[str, str]) -> list[str]:
    """The file that names what could not be read, if anything could not. unread: image uri -> why."""
    named = (json.dumps({"image_uri": uri, "why": why}) + "\n" for uri, why in unread.items())
    if unread:
        job.target.put(UNREAD, "".join(named).encode())
    return [UNREAD] if unread else []


def file_name(uri: str, data: bytes) -> str:
    """The image's path; a container is a folder, and a name without suffix gets that of its kind of image."""
    path = in_folders(uri)
    known = next((suffix for start, suffix in SIGNATURES.items() if data.startswith(start)), "")
    known = ".webp" if data[8:12] == b"WEBP" else known
    return path if split_suffix(path)[1] else path + known


def tell_renamed(fragments: Fragments, piece: Piece, image: ExportImage, wanted: str, path: str) -> None:
    """Count and name a file that is not called as its image is; `renamed.jsonl` has the lines."""
    if wanted != path:
        piece.counts["files renamed, see renamed.jsonl"] += 1
        fragments.add(RENAMED, "", {"image_uri": image.uri, "file": path})


def write_renamed(job: Job) -> list[str]:
    """The file that names what was renamed, if anything was."""
    renamed = list(lines(job, RENAMED, ""))
    if renamed:
        job.target.put(f"{RENAMED}.jsonl", b"".join(line + b"\n" for line in renamed))
    return [f"{RENAMED}.jsonl"] if renamed else []
