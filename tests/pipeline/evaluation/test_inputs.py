"""Reading truth, predictions and image lists, and refusing what is none of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RefusedError
from pipeline.evaluation import inputs
from pipeline.masks import binary
from pipeline.storage import Store
from schemas.manifest import Shard
from schemas.records import MASKS
from tests.pipeline.evaluation.cases import rectangle, rle
from tests.results import make_manifest, publish

SQUARE = rectangle(10, 10, 20, 20)


def write_json(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def coco(annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60, "source": "ours"}],
        "categories": [{"id": 3, "name": "box"}],
        "annotations": [{"image_id": 1, "category_id": 3, **annotation} for annotation in annotations],
    }


def write_output(folder: Path, rows: list[dict[str, Any]], shards: int = 1) -> str:
    """An output folder as `relabel run` leaves it: shards, a manifest that lists them, current.json."""
    nothing = dict.fromkeys(MASKS.names)
    listed = []
    store, run = Store(str(folder)), folder / "runs" / "f00d"
    for number in range(shards):
        path = run / "masks" / f"{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([{**nothing, **row} for row in rows[number::shards]], MASKS)
        pq.write_table(table, path)
        data, name = path.read_bytes(), path.relative_to(folder).as_posix()
        sha256 = hashlib.sha256(data).hexdigest()
        listed.append(Shard(path=name, rows=table.num_rows, bytes=len(data), sha256=sha256))
    pq.write_table(pa.table({"source_mask_id": ["1"]}), run / "masks" / "old.parquet")  # of an earlier generation
    return publish(store, make_manifest(fingerprint="f00d", generation=2, masks=listed)).store.uri


def row(mask_id: str, **changes: Any) -> dict[str, Any]:
    fields = {
        "source_mask_id": mask_id,
        "image_uri": "images/a.jpg",
        "coarse_rle": rle(10, 10, 20, 10),
        "refined_rle": rle(10, 10, 20, 20),
        "mask_rle": rle(10, 10, 20, 20),
        "decision": "refined",
        "reason": "improved",
        "quality": 0.5,
        "predicted_iou": 0.75,
    }
    return {**fields, **changes}


def test_all_three_forms_of_a_coco_segmentation_are_one_mask(tmp_path: Path) -> None:
    runs = [10 * 40 + 10, *[20, 20] * 19, 20]
    runs.append(40 * 60 - sum(runs))
    polygon = [[10, 10, 30, 10, 30, 30, 10, 30]]
    forms: list[Any] = [binary.encode(SQUARE), {"size": [40, 60], "counts": runs}, polygon]
    uri = write_json(
        tmp_path / "gt.json", coco([{"id": number, "segmentation": form} for number, form in enumerate(forms)])
    )
    truths = inputs.read_truth(uri)
    assert [item.mask for item in truths] == [binary.encode(SQUARE)] * 3
    assert (truths[0].annotation_id, truths[0].source, truths[0].category) == ("0", "ours", "box")


def test_ignore_regions_are_read_and_ignore_flags_are_not_regions(tmp_path: Path) -> None:
    annotations = [
        {"id": 1, "segmentation": binary.encode(SQUARE), "ignore": rle(0, 0, 5, 5)},
        {"id": 2, "segmentation": binary.encode(SQUARE), "ignore": 0, "iscrowd": 1},
    ]
    first, second = inputs.read_truth(write_json(tmp_path / "gt.json", coco(annotations)))
    assert first.ignore == rle(0, 0, 5, 5)
    assert second.ignore is None
    assert second.crowd


def test_a_truth_that_is_an_annotation_of_its_own_is_joined_by_source_id(tmp_path: Path) -> None:
    """As COCO-ReM's: ids of its own, those of COCO and LVIS as `source_id`, which may be the same number."""
    square = {"segmentation": binary.encode(SQUARE)}
    annotations = [
        {"id": 901, "source": "coco", "source_id": 5, **square},
        {"id": 902, "source": "lvis", "source_id": 5, **square},
        {"id": 5, "source": "coco", "source_id": 7, **square},
    ]
    uri = write_json(tmp_path / "valrem.json", coco(annotations))
    truths = inputs.read_truth(uri, ids=inputs.TruthIds("source_id", "coco"))
    assert [item.annotation_id for item in truths] == ["5", "7"]
    with pytest.raises(RefusedError, match="no annotation is of the source 'voc'; there are coco, lvis"):
        inputs.read_truth(uri, ids=inputs.TruthIds("source_id", "voc"))
    with pytest.raises(RefusedError, match="cannot be used: KeyError"):
        inputs.read_truth(uri, ids=inputs.TruthIds("origin"))


def test_truth_with_a_broken_mask_is_refused(tmp_path: Path) -> None:
    uri = write_json(tmp_path / "gt.json", coco([{"id": 1, "segmentation": {"size": [40, 60], "counts": "0"}}]))
    with pytest.raises(RefusedError, match=r"gt.json: an annotation cannot be used: .*mask_unreadable"):
        inputs.read_truth(uri)


@pytest.mark.parametrize("content", ["not json", "[]", '{"images": []}'])
def test_what_is_not_coco_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "gt.json").write_text(content)
    with pytest.raises(RefusedError, match=r"gt\.json"):
        inputs.read_truth(str(tmp_path / "gt.json"))


def test_output_folder(tmp_path: Path) -> None:
    failed = {"mask_rle": None, "decision": "failed", "reason": "image_truncated", "quality": None}
    uri = write_output(tmp_path, [row("1"), row("2", **failed), row("3"), row("unasked")], shards=2)
    found = {item.source_mask_id: item for item in inputs.read_predictions(uri, {"1", "2", "3", "4"})}
    assert found.keys() == {"1", "2", "3"}
    assert found["1"].coarse == rle(10, 10, 20, 10)
    assert found["1"].mask == found["1"].refined == rle(10, 10, 20, 20)
    assert found["1"].scores == {"quality": 0.5, "predicted_iou": 0.75}
    assert found["2"].mask is None
    assert (found["2"].decision, found["2"].reason) == ("failed", "image_truncated")
    assert found["2"].scores == {"predicted_iou": 0.75}


def test_what_is_no_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="holds no sealed result"):
        inputs.read_predictions(str(tmp_path), {"1"})


def test_coco_predictions_carry_scores_and_broken_masks_a_reason(tmp_path: Path) -> None:
    annotations = [
        {"id": 1, "segmentation": binary.encode(SQUARE), "score": 0.4, "quality": 0.9, "decision": "refined"},
        {"id": 2, "segmentation": {"size": [40, 60], "counts": "0"}},
    ]
    uri = write_json(tmp_path / "theirs.json", coco(annotations))
    first, second = inputs.read_predictions(uri, set())
    assert (first.score, first.scores, first.decision) == (0.4, {"quality": 0.9}, "refined")
    assert (second.mask, second.reason) == (None, "mask_unreadable")
    assert inputs.read_coarse(uri) == {"1": binary.encode(SQUARE)}


def test_image_lists(tmp_path: Path) -> None:
    split = write_json(tmp_path / "split.json", {"A": ["a.jpg"], "B": ["b.jpg", 7]})
    single = write_json(tmp_path / "list.json", ["c.jpg"])
    assert inputs.read_image_list(f"{split}:B") == ["b.jpg", "7"]
    assert inputs.read_image_list(single) == ["c.jpg"]
    for spec, message in [
        (f"{split}:C", "no list 'C'; it has A, B"),
        (f"{single}:A", "it has a single list"),
        (split, "not a JSON list"),
        ("images.txt", "give LIST.json"),
    ]:
        with pytest.raises(RefusedError, match=message):
            inputs.read_image_list(spec)
