"""`relabel demo`: the real pipeline on packaged images, with pictures of what it did."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer
from rich.table import Table

from jobs import console
from pipeline.errors import RefusedError
from schemas import layout

DATA = Path(__file__).parent / "demo_data"


def demo(
    output: Annotated[Path, typer.Option(help="Where the Parquet dataset and the pictures go.")] = Path("demo"),
) -> None:
    """Refine hand-drawn masks of five packaged images: needs no network, no GPU and no data of yours."""
    from jobs.run import run  # keeps `relabel --help` quick

    result = output / "result"
    if result.exists():
        if not (result / layout.PLAN).is_dir():
            raise RefusedError(f"{result} exists and is not a demo's result; choose another --output")
        shutil.rmtree(result)
    try:
        run(images=str(DATA / "images"), masks=str(DATA / "coarse.json"), output=str(result))
    except typer.Exit as done:
        if done.exit_code:
            raise
    _show(result, output / "pictures")


def _show(result: Path, pictures: Path) -> None:
    from pipeline.dataset import open_result  # as above

    masks = open_result(str(result)).masks()
    for image_uri in sorted(set(masks["image_uri"].to_pylist())):
        rows = [row for row in masks.to_pylist() if row["image_uri"] == image_uri]
        _picture(pictures / f"{Path(image_uri).stem}.png", DATA / "images" / image_uri, rows)
    console.out.show(_table(masks))
    console.out.tell(
        f"pictures: {pictures}/*.png (image, coarse, refined)",
        f"dataset:  {result}/{layout.every_shard('masks')}",
    )
    console.out.tell(f"read it:  pipeline.open('{result}').masks(), or any Parquet reader (REFERENCE.md)")


def _picture(path: Path, photo: Path, rows: list[dict[str, Any]]) -> None:
    from pipeline.decoding.decode import decode_image
    from pipeline.masks import binary, drawing  # as above

    pixels = decode_image(photo.read_bytes(), 10**8)
    coarse = [binary.decode(row["coarse_rle"]) for row in rows]
    kept = [binary.decode(row["mask_rle"]) for row in rows if row["mask_rle"]]
    judged = [drawing.Judged(row["decision"], row["quality_coarse"], row["quality"]) for row in rows]
    drawing.write_comparison(path, pixels, coarse, kept, drawing.captions(judged))


def _table(masks: pa.Table) -> Table:
    table = Table(title="what changed", title_justify="left")
    for name in ("image", "category", "decision"):
        table.add_column(name, no_wrap=True)
    for name in ("IoU with coarse", "area ratio", "quality"):
        table.add_column(name, justify="right")
    for row in masks.to_pylist():
        table.add_row(
            row["image_uri"],
            row["category"],
            row["decision"],
            *(f"{row[name]:.3f}" for name in ("coarse_iou", "area_ratio", "quality")),
        )
    return table
