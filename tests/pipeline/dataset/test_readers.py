"""A result is plain Parquet: the readers that trainers have open it without this project, and see the same masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
from pycocotools import mask as coco_mask

from tests.pipeline.outputs import Output
from tests.results import SIZE_HW, ellipse, mask_row, write_result

COLUMNS = ["mask_id", "quality", "mask_rle"]
SHAPES = {number: ellipse((14 + 3 * number, 20), 6 + number, 15 * number) for number in range(6)}

Read = Callable[[list[str]], list[dict[str, Any]]]


def by_pyarrow(files: list[str]) -> list[dict[str, Any]]:
    found = ds.dataset(files).to_table(filter=ds.field("quality") >= 0.5, columns=COLUMNS)
    return found.to_pylist()


def by_duckdb(files: list[str]) -> list[dict[str, Any]]:
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(f"select {', '.join(COLUMNS)} from read_parquet({files}) where quality >= 0.5")
    return [dict(zip(COLUMNS, row, strict=True)) for row in found.fetchall()]


def by_polars(files: list[str]) -> list[dict[str, Any]]:
    polars = pytest.importorskip("polars")
    scan = polars.scan_parquet(files).filter(polars.col("quality") >= 0.5).select(COLUMNS)
    return scan.collect().to_dicts()


def by_pandas(files: list[str]) -> list[dict[str, Any]]:
    pandas = pytest.importorskip("pandas")
    frame = pandas.concat(pandas.read_parquet(path, columns=COLUMNS) for path in files)
    return frame[frame.quality >= 0.5].to_dict("records")


def by_hugging_face(files: list[str]) -> list[dict[str, Any]]:
    datasets = pytest.importorskip("datasets")
    cache = str(Path(files[0]).parents[3] / "cache")
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    return (
        loaded.select_columns(COLUMNS)
        .filter(lambda row: row["quality"] is not None and row["quality"] >= 0.5)
        .to_list()
    )


@pytest.mark.parametrize("read", [by_pyarrow, by_duckdb, by_polars, by_pandas, by_hugging_face])
def test_masks_of_quality(read: Read, tmp_path: Path) -> None:
    rows = [
        mask_row(f"{number}.png", number, shape, shape, quality=None if number == 5 else 0.3 + 0.1 * number)
        for number, shape in SHAPES.items()
    ]
    write_result(tmp_path / "out", [rows[:4], rows[4:]], str(tmp_path))
    files = sorted(str(path) for path in (tmp_path / "out").glob("runs/*/masks/*.parquet"))
    assert len(files) == 2
    found = {row["mask_id"]: row for row in read(files)}
    wanted = {row["mask_id"]: SHAPES[int(row["source_mask_id"])] for row in rows[2:5]}
    assert found.keys() == wanted.keys()
    for mask_id, shape in wanted.items():
        rle = found[mask_id]["mask_rle"]
        assert tuple(rle["size"]) == SIZE_HW
        size = [int(side) for side in rle["size"]]  # pandas gives an array
        assert np.array_equal(coco_mask.decode({"size": size, "counts": rle["counts"]}), shape)


@pytest.mark.parametrize("read", [by_pyarrow, by_duckdb, by_polars, by_pandas, by_hugging_face])
def test_a_shard_of_images_without_masks(read: Read, tmp_path: Path) -> None:
    """As an increment makes it that brings nothing else."""
    output = Output(tmp_path / "out")
    for corpus in ({0: (2, "")}, {0: (2, ""), 1: (0, "")}):
        output.plan(corpus)
        output.refine(output.pending())
        output.seal()
    files = sorted(str(path) for path in (tmp_path / "out").glob("runs/*/masks/*.parquet"))
    assert sorted(ds.dataset(path).count_rows() for path in files) == [0, 2]
    assert read(files) == read([path for path in files if ds.dataset(path).count_rows()])
