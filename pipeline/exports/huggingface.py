"""A Hugging Face dataset folder: `data/<split>-<group>-<part>.parquet` and a README.md that says so.

`datasets.load_dataset(folder)` gives a row an image: `image` (decoded where images were copied), `objects` with a
mask each. Row groups are small, so that streaming readers start soon; without splits all is `train`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.dataset.by_image import Group, Row
from pipeline.errors import RefusedError
from pipeline.exports.image_files import can_read, file_name, with_photos
from pipeline.exports.rows import mask_row
from pipeline.exports.types import Export, ExportImage, Job, Piece

MAX_BYTES = 512 << 20
ROW_GROUP_ROWS = 100
ROW_GROUP_BYTES = 64 << 20
WHOLE = "train"
RESERVED = "all"  # to `datasets`, of every split
_SPLIT = re.compile(r"\w+(\.\w+)*")

OBJECT = pa.struct(
    [
        ("category_id", pa.int64()),
        ("category", pa.string()),
        ("segmentation", pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])),
        ("bbox", pa.list_(pa.float32())),
        ("area", pa.int64()),
        ("iscrowd", pa.int32()),
        ("quality", pa.float32()),
        ("decision", pa.string()),
        ("mask_id", pa.string()),
        ("source_mask_id", pa.string()),
    ]
)
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
COLUMNS = [
    ("image_id", pa.string()),
    ("source_image_id", pa.string()),
    ("image_uri", pa.string()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("objects", pa.list_(OBJECT)),
]


def check(job: Job) -> None:
    """Raise RefusedError for names of splits that `datasets` does not take."""
    for name in job.splits:
        if name and (not _SPLIT.fullmatch(name) or name.lower() == RESERVED):
            raise RefusedError(
                f"--split: {name!r} is no name of a split to Hugging Face datasets, which takes letters, digits and _, "
                f"dots between them, and not {RESERVED!r}: choose another name"
            )


def write(job: Job, group: Group, index: int) -> Piece:
    """The Parquet files of one group, a split after the other as they fill up."""
    piece = Piece()
    files = {split: _Rows(job, split or WHOLE, index, piece) for split in job.splits}
    try:
        for image, data in with_photos(job, job.read(group, piece), piece):
            files[image.split].add(row(image, data, job), len(data))
            piece.count(image)
        for rows in files.values():
            rows.end()
    finally:
        for rows in files.values():
            rows.abandon()
    return piece


def finish(job: Job, pieces: Sequence[Piece]) -> Piece:
    """README.md, whose head names the files of each split."""
    written = {path for piece in pieces for path in piece.files}
    names = [split or WHOLE for split in job.splits]
    present = [name for name in names if any(path.startswith(f"data/{name}-") for path in written)]
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in present]
    head = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]}, sort_keys=False)
    text = f"---\n{head}---\n\nMasks refined by relabel. A row an image; `segmentation` is COCO compressed RLE.\n"
    job.target.put("README.md", text.encode())
    return Piece(files=["README.md"])


def row(image: ExportImage, data: bytes, job: Job) -> Row:
    """One image."""
    photo = {"image": {"bytes": data, "path": file_name(image.uri, data)}} if data else {}
    return {
        **photo,
        "image_id": str(image.number),
        "source_image_id": image.source_id,
        "image_uri": image.uri,
        "height": image.height,
        "width": image.width,
        "objects": [mask_row(mask, job) for mask in image.masks],
    }


def schema(with_images: bool) -> pa.Schema:
    """Columns, and the same as the features that `datasets` looks for in the metadata."""
    columns = [*([("image", IMAGE)] if with_images else []), *COLUMNS]
    features = {name: {"_type": "Image"} if name == "image" else _feature(kind) for name, kind in columns}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(columns, metadata=metadata)


def _feature(kind: pa.DataType) -> Any:
    if pa.types.is_struct(kind):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        return {field.name: _feature(field.type) for field in fields}
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    return {"dtype": {"float": "float32"}.get(str(kind), str(kind)), "_type": "Value"}


class _Rows:
    """The Parquet files of one split and group; a new one where one is full."""

    def __init__(self, job: Job, split: str, index: int, piece: Piece) -> None:
        self._job, self._split, self._index, self._piece = job, split, index, piece
        self._schema = schema(job.options.with_images)
        self._held: list[Row] = []
        self._held_bytes = 0
        self._part = 0
        self._open: tuple[pq.ParquetWriter, ExitStack, BinaryIO] | None = None

    def add(self, content: Row, size: int) -> None:
        """One row; size: bytes of its image."""
        self._held.append(content)
        self._held_bytes += size
        if len(self._held) >= ROW_GROUP_ROWS or self._held_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def end(self) -> None:
        """Complete the files."""
        if self._held:
            self._flush()
        self._close()

    def abandon(self) -> None:
        """Leave no file behind that `end` has not completed."""
        if self._open is not None:
            error = InterruptedError("the export was interrupted")
            with suppress(InterruptedError):
                self._open[1].__exit__(InterruptedError, error, None)
                raise error
            self._open = None

    def _flush(self) -> None:
        writer, _, sink = self._open or self._next()
        writer.write_table(pa.Table.from_pylist(self._held, self._schema))
        self._held, self._held_bytes = [], 0
        if sink.tell() >= MAX_BYTES:
            self._close()

    def _next(self) -> tuple[pq.ParquetWriter, ExitStack, BinaryIO]:
        path = f"data/{self._split}-{self._index:05d}-{self._part:03d}.parquet"
        self._part += 1
        stack = ExitStack()
        sink = stack.enter_context(self._job.target.writer(path))
        writer = stack.enter_context(pq.ParquetWriter(sink, self._schema, compression="zstd"))
        self._piece.files.append(path)
        self._open = writer, stack, sink
        return self._open

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None


EXPORT = Export(write, finish, copies_images=True, check=check, can_read=can_read)
