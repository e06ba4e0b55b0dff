"""WebDataset: tars of samples `KEY.jpg` and `KEY.json`; the JSON has the image's path and size and its masks as RLE.

`<split>-<group>-<part>.tar`, each about MAX_BYTES at most; `train` where there are no splits. The key is the image's
number. The same result gives the same bytes.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

from pipeline.dataset.by_image import Group
from pipeline.exports.image_files import can_read, file_name, with_photos
from pipeline.exports.names import split_suffix
from pipeline.exports.rows import mask_row
from pipeline.exports.text import to_json
from pipeline.exports.types import Export, ExportImage, Job, Piece

MAX_BYTES = 512 << 20
WHOLE = "train"


def write(job: Job, group: Group, index: int) -> Piece:
    """The tars of one group."""
    piece = Piece()
    with _Tars(job, index, piece) as tars:
        for image, data in with_photos(job, job.read(group, piece), piece):
            tars.add(image.split or WHOLE, sample(image, data, job, piece))
            piece.count(image)
    return piece


def finish(job: Job, pieces: Sequence[Piece]) -> Piece:  # noqa: ARG001 - every tar stands for itself
    """Nothing is left to do."""
    return Piece()


def sample(image: ExportImage, data: bytes, job: Job, piece: Piece) -> dict[str, bytes]:
    """The members of one sample by name."""
    key = f"{image.number:012d}"
    content = {
        "image_id": image.number,
        "source_image_id": image.source_id,
        "image_uri": image.uri,
        "height": image.height,
        "width": image.width,
        "annotations": [{"id": mask["number"], **mask_row(mask, job)} for mask in image.masks],
    }
    text = to_json(content, piece).encode()
    suffix = split_suffix(file_name(image.uri, data))[1].lower() or ".img"
    return ({f"{key}{suffix}": data} if data else {}) | {f"{key}.json": text}


class _Tars:
    """The open tar of each split; a new one where one is full."""

    def __init__(self, job: Job, index: int, piece: Piece) -> None:
        self._job, self._index, self._piece = job, index, piece
        self._open: dict[str, tuple[tarfile.TarFile, ExitStack]] = {}
        self._parts: dict[str, int] = {}

    def __enter__(self) -> _Tars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for _, stack in self._open.values():
            stack.__exit__(kind, error, traceback)

    def add(self, split: str, members: dict[str, bytes]) -> None:
        """Write one sample; its members stay together."""
        tar, stack = self._open.get(split) or self._next(split)
        for name, data in members.items():
            info = tarfile.TarInfo(name)  # without time, owner and mode of this machine
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if tar.offset >= MAX_BYTES:
            stack.close()
            del self._open[split]

    def _next(self, split: str) -> tuple[tarfile.TarFile, ExitStack]:
        part = self._parts.get(split, 0)
        self._parts[split] = part + 1
        path = f"{split}-{self._index:06d}-{part:03d}.tar"
        stack = ExitStack()
        sink = stack.enter_context(self._job.target.writer(path))
        tar = stack.enter_context(tarfile.TarFile(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT))
        self._piece.files.append(path)
        self._open[split] = tar, stack
        return tar, stack


EXPORT = Export(write, finish, copies_images=True, can_read=can_read)
