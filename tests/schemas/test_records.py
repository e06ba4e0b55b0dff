"""Tables of earlier versions: known as such, and widened to what there is now."""

from __future__ import annotations

import pyarrow as pa

from schemas.records import IMAGES, LATER, MASKS, PLAN, PLANNED_MASK, conform, is_version_of, widen

OLD_MASK = pa.struct([field for field in PLANNED_MASK if field.name not in LATER])
OLD_PLAN = pa.schema(
    [
        pa.field(field.name, pa.list_(OLD_MASK) if field.name == "masks" else field.type)
        for field in PLAN
        if field.name not in LATER
    ]
)
MASK = {"mask_id": "m", "source_mask_id": "1", "category_id": 3, "category": "cat", "geometry": "[]"}
ROWS = [
    {"chunk_id": "c", "image_id": "a", "masks": [MASK, MASK]},
    {"chunk_id": "c", "image_id": "b", "masks": []},
    {"chunk_id": "c", "image_id": "d", "masks": None},
    {"chunk_id": "c", "image_id": "e", "masks": [MASK]},
]


def test_a_plan_of_before_is_widened_with_nulls() -> None:
    old = pa.Table.from_pylist(ROWS, OLD_PLAN)
    for table in (old, old.slice(1), pa.concat_tables([old, old])):
        found = conform(widen(table, PLAN), PLAN)
        assert found.schema.equals(PLAN)
        masks = [mask for row in found.to_pylist() for mask in row["masks"] or []]
        assert all(mask == {**MASK, "detail": None, "crowd": None, "extra": None} for mask in masks)
        assert found["image_id"].to_pylist() == table["image_id"].to_pylist()
        assert [row["masks"] is None for row in found.to_pylist()] == [
            row["masks"] is None for row in table.to_pylist()
        ]


def test_what_is_an_earlier_version() -> None:
    assert is_version_of(OLD_PLAN, PLAN)
    for schema in (PLAN, MASKS, IMAGES):
        assert is_version_of(schema, schema)
        assert is_version_of(pa.schema([field for field in schema if field.name not in LATER]), schema)
        assert not is_version_of(pa.schema(list(schema)[1:]), schema)
        assert not is_version_of(pa.schema([*schema, ("other", pa.string())]), schema)
        assert not is_version_of(pa.schema(list(schema)[::-1]), schema)
        assert not is_version_of(schema.set(0, pa.field(schema[0].name, pa.int8())), schema)
