"""Reading a result: the manifest's files as Arrow tables, with filters. Needs no Ray and no torch."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.filter_expression import Where, as_expression
from pipeline.errors import JobError, RefusedError
from pipeline.storage import Access, Store
from pipeline.storage.documents import REBUILD, read_current, read_manifest, read_pointed, run_store
from pipeline.words import plural
from schemas import layout
from schemas.manifest import Manifest
from schemas.records import IMAGES, MASKS

if TYPE_CHECKING:
    from PIL import Image


SHOWN = ["mask_id", "image_uri", "category", "decision", "reason", "quality", "coarse_iou", "area"]
"""Columns of `Result.head`."""
READERS = 16
"""Shards that are read at once."""


@dataclass(frozen=True, repr=False)
class Result:
    """The current generation of an output. `files` are relative to `store`."""

    store: Store
    manifest: Manifest

    def scan(self) -> dict[str, Any]:
        """What the planning pass before the seal covered (`scans/<digest>.json`); empty where none was recorded."""
        named = self.manifest.scan
        try:
            return dict(json.loads(self.store.read(named.path))) if named else {}
        except (FileNotFoundError, ValueError):
            return {}

    def files(self, kind: str = "masks") -> list[str]:
        """Paths of the live shards, relative to the output. kind: masks or images."""
        return [shard.path for shard in self.manifest.shards(kind)]

    def masks(self, where: Where = None, columns: list[str] | None = None) -> pa.Table:
        """Mask rows, e.g. `.masks("quality >= 0.8")`. Only the columns asked for are fetched.

        Raises RefusedError for a column that there is not.
        """
        return self._read("masks", MASKS, as_expression(where), columns)

    def images(self, where: pc.Expression | None = None, columns: list[str] | None = None) -> pa.Table:
        """Image rows."""
        return self._read("images", IMAGES, where, columns)

    def head(self, number: int = 5, where: Where = None) -> pa.Table:
        """The first mask rows, without their masks: what fits on a screen."""
        expression, rows = as_expression(where), MASKS.empty_table().select(SHOWN)
        for path in self.files():
            if len(rows) >= number:
                break
            found = self.store.scan(path, {name: pc.field(name) for name in SHOWN}, expression, MASKS)
            rows = pa.concat_tables([rows, found])
        return rows.slice(0, number)

    def __repr__(self) -> str:
        counts = self.manifest.counts
        decisions = ", ".join(f"{number} {decision}" for decision, number in counts.decisions.items() if number)
        sealed = self.manifest.sealed
        return (
            f"Result({self.store.uri!r}: {plural(sealed.images, 'image')}, {plural(sealed.masks, 'mask')}: {decisions})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the totals, and the first masks."""
        rows = [SHOWN, *(row.values() for row in self.head().to_pylist())]
        cells = ["".join(f"<td>{escape(_brief(value))}</td>" for value in row) for row in rows]
        return f"<p>{escape(repr(self))}</p><table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"

    def mask(self, mask_id: str) -> dict[str, Any]:
        """One row of `masks`. Raises RefusedError when the result has no such mask."""
        found = self.masks(pc.field("mask_id") == mask_id).to_pylist()
        if not found:
            raise RefusedError(f"{self.store.uri} has no mask {mask_id!r} in its current result")
        return dict(found[0])

    def show(self, mask_id: str, images_root: str | None = None) -> Image.Image:
        """Photo, coarse and refined outline side by side, cropped to the mask; a notebook draws it.

        images_root: where the images are now, if not where the run found them. Raises RefusedError for an
        unknown mask and ImageError (with a reason code) for an image that cannot be read.
        """
        from pipeline.dataset.samples import Photos
        from pipeline.masks import drawing

        row = self.mask(mask_id)
        photo = Photos.of(self, images_root).read(row["image_uri"], (row["height"], row["width"]))
        return drawing.of_row(photo, row)

    def _read(self, kind: str, schema: pa.Schema, where: pc.Expression | None, columns: list[str] | None) -> pa.Table:
        names = columns or schema.names
        if unknown := [name for name in names if name not in schema.names]:
            raise RefusedError(f"there is no column {unknown[0]!r}; there are {', '.join(schema.names)}")
        columns_of = {name: pc.field(name) for name in names}
        with ThreadPoolExecutor(READERS) as pool:
            tables = list(pool.map(lambda path: self.store.scan(path, columns_of, where, schema), self.files(kind)))
        return pa.concat_tables(tables) if tables else schema.empty_table().select(names)


def _brief(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def open_result(output: str, access: Access | None = None, groups: bool = True) -> Result:
    """The current result of an output URI. Raises RefusedError when there is none, or its manifest was altered.

    groups: see `read_pointed`.
    """
    store = Store(output, access or Access())
    current = read_current(store)
    if current is None:
        raise RefusedError(
            f"{output} holds no sealed result: no {layout.CURRENT}. `relabel run --output {output} ...` makes one; "
            f"if it was lost, {REBUILD}"
        )
    try:
        return Result(store, read_pointed(store, current, groups))
    except JobError as error:
        raise RefusedError(str(error)) from None


def open_generation(output: str, generation: int, access: Access | None = None) -> Result:
    """An earlier generation of the current method. Its shards may be gone. Raises RefusedError where there is none."""
    current = open_result(output, access)
    run = run_store(current.store, current.manifest.fingerprint)
    try:
        return Result(current.store, read_manifest(run, generation))
    except JobError:
        raise RefusedError(
            f"{output} has no generation {generation} of {current.manifest.fingerprint} (any more); the current one is "
            f"{current.manifest.generation}"
        ) from None
