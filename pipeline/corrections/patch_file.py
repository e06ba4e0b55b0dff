"""A file of patches: what is to be done with which mask. JSON, or Parquet with a row each; people read and edit it.

    {"kind": "relabel-patches", "schema_version": 1, "patches": [
      {"action": "remove", "image_id": "a.jpg", "mask_id": "...", "verdict": "yes"},
      {"action": "add", "image_id": "a.jpg", "category": "cup", "rle": {"size": [480, 640], "counts": "..."}},
      {"action": "split", "image_id": "a.jpg", "mask_id": "..."},
      {"action": "crowd", "image_id": "a.jpg", "mask_id": "..."},
      {"action": "class", "image_id": "a.jpg", "mask_id": "...", "category": "cup"}]}

image_id     the image's path, as in the result
mask_id      of the result's mask; none for `add`
rle          COCO RLE, compressed: of the mask to add; for `split` a list `rles` of its pieces, or none: each connected
             piece is one
category     of `class` and `add`: a name that the result has, or a new one; category_id where the name is not enough
crowd        of `crowd`: true unless it says false; of `add`: false unless it says true
verdict      yes or no. A patch that came from `relabel findings` (it has a finding_id) is applied where this is yes,
             any other unless this is no
finding_id, kind, certainty, detail, note    what it is about; `look` is the action of a finding without a cure
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import MaskError, RefusedError
from pipeline.masks import binary
from pipeline.masks.binary import Rle
from pipeline.storage import Access, brief, parquet_bytes, read_uri
from schemas.records import RLE

KIND = "relabel-patches"
VERSION = 1
YES, NO = "yes", "no"
LOOK = "look"
ACTIONS = ("remove", "add", "split", "crowd", "class", LOOK)
MAX_BYTES = 1 << 32
PARQUET = (".parquet", ".pq")

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("verdict", "action", "image_id", "mask_id", "category")),
        ("category_id", pa.int64()),
        ("crowd", pa.bool_()),
        ("rle", RLE),
        ("rles", pa.list_(RLE)),
        *((name, pa.string()) for name in ("finding_id", "kind", "other_mask_id", "other_category")),
        ("certainty", pa.float32()),
        ("detail", pa.string()),
        ("note", pa.string()),
    ]
)


class Patch(BaseModel):
    """One patch. number: its place in the file, from 0."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    action: str
    image_id: str
    mask_id: str | None = None
    category: str | None = None
    category_id: int | None = None
    crowd: bool | None = None
    rle: dict[str, Any] | None = None
    rles: list[dict[str, Any]] | None = None
    verdict: str | None = None
    finding_id: str | None = None
    number: int = Field(default=0, exclude=True)

    @property
    def wanted(self) -> bool:
        """Whether it is to be applied."""
        return self.action != LOOK and (self.verdict == YES if self.finding_id else self.verdict != NO)

    @property
    def where(self) -> str:
        """For messages."""
        return f"patch {self.number}, {self.action} {self.mask_id or 'a mask'} of {self.image_id}"


def read(uri: str, access: Access) -> list[Patch]:
    """The patches of a file, every field checked. Raises RefusedError, which names the patch, where one is none."""
    data = read_uri(uri, access, MAX_BYTES, "file of patches")
    entries = _of_parquet(data, uri) if uri.lower().endswith(PARQUET) else _of_json(data, uri)
    return [_patch(entry, number, uri) for number, entry in enumerate(entries)]


def lost(before: Mapping[str, str], data: bytes, uri: str) -> int:
    """How many verdicts, by finding, are not in what is to be the file `uri`."""
    entries = _of_parquet(data, uri) if uri.lower().endswith(PARQUET) else _of_json(data, uri)
    now = {entry.get("finding_id"): entry.get("verdict") for entry in entries}
    return sum(now.get(name) != verdict for name, verdict in before.items())


def write(rows: Sequence[Mapping[str, Any]], uri: str) -> bytes:
    """Rows of SCHEMA, of which columns may be missing, as the file that `uri` is: JSON with a line each, or Parquet."""
    if uri.lower().endswith(PARQUET):
        return parquet_bytes(pa.Table.from_pylist([dict(row) for row in rows], SCHEMA))
    lines = (json.dumps({name: row[name] for name in SCHEMA.names if row.get(name) is not None}) for row in rows)
    head = f'{{"kind": "{KIND}", "schema_version": {VERSION}, "patches": ['
    return (head + "\n" + ",\n".join(lines) + "\n]}\n").encode()


def mask_of(rle: Mapping[str, Any]) -> Rle:
    """An RLE from outside -> one encoding of its pixels. Raises MaskError where it is none, or empty."""
    found = binary.from_segmentation(dict(rle), (0, 0))
    if binary.area(found) == 0:
        raise MaskError("mask_empty", "no pixel is set")
    return binary.encode(binary.decode(found))


def _of_json(data: bytes, uri: str) -> list[Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{uri} is not valid JSON: {brief(error)}") from None
    known = isinstance(content, dict) and content.get("kind") == KIND and content.get("schema_version") == VERSION
    if not known or not isinstance(content.get("patches"), list):
        raise RefusedError(f"{uri} is no file of patches: {{kind: {KIND}, schema_version: {VERSION}, patches: [...]}}")
    return list(content["patches"])


def _of_parquet(data: bytes, uri: str) -> list[Any]:
    try:
        return list(pq.read_table(io.BytesIO(data)).to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise RefusedError(f"{uri} is not a Parquet file, or is damaged: {brief(error)}") from None


def _patch(entry: Any, number: int, uri: str) -> Patch:
    try:
        patch = Patch.model_validate({**entry, "number": number})
    except (ValidationError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "is no object"}
        field = ".".join(str(step) for step in first["loc"])
        raise RefusedError(f"{uri}: patch {number}: {f'{field}: ' if field else ''}{first['msg']}") from None
    if patch.action not in ACTIONS:
        raise RefusedError(f"{uri}: patch {number}: unknown action {patch.action!r}; there are {', '.join(ACTIONS)}")
    if patch.verdict not in (None, "", YES, NO):
        raise RefusedError(f"{uri}: patch {number}: the verdict {patch.verdict!r} is neither {YES} nor {NO}")
    return patch
