"""Reading a result: the manifest's files as Arrow tables, with filters. Needs no Ray and no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RefusedError
from pipeline.storage import Access, Store
from schemas.records import IMAGES, MASKS


@dataclass(frozen=True)
class Result:
    """The current generation of an output. `files` are relative to `store`."""

    store: Store
    manifest: dict[str, Any]

    def files(self, kind: str = "masks") -> list[str]:
        """Paths of the live shards, relative to the output. kind: masks or images."""
        return [entry["path"] for entry in self.manifest[kind]]

    def masks(self, where: pc.Expression | None = None, columns: list[str] | None = None) -> pa.Table:
        """Mask rows, e.g. `.masks(pc.field("quality") >= 0.8)`."""
        return self._read("masks", MASKS, where, columns)

    def images(self, where: pc.Expression | None = None, columns: list[str] | None = None) -> pa.Table:
        """Image rows."""
        return self._read("images", IMAGES, where, columns)

    def _read(self, kind: str, schema: pa.Schema, where: pc.Expression | None, columns: list[str] | None) -> pa.Table:
        tables = [self.store.read_parquet(path) for path in self.files(kind)]
        table = pa.concat_tables(tables) if tables else schema.empty_table()
        table = table if where is None else table.filter(where)
        return table if columns is None else table.select(columns)


def open_result(output: str, access: Access | None = None) -> Result:
    """The current result of an output URI. Raises RefusedError when there is none, or its manifest was altered."""
    store = Store(output, access or Access())
    current = read_current(store)
    if current is None:
        raise RefusedError(f"{output} holds no sealed result: no current.json")
    path = f"runs/{current['fingerprint']}/seals/{current['generation']}/manifest.json"
    data = store.read(path)
    if hashlib.sha256(data).hexdigest() != current["manifest_sha256"]:
        raise RefusedError(f"{output}/{path} is not the manifest that current.json names")
    return Result(store, json.loads(data))


def read_current(output: Store) -> dict[str, Any] | None:
    """`current.json`, or None before the first seal."""
    try:
        return dict(json.loads(output.read("current.json")))
    except FileNotFoundError:
        return None
