"""One pass over a result's score columns: what it holds in numbers, and which masks a person should see.

Shard by shard, and of each shard only narrow columns: memory does not grow with the number of masks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.result import Result

BINS = 1000
"""Of the quality histograms, over [0, 1]; charts add bins up."""

COLUMNS = ["mask_id", "category", "decision", "quality", "quality_coarse", "coarse_iou"]


@dataclass
class Category:
    """One category's masks. Sums are over the masks that know the value."""

    masks: int = 0
    decisions: dict[str, int] = field(default_factory=dict)
    quality_sum: float = 0.0
    quality_known: int = 0
    coarse_iou_sum: float = 0.0
    coarse_iou_known: int = 0


class Stratum(NamedTuple):
    """A reason to look at a mask. `key`: the rows that qualify and what they are ranked by, lowest first."""

    name: str
    title: str
    where: pc.Expression
    key: Callable[[pa.Table], pa.ChunkedArray]


def _by_chance(table: pa.Table) -> pa.ChunkedArray:
    """The ids themselves: hashes, so their order is a fixed but random one."""
    return table["mask_id"]


STRATA = (
    Stratum(
        "changed",
        "Largest change",
        (pc.field("decision") == "refined") & pc.field("coarse_iou").is_valid(),
        lambda table: table["coarse_iou"],
    ),
    Stratum("lowest", "Lowest quality", pc.field("quality").is_valid(), lambda table: table["quality"]),
    Stratum("kept", "Kept coarse", pc.field("decision").isin(["kept_coarse", "review"]), _by_chance),
    Stratum("random", "Random", pc.field("decision") != "failed", _by_chance),
    Stratum("failed", "Failed", pc.field("decision") == "failed", _by_chance),
)


@dataclass
class Survey:
    """What `survey` found.

    quality, quality_coarse   (BINS,) int64: masks by the estimate for the mask kept, and for the one that came in
    shown                     mask id -> the strata that it is shown for
    """

    masks: int
    quality: npt.NDArray[np.int64]
    quality_coarse: npt.NDArray[np.int64]
    categories: dict[str | None, Category]
    shown: dict[str, list[str]]


def survey(result: Result, per_stratum: int) -> Survey:
    """Count everything; choose up to `per_stratum` masks for each stratum."""
    found = Survey(0, np.zeros(BINS, np.int64), np.zeros(BINS, np.int64), defaultdict(Category), {})
    best: dict[str, pa.Table] = {}
    for path in result.files():
        table = result.store.scan(path, {name: pc.field(name) for name in COLUMNS})
        found.masks += table.num_rows
        found.quality += _histogram(table["quality"])
        found.quality_coarse += _histogram(table["quality_coarse"])
        _count_categories(table, found.categories)
        for stratum in STRATA:
            best[stratum.name] = _lowest(stratum, table, best.get(stratum.name), per_stratum)
    for name, table in best.items():
        for mask_id in table["mask_id"].to_pylist():
            found.shown.setdefault(mask_id, []).append(name)
    return found


def _histogram(values: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    known = values.drop_null().to_numpy()
    return np.histogram(np.clip(known, 0, 1), BINS, (0, 1))[0].astype(np.int64)


def _count_categories(table: pa.Table, categories: dict[str | None, Category]) -> None:
    grouped = table.group_by(["category", "decision"]).aggregate(
        [([], "count_all"), ("quality", "sum"), ("quality", "count"), ("coarse_iou", "sum"), ("coarse_iou", "count")]
    )
    for row in grouped.to_pylist():
        category = categories[row["category"]]
        category.masks += row["count_all"]
        category.decisions[row["decision"]] = category.decisions.get(row["decision"], 0) + row["count_all"]
        category.quality_sum += row["quality_sum"] or 0.0
        category.quality_known += row["quality_count"]
        category.coarse_iou_sum += row["coarse_iou_sum"] or 0.0
        category.coarse_iou_known += row["coarse_iou_count"]


def _lowest(stratum: Stratum, table: pa.Table, before: pa.Table | None, count: int) -> pa.Table:
    """The `count` lowest of a shard's rows and those of earlier shards; ties by id."""
    some = table.filter(stratum.where)
    ranked = pa.table({"key": stratum.key(some), "mask_id": some["mask_id"]})
    ranked = ranked if before is None else pa.concat_tables([before, ranked])
    order: list[Any] = [("key", "ascending"), ("mask_id", "ascending")]
    return ranked.take(pc.select_k_unstable(ranked, count, order)) if ranked.num_rows and count else ranked.slice(0, 0)
