"""The training feed over real shards, with real workers."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipeline.dataset import MaskDataset, MaskStream, Result, collate, feed, samples, streaming
from pipeline.dataset.verdicts import digest, rejected
from pipeline.errors import ImageError, RefusedError
from pipeline.exports.driver import export
from pipeline.exports.types import Options
from pipeline.masks import binary
from pipeline.review.verdicts import review
from pipeline.storage import Access, Store
from tests.conftest import ROOT
from tests.results import SIZE_HW, Row, ellipse, mask_row, write_photo, write_result

IMAGES = 13


def rows_of(number: int) -> list[Row]:
    """1 to 3 masks of one image; the last image of all has none that can be used."""
    name = f"photos/{number:02}.png"
    shapes = [ellipse((16 + 12 * k, 20 + number), 9, 20 * k) for k in range(1 + number % 3)]
    last = number == IMAGES - 1
    return [
        mask_row(
            name,
            k,
            np.roll(shape, 3, axis=1),
            shape,
            decision="failed" if last else "refined",
            quality=None if last else 0.5 + 0.1 * k,
            category_id=10 + k,
        )
        for k, shape in enumerate(shapes)
    ]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("feed")
    for number in range(IMAGES):
        write_photo(
            folder / "photos" / f"{number:02}.png",
            [binary.decode(r["refined_rle"] or r["coarse_rle"]) for r in rows_of(number)],
            number,
        )
    images = [rows_of(number) for number in range(IMAGES)]
    return write_result(
        folder / "out", [[*chain(*images[:5])], [*chain(*images[5:6])], [*chain(*images[6:])]], str(folder)
    )


def names(batches: Any) -> list[str]:
    return [target["image_id"] for _, targets in batches for target in targets]


def test_a_sample_is_what_torchvision_takes(result: Result) -> None:
    dataset = MaskDataset(result.store.uri)
    assert len(dataset) == IMAGES - 1
    image, target = dataset[2]
    rows = rows_of(2)
    assert isinstance(image, tv_tensors.Image)
    assert (image.dtype, image.shape) == (torch.uint8, (3, *SIZE_HW))
    assert target["masks"].numpy().tolist() == [binary.decode(row["mask_rle"]).tolist() for row in rows]
    assert target["mask_ids"] == [row["mask_id"] for row in rows]
    assert target["labels"].tolist() == [10, 11, 12]
    assert target["quality"].tolist() == pytest.approx([0.5, 0.6, 0.7])
    x, y, width, height = rows[0]["bbox_xywh"]
    assert target["boxes"][0].tolist() == [x, y, x + width, y + height]
    coarse = MaskDataset(result.store.uri, label="coarse_rle")[2][1]["masks"]
    assert torch.equal(coarse, torch.roll(target["masks"], 3, dims=2))
    with pytest.raises(IndexError):
        dataset[IMAGES]


def test_filters_leave_out_masks_and_images_left_without_any(result: Result) -> None:
    dataset = MaskDataset(result.store.uri, pc.field("quality") > 0.55)
    assert len(dataset) == 8
    assert all((target["quality"] > 0.55).all() for _, target in (dataset[i] for i in range(len(dataset))))
    stream = MaskStream(result.store.uri, pc.field("quality") > 0.55, batch_size=2)
    assert len(stream) == 8
    assert {len(target["mask_ids"]) for _, target in stream} == {1, 2}
    with pytest.raises(RefusedError, match="no mask to train on is left"):
        MaskDataset(result.store.uri, pc.field("quality") > 2)
    with pytest.raises(RefusedError, match="a result has mask_rle"):
        MaskDataset(result.store.uri, label="pixels")


def test_masks_that_a_person_rejected_are_left_out(result: Result, tmp_path: Path) -> None:
    rows = rows_of(2) + rows_of(3)
    copy = write_result(tmp_path / "out", [rows], result.manifest.images_root)
    verdict = {"mask_id": rows[1]["mask_id"], "digest": digest(rows[1]), "verdict": "reject", "strata": []}
    said = {"kind": "relabel-verdicts", "schema_version": 1, "verdicts": [verdict]}
    (tmp_path / "verdicts.json").write_text(json.dumps(said))
    review(copy.store.uri, str(tmp_path / "verdicts.json"))
    kept = [rows[0]["mask_id"], rows[2]["mask_id"]]
    assert MaskDataset(copy.store.uri)[0][1]["mask_ids"] == kept
    assert next(iter(MaskStream(copy.store.uri, shuffle=False)))[1]["mask_ids"] == kept
    options = Options(rejected=tuple(rejected(copy.store.uri)))
    done = export(copy, Store(str(tmp_path / "coco")), Store(str(tmp_path)), "coco", options)
    assert done.report["counts"] == {"images": 2, "left out: masks not selected": 1, "masks": 3}


def test_transforms_move_image_boxes_and_masks_together(result: Result) -> None:
    flip = v2.Compose([v2.RandomHorizontalFlip(p=1), v2.Resize((24, 32)), v2.ToDtype(torch.float32, scale=True)])
    image, target = MaskDataset(result.store.uri, transforms=flip)[1]
    plain, before = MaskDataset(result.store.uri)[1]
    assert image.shape == (3, 24, 32)
    assert image.max() <= 1
    assert target["boxes"][:, 0].tolist() == pytest.approx((32 - before["boxes"][:, 2] / 2).tolist())
    assert torch.equal(target["masks"], v2.functional.resize(v2.functional.hflip(before["masks"]), [24, 32]))
    assert plain.shape == (3, *SIZE_HW)


def test_two_workers_give_the_same_batches_as_none(result: Result) -> None:
    stream = MaskStream(result.store.uri, batch_size=3, seed=4)
    alone = names(stream.loader())
    assert sorted(alone) == sorted({row["image_id"] for n in range(IMAGES - 1) for row in rows_of(n)})
    assert alone != sorted(alone)
    loader = stream.loader(workers=2, persistent_workers=True)
    assert names(loader) == alone
    stream.set_epoch(1)
    second = names(loader)  # the same workers, told of the new epoch
    assert second != alone
    assert sorted(second) == sorted(alone)
    mapped = DataLoader(MaskDataset(result.store.uri), batch_size=4, num_workers=2, collate_fn=collate)
    assert names(mapped) == sorted(alone)


def test_ranks_share_and_a_stopped_epoch_resumes_on_other_machines(result: Result) -> None:
    def stream(rank: int, world: int) -> MaskStream:
        return MaskStream(result.store.uri, batch_size=2, seed=9, rank=rank, world=world)

    ranks = [stream(rank, 2) for rank in range(2)]
    for one in ranks:
        one.set_epoch(5)
    consumed, states = [], []
    for one in ranks:
        consumed += names(list(one.loader())[:2])
        states.append(one.state_after(2))
    assert states[0] == states[1]
    assert states[0]["consumed"] == 8
    alone = stream(0, 1)
    alone.resume(states[0])
    rest = names(alone.loader(workers=2))
    assert len(alone) == len(rest) == 4
    assert sorted(consumed + rest) == sorted(names(stream(0, 1).loader()))
    with pytest.raises(RefusedError, match="another result, filter, label or seed"):
        MaskStream(result.store.uri, seed=1).resume(states[0])
    with pytest.raises(RefusedError, match="rank < world"):
        stream(2, 2)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the result had more shards than are indexed beforehand, each of blocks of five rows."""
    monkeypatch.setattr(feed, "INDEXED_SHARDS", 0)
    for module in (streaming, samples):
        monkeypatch.setattr(module, "BLOCK_ROWS", 5)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("where", [None, "quality > 0.55"])
def test_many_shards_are_streamed_with_the_same_images(result: Result, where: str | None) -> None:
    indexed = {target["image_id"]: target["mask_ids"] for _, target in MaskDataset(result.store.uri, where)}
    stream = MaskStream(result.store.uri, where, batch_size=2, seed=4)
    found = [target for _, targets in stream.loader() for target in targets]
    assert {target["image_id"]: target["mask_ids"] for target in found} == indexed
    assert len(found) == len(indexed)
    in_order = MaskStream(result.store.uri, where, shuffle=False)
    assert names(in_order.loader()) == list(indexed)
    with pytest.raises(TypeError, match="more than 0 shards"):
        len(in_order)


@pytest.mark.usefixtures("many")
def test_many_shards_are_resumed_by_other_machines(result: Result) -> None:
    uri = result.store.uri
    whole = MaskStream(uri, seed=2)
    order = names(whole.loader())
    assert whole.state_after(1000)["consumed"] == len(order)
    ranks = [MaskStream(uri, seed=2, batch_size=2, rank=rank, world=2) for rank in range(2)]
    firsts = [[target["image_id"] for _, targets in [next(iter(r.loader(1)))] for target in targets] for r in ranks]
    assert [name for pair in zip(*firsts, strict=True) for name in pair] == order[:4]
    states = [json.loads(json.dumps(rank.state_after(1))) for rank in ranks]
    assert states[0] == states[1]
    assert (states[0]["consumed"], states[0]["begin"] <= 4) == (4, True)
    later = MaskStream(uri, seed=2)
    later.resume(states[0])
    assert names(later.loader()) == order[4:]
    later.set_epoch(0)
    assert names(later.loader()) == order
    with pytest.raises(RefusedError, match="another result, filter, label or seed"):
        MaskStream(uri, seed=3).resume(states[0])


def test_a_photograph_that_is_gone_is_named(result: Result, tmp_path: Path) -> None:
    dataset = MaskDataset(result.store.uri, images_root=str(tmp_path))
    with pytest.raises(ImageError, match=r"image_missing.*photos/00.png"):
        dataset[0]


def test_workers_read_from_object_storage(result: Result, s3_endpoint: str, bucket: str) -> None:
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    for folder, prefix in (
        (Path(result.manifest.images_root) / "photos", "photos"),
        (Path(result.store.uri), "out"),
    ):
        for path in folder.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder)}")
    stream = MaskStream(
        f"s3://{bucket}/out", images_root=f"s3://{bucket}", access=Access(s3_endpoint), batch_size=2, shuffle=False
    )
    assert names(stream.loader(workers=2)) == sorted({row["image_id"] for n in range(IMAGES - 1) for row in rows_of(n)})


def test_reading_a_result_imports_no_torch() -> None:
    code = "import sys, pipeline; pipeline.open; import pipeline.dataset.samples; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
