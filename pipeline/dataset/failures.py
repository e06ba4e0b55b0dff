"""What failed in a result, in words that can be acted on: by reason and fault, with the place of one of each."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

import pyarrow.compute as pc

from pipeline.dataset.result import Result
from pipeline.words import plural


class Failure(NamedTuple):
    """So many rows of one kind (images or masks) that failed for one reason and alike; example: one of them."""

    kind: str
    reason: str
    rows: int
    example: str

    def __str__(self) -> str:
        example = f"e.g. {self.example}" if self.rows > 1 else self.example
        return f"failed: {plural(self.rows, self.kind.removesuffix('s'))} ({self.reason}), {example}"


def failures(result: Result) -> list[Failure]:
    """Every kind of failure, the most frequent first."""
    counts: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], str] = {}
    for kind, where in (("images", pc.field("status") == "failed"), ("masks", pc.field("decision") == "failed")):
        columns = ["image_uri", "reason", "detail", *(["source_mask_id"] if kind == "masks" else [])]
        rows = (result.images if kind == "images" else result.masks)(where, columns).to_pylist()
        for row in rows:
            key = kind, row["reason"], _alike(row["detail"] or "")
            counts[key] += 1
            examples.setdefault(key, place_of(row["image_uri"], row.get("source_mask_id"), row["detail"]))
    return [Failure(*key[:2], count, examples[key]) for key, count in counts.most_common()]


def place_of(image_uri: str, source_mask_id: str | None, detail: str | None) -> str:
    """Where something is wrong, and what."""
    where = image_uri if source_mask_id is None else f"{image_uri}, mask {source_mask_id}"
    return f"{where}: {detail}" if detail else where


def _alike(detail: str) -> str:
    """A detail without its numbers and what comes after a colon: what those of one kind have in common."""
    return re.sub(r"\d+", "N", detail.partition(":")[0])
