"""Masks that people corrected come home: exported, edited, brought back, sealed, exported; undone without a trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from pipeline.errors import RefusedError
from pipeline.storage import Access
from pipeline.verify.check import verify
from tests.pipeline.corrections.way_back import (
    CROWD,
    DRAWN,
    GONE,
    LEFT,
    MOVED,
    RING,
    as_polygon,
    attribute,
    back,
    corrected_once,
    edit,
    edit_regions,
    edited,
    exported,
    files,
    ids,
    of_mask,
    polygon,
    relabel,
    result,
    rows,
)
from tests.pipeline.outputs import Output


def check_corrected(before: dict[str, Any], after: dict[str, Any], name: str) -> None:
    added = next(row for row in after.values() if row["reason"] == "added")
    assert after.keys() - before.keys() == {added["source_mask_id"]}
    assert before.keys() - after.keys() == {GONE}
    moved, crowd = after[MOVED], after[CROWD]
    assert moved["mask_rle"] == DRAWN
    assert (moved["decision"], moved["reason"], moved["quality"]) == ("corrected", "corrected", 1.0)
    assert moved["detail"] == f"replaced in overlay {name}"
    assert json.loads(moved["extra"]) == {"overlay": name}
    same = ("coarse_rle", "refined_rle", "predicted_iou", "quality_coarse", "mask_id", "category_id", "image_id")
    assert {key: moved[key] for key in same} == {key: before[MOVED][key] for key in same}
    assert (crowd["crowd"], crowd["mask_rle"]) == (True, before[CROWD]["mask_rle"])
    assert (added["image_id"], added["category_id"], added["category"]) == ("0000.jpg", 1, "thing")
    assert (added["coarse_rle"], added["area"], added["source_mask_id"].split("/")[0]) == (None, 56, name)
    for source_id in (LEFT, "1-0", "2-0", "3-0"):
        assert after[source_id] == before[source_id]


def test_the_whole_way_with_cvat(output: Output, tmp_path: Path) -> None:
    assert relabel("seal", output.folder).exit_code == 0  # shards of the size that the command makes
    before, first = rows(output), files(output)
    path = edited(exported(output, tmp_path / "cvat", "cvat"), lambda root: edit(output, root))
    kept = relabel("review", output.folder, "--from", path, "--name", "anna")
    assert kept.exit_code == 0, kept.output
    assert "anna: 1 added, 1 kept, 1 removed, 2 replaced, in 4 images" in kept.stdout
    assert files(output) == first  # nothing changes before the seal
    waiting = verify(output.store.uri, Access())
    assert (waiting.findings, waiting.notes) == ([], ["overlay anna is not sealed yet: `relabel seal` applies it"])
    assert "anna: waits for a seal" in relabel("review", output.folder, "--list").stdout
    done = relabel("seal", output.folder)
    assert done.exit_code == 0, done.output
    assert "masks corrected" in done.stdout
    after = rows(output)
    check_corrected(before, after, "anna")
    report = verify(output.store.uri, Access())
    assert (report.findings, report.notes) == ([], [])
    assert report.planned == report.done == {"images": 4, "masks": 10}
    coco = json.loads(exported(output, tmp_path / "coco", "coco").read_text())
    entries = {one["mask_id"]: one for one in coco["annotations"]}
    assert entries.keys() == {row["mask_id"] for row in after.values()}
    moved = entries[after[MOVED]["mask_id"]]
    assert (moved["segmentation"], moved["decision"], moved["overlay"]) == (DRAWN, "corrected", "anna")
    assert [one["iscrowd"] for one in entries.values() if one["mask_id"] == after[CROWD]["mask_id"]] == [1]
    assert "anna: sealed: 1 added, 1 kept, 1 removed, 2 replaced\n" in relabel("review", output.folder, "--list").stdout
    assert relabel("review", output.folder, "--undo", "anna").exit_code == 0
    assert "sealed, and undone since" in relabel("review", output.folder, "--list").stdout
    assert relabel("seal", output.folder).exit_code == 0
    assert files(output) == first
    assert verify(output.store.uri, Access()).findings == []
    assert "anna: undone" in relabel("review", output.folder, "--list").stdout


def test_the_whole_way_with_label_studio(output: Output, tmp_path: Path) -> None:
    before, first = rows(output), files(output)
    path = exported(output, tmp_path / "ls", "label-studio")
    tasks = json.loads(path.read_text())
    done = edit_regions(output, tasks[0]["predictions"][0]["result"])
    tasks[0]["annotations"] = [{"id": 1, "result": done, "was_cancelled": False}]
    tasks[1]["annotations"] = [{"id": 2, "result": [], "was_cancelled": True}]  # skipped: says nothing
    path.write_text(json.dumps(tasks))
    assert back(output, path).counts == {"added": 1, "kept": 1, "removed": 1, "replaced": 2}
    output.seal(shard_bytes=1)
    check_corrected(before, rows(output), "tasks")
    assert verify(output.store.uri, Access()).findings == []
    assert relabel("review", output.folder, "--undo", "tasks").exit_code == 0
    output.seal(shard_bytes=1)
    assert files(output) == first


def test_only_the_shards_of_changed_images_are_sealed_again(output: Output, tmp_path: Path) -> None:
    before = result(output).files()
    back(output, edited(exported(output, tmp_path / "cvat", "cvat"), lambda root: edit(output, root)))
    output.seal(shard_bytes=1)
    after = result(output).files()
    assert len(before) == len(after) == 2
    assert (before[0] == after[0], before[1] == after[1]) == (False, True)


def test_later_corrections_lie_on_top(output: Output, tmp_path: Path) -> None:
    own = ids(output)
    back(output, edited(exported(output, tmp_path / "one", "cvat"), lambda root: edit(output, root)), name="one")
    output.seal(shard_bytes=1)
    added = next(row for row in rows(output).values() if row["reason"] == "added")

    def again(root: Element) -> None:
        as_polygon(of_mask(root, own[MOVED])[0], [1, 1, 5, 1, 5, 5, 1, 5])
        of_mask(root, own[LEFT])[0].attrib["label"] = "other thing"
        of_mask(root, added["mask_id"])[1].remove(of_mask(root, added["mask_id"])[0])

    second = back(output, edited(exported(output, tmp_path / "two", "cvat"), again), name="two")
    assert (second.counts, second.new) == ({"kept": 1, "removed": 1, "replaced": 2}, ["other thing"])
    output.seal(shard_bytes=1)
    after = rows(output)
    assert (after[MOVED]["area"], json.loads(after[MOVED]["extra"])) == (16, {"overlay": "two"})
    assert (after[LEFT]["category_id"], after[LEFT]["category"]) == (2, "other thing")
    assert added["source_mask_id"] not in after
    assert relabel("review", output.folder, "--undo", "one").exit_code == 0
    output.seal(shard_bytes=1)
    assert rows(output)[MOVED]["area"] == 16  # as the second says
    assert GONE in rows(output)
    assert verify(output.store.uri, Access()).findings == []


def test_two_people_at_once_with_the_export_that_they_had(output: Output, tmp_path: Path) -> None:
    own, sent = corrected_once(output, tmp_path)

    def other(root: Element) -> None:
        as_polygon(of_mask(root, own[LEFT])[0], RING)

    path = edited(sent, other)
    second = back(output, path, sent=str(sent), name="two")
    assert second.counts == {"replaced": 1}  # and nothing of the first is taken back
    assert back(output, path, name="three").counts["replaced"] > 1


def test_the_same_file_twice_adds_nothing_twice(output: Output, tmp_path: Path) -> None:
    path = edited(exported(output, tmp_path / "cvat", "cvat"), lambda root: edit(output, root))
    names = [back(output, path).name for _ in range(2)]
    assert names == ["back", "back-2"]
    output.seal(shard_bytes=1)
    assert sum(row["reason"] == "added" for row in rows(output).values()) == 1
    with pytest.raises(RefusedError, match="nothing in it differs"):
        back(output, path)


def test_a_mask_that_was_cut_in_two_stays_one_and_gains_one(output: Output, tmp_path: Path) -> None:
    own = ids(output)

    def cut(root: Element) -> None:
        mask, image = of_mask(root, own[MOVED])
        half = polygon(image, "thing", [20, 2, 28, 2, 28, 9, 20, 9])
        attribute(half, "mask_id").text = own[MOVED]
        as_polygon(mask, [3, 3, 19, 3, 19, 8, 3, 8])

    found = back(output, edited(exported(output, tmp_path / "cvat", "cvat"), cut))
    assert found.counts == {"added": 1, "kept": 3, "replaced": 1}
