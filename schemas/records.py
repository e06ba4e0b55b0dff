"""Parquet schemas of everything this project writes, and `conform`.

Only Arrow's own types: any Parquet reader opens the files, nothing needs this project or Ray to decode them. Shards
(`MASKS`, `IMAGES`) are what users read; `PLAN` and `PARTS` are the pipeline's own.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

RLE = pa.struct([("size", pa.list_(pa.int32(), 2)), ("counts", pa.string())])
"""COCO compressed RLE: `size` [height, width], column-major `counts`."""

BBOX = pa.list_(pa.float32(), 4)

SCORES: list[tuple[str, pa.DataType]] = [
    ("predicted_iou", pa.float32()),  # the model's own estimate for the refined mask
    ("stability", pa.float32()),  # IoU of the refined logits cut at +1 and at -1
    ("expected_iou", pa.float32()),  # of the refined mask, if the model's probabilities are right
    ("coarse_expected_iou", pa.float32()),  # the same for the coarse mask
    ("look_iou", pa.float32()),  # mean IoU of the refined mask with each look's own answer (1 when there was one)
    ("trial_iou", pa.float32()),  # mean IoU of what trials of the box voted for with their answers; null without
    ("outline_logit", pa.float32()),  # mean distance of the logits from 0 beside the refined outline: how sharp it is
    ("colour_iou", pa.float32()),  # IoU of the refined mask with what colours alone say; null where they were not asked
    ("coarse_colour_iou", pa.float32()),  # the same for the coarse mask
    ("coarse_iou", pa.float32()),  # IoU of refined and coarse
    ("iteration_iou", pa.float32()),  # IoU of the last two iterations (1 when there was one)
    ("area_ratio", pa.float32()),  # refined area / coarse area
    ("boundary_contrast", pa.float32()),  # colour difference across the refined outline, [0, 1]
    ("coarse_boundary_contrast", pa.float32()),  # the same for the coarse outline
    ("components", pa.int32()),  # 8-connected pieces of the refined mask
    ("coarse_components", pa.int32()),
    ("main_share", pa.float32()),  # of the refined area, in as many of its largest pieces as the coarse mask has
    ("holes", pa.int32()),  # holes of the refined mask
]
"""The raw score components of one mask, null where the mask failed."""

_IDENTITY = [
    ("mask_id", pa.string()),
    ("source_mask_id", pa.string()),
    ("category_id", pa.int64()),
    ("category", pa.string()),
]

_CARRIED: list[tuple[str, pa.DataType]] = [
    ("detail", pa.string()),  # what and where, of a mask that failed or is odd
    ("crowd", pa.bool_()),  # a region of many objects (COCO's iscrowd): kept as it came
    ("extra", pa.string()),  # JSON of the annotation's fields that are not used here
]
"""Of a mask, beside what is done with it; no part of its digest."""

PLANNED_MASK = pa.struct([*_IDENTITY, ("geometry", pa.string()), *_CARRIED])
"""`geometry` is JSON: what the source says (polygons, RLE, or a file and the value in it), decoded when loaded."""

MEMBER = pa.struct(
    [("container", pa.string()), ("offset", pa.int64()), ("length", pa.int64()), ("column", pa.string())]
)
"""An image in a container: bytes [offset, offset + length) of a tar; or row `offset` of a Parquet file's `column`."""

PLAN = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("image_id", pa.string()),
        ("image_uri", pa.string()),
        ("source_image_id", pa.string()),
        ("height", pa.int32()),  # as declared by the source, null where it does not say
        ("width", pa.int32()),
        ("etag", pa.string()),  # of the image object; null where the store has none (local files)
        ("size_bytes", pa.int64()),  # of the image object; null where it is missing or cannot be listed
        ("problem", pa.string()),  # reason code of an image that cannot even be looked for
        ("member", MEMBER),  # null where the image is a file of its own
        ("masks", pa.list_(PLANNED_MASK)),
        ("masks_digest", pa.string()),
        ("detail", pa.string()),  # what and where, of an image that cannot be looked for or is odd
        ("extra", pa.string()),  # JSON of the image's fields that are not used here
    ]
)

CHUNKS = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("file", pa.string()),  # plan file, relative to the output
        ("row_start", pa.int64()),
        ("images", pa.int32()),
        ("masks", pa.int32()),
    ]
)
"""An increment's chunks in plan order: where their rows stand."""

PART_MASK = pa.struct(
    [*_IDENTITY, ("reason", pa.string()), ("coarse_rle", RLE), ("refined_rle", RLE), *SCORES, *_CARRIED]
)
"""`reason` is null where the mask was refined (or is a crowd, which never is), else why it failed."""

PARTS = pa.schema(
    [
        ("image_id", pa.string()),
        ("image_uri", pa.string()),
        ("source_image_id", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("attempt", pa.int32()),
        ("masks", pa.list_(PART_MASK)),
        ("detail", pa.string()),
        ("extra", pa.string()),
    ]
)

LOADED = PARTS.append(pa.field("pixels", pa.binary())).append(pa.field("pixels_hw", pa.list_(pa.int32(), 2)))
"""A part on its way to the model: `pixels` (h, w, 3) uint8 RGB at the model's input size; null for failed images."""

MASKS = pa.schema(
    [
        ("mask_id", pa.string()),
        ("image_id", pa.string()),
        ("image_uri", pa.string()),
        ("source_mask_id", pa.string()),
        ("source_image_id", pa.string()),
        ("category_id", pa.int64()),
        ("category", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("coarse_rle", RLE),
        ("refined_rle", RLE),
        ("mask_rle", RLE),
        ("bbox_xywh", BBOX),
        ("area", pa.int64()),
        ("decision", pa.string()),
        ("reason", pa.string()),
        ("quality", pa.float32()),
        ("quality_lower", pa.float32()),
        ("quality_coarse", pa.float32()),
        ("quality_refined", pa.float32()),
        ("calibration_id", pa.string()),
        *SCORES,
        *_CARRIED,
    ]
)

IMAGES = pa.schema(
    [
        ("image_id", pa.string()),
        ("image_uri", pa.string()),
        ("source_image_id", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("masks", pa.int32()),
        ("attempt", pa.int32()),
        ("detail", pa.string()),
        ("extra", pa.string()),
    ]
)

UNREAD = pa.schema(
    [
        ("root", pa.string()),  # masks or images: below which of the two
        ("state", pa.string()),  # unread, ignored, or unnamed: an image that no mask belongs to
        ("name", pa.string()),  # path, or place in a file
        ("kind", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""What a planning pass found and did not read (`scans/`)."""

OVERLAY = pa.schema(
    [
        ("action", pa.string()),  # replaced, added, removed, marked; or kept: looked at, and left as it was
        ("image_id", pa.string()),
        ("mask_id", pa.string()),
        ("source_mask_id", pa.string()),  # of an added mask: the overlay and its id in the file
        ("category_id", pa.int64()),
        ("category", pa.string()),
        ("crowd", pa.bool_()),
        ("rle", RLE),  # the mask as it is now; null where it was removed or marked
        ("extra", pa.string()),  # JSON of what the file says of an added mask
    ]
)
"""What people sent back of some masks: each row states what a mask is from then on (`overlays/`)."""

FINDINGS = pa.schema(
    [
        ("finding_id", pa.string()),  # a hash of the kind and of the masks as they are: another mask, another finding
        ("kind", pa.string()),
        ("image_id", pa.string()),
        ("image_uri", pa.string()),
        ("mask_id", pa.string()),  # the mask that the action is about; null where there is none yet
        ("category", pa.string()),
        ("other_mask_id", pa.string()),  # the mask that it collides with; null where there is none
        ("other_category", pa.string()),
        ("action", pa.string()),  # what would cure it: an action of a patch
        ("certainty", pa.float32()),  # [0, 1], to rank findings of one kind by: no probability
        ("measure", pa.float32()),  # what the kind is told by: an IoU, a share
        ("rle", RLE),  # of a mask that is not there yet
        ("detail", pa.string()),
        ("verdict", pa.string()),  # right or wrong, as a person said; null: nobody has looked
    ]
)
"""What seems to be wrong with masks besides their outlines (`findings/`)."""

SEALED_PARTS = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("path", pa.string()),  # relative to the run's folder
        ("images", pa.int32()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)
"""What a generation was sealed from: of each chunk, its part and then its retries."""

SUPERSEDED = pa.schema([("image_id", pa.string()), ("chunk_id", pa.string())])
"""Rows of earlier increments that an increment replaces or prunes."""


def widen(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` of an earlier version with the columns, and fields within them, that `schema` has since; they are null.

    Columns that `schema` does not have stay as they are.
    """
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        elif table.schema.field(field.name).type != field.type:
            place = table.column_names.index(field.name)
            chunks = [_widened(chunk, field.type) for chunk in table[field.name].chunks]
            table = table.set_column(place, field, pa.chunked_array(chunks, field.type))
    return table


LATER = frozenset(("member", "detail", "crowd", "extra", "trial_iou"))
"""Columns and fields that files of earlier versions lack."""


def is_version_of(found: pa.Schema, schema: pa.Schema) -> bool:
    """Whether a file's columns are those of `schema`, or of an earlier version of it."""
    return _is_version(list(found), list(schema))


def _is_version(found: list[pa.Field], fields: list[pa.Field]) -> bool:
    names = {field.name for field in found}
    wanted = [field for field in fields if field.name in names or field.name not in LATER]
    return [field.name for field in found] == [field.name for field in wanted] and all(
        _is_part(one.type, other.type) for one, other in zip(found, wanted, strict=True)
    )


def _is_part(found: pa.DataType, kind: pa.DataType) -> bool:
    if pa.types.is_list(found) and pa.types.is_list(kind):
        return _is_part(found.value_type, kind.value_type)
    if pa.types.is_struct(found) and pa.types.is_struct(kind):
        return _is_version(list(found), list(kind))
    return bool(found == kind)


def _widened(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if values.offset:  # Arrow takes no nulls beside a slice
        values = values.take(pa.array(range(len(values)), pa.int64()))
    if pa.types.is_list(kind) and pa.types.is_list(values.type):
        inner = _widened(values.values, kind.value_type)
        return pa.ListArray.from_arrays(values.offsets, inner, kind, mask=_nulls(values))
    if pa.types.is_struct(kind) and pa.types.is_struct(values.type):
        known = {field.name: index for index, field in enumerate(values.type)}
        arrays = [
            _widened(values.field(known[field.name]), field.type)
            if field.name in known
            else pa.nulls(len(values), field.type)
            for field in kind
        ]
        return pa.StructArray.from_arrays(arrays, fields=list(kind), mask=_nulls(values))
    return values.cast(kind)


def _nulls(values: pa.Array) -> pa.Array | None:
    return values.is_null() if values.null_count else None


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with exactly the columns, order and types of `schema`; raises ValueError where that needs a guess."""
    missing = [name for name in schema.names if name not in table.column_names]
    extra = [name for name in table.column_names if name not in schema.names]
    if missing or extra:
        raise ValueError(f"table does not fit the schema: missing {missing}, unknown {extra}")
    return table.select(schema.names).cast(schema)
