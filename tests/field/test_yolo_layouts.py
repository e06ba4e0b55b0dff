"""YOLO's label files and folders as ultralytics, Roboflow and trackers write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.field.world import put, put_images, run, square

POLYGON = "0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"
YOLO = {
    "plain": (POLYGON, {}),
    "confidence": (f"{POLYGON} 0.873215", {"confidence": 0.873215}),
    "confidence and track": (f"{POLYGON} 0.873215 12", {"confidence": 0.873215, "track_id": 12}),
    "track": (f"{POLYGON} 12", {"track_id": 12}),
    "box": ("0.5 0.5 0.5 0.5", {}),
    "box, confidence": ("0.5 0.5 0.5 0.5 0.9", {"confidence": 0.9}),
    "box, confidence, track": ("0.5 0.5 0.5 0.5 0.9 3", {"confidence": 0.9, "track_id": 3}),
}


@pytest.mark.parametrize("name", YOLO)
def test_what_stands_behind_a_yolo_polygon_is_no_corner(tmp_path: Path, name: str) -> None:
    line, extra = YOLO[name]
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "labels" / "a.txt", f"0 {line}\n")
    outcome = run(tmp_path / "images", tmp_path / "labels", tmp_path / "out", "yolo")
    assert (outcome.pixels()["a#1"] == square()).all()
    assert json.loads(outcome.only()["extra"] or "{}") == extra


def test_the_first_tracks_of_a_folder_are_tracks(tmp_path: Path) -> None:
    """Track ids 0 and 1 look like corners; those of the other files show what they are."""
    put_images(tmp_path / "images", "a.jpg", "b.jpg")
    put(tmp_path / "labels" / "a.txt", f"0 {POLYGON} 0.9 1\n")
    put(tmp_path / "labels" / "b.txt", f"0 {POLYGON} 0.9 7\n")
    outcome = run(tmp_path / "images", tmp_path / "labels", tmp_path / "out", "yolo")
    assert all((pixels == square()).all() for pixels in outcome.pixels().values())


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("0 24 16 72 16 72 48 24 48", "no shares: line 1 of a.txt has the coordinate 72"),
        ("1e300 " + POLYGON, "no numbers: line 1 of a.txt"),
        ("1e19 " + POLYGON, "no numbers: line 1 of a.txt"),
        ("nan " + POLYGON, "no numbers"),
        ("0 0.1 0.2", "too few numbers: line 1 of a.txt has 2 after its class"),
        ("0 nan 0.1 0.2 0.3 0.4 0.5", "no finite numbers: line 1 of a.txt"),
        ("cat " + POLYGON, "no numbers"),
    ],
)
def test_a_yolo_line_that_is_none_says_what_and_where(tmp_path: Path, line: str, detail: str) -> None:
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "labels" / "a.txt", line)
    row = run(tmp_path / "images", tmp_path / "labels", tmp_path / "out", "yolo").only()
    assert row["reason"] == "mask_unreadable"
    assert detail in row["detail"]


NAMES_FILES = {
    "superscript": 'names: {"²": cat, 0: dog}\n',
    "deep": "names: " + "[" * 3000 + "]" * 3000,
    "laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{c}: &{c} [{','.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True))
    + "names: {0: *i}\n",
}


@pytest.mark.parametrize("name", NAMES_FILES)
def test_hostile_names_stop_nothing(tmp_path: Path, name: str) -> None:
    put_images(tmp_path / "set" / "images", "a.jpg")
    put(tmp_path / "set" / "labels" / "a.txt", f"0 {POLYGON}")
    put(tmp_path / "set" / "data.yaml", NAMES_FILES[name])
    row = run(tmp_path / "set" / "images", tmp_path / "set", tmp_path / "out").only()
    assert row["category"] == ("dog" if name == "superscript" else "")


def data_yaml(folder: Path) -> None:
    put(folder / "data.yaml", yaml.safe_dump({"train": "../train/images", "nc": 2, "names": ["cat", "dog"]}))
    put(folder / "README.roboflow.txt", "exported by ...")


@pytest.mark.parametrize("given", ["", "data.yaml"])
def test_roboflow(tmp_path: Path, given: str) -> None:
    name = "a_jpg.rf.0123"
    for split in ("train", "valid"):
        put_images(tmp_path / "set" / split / "images", f"{name}.jpg")
        put(tmp_path / "set" / split / "labels" / f"{name}.txt", f"1 {POLYGON}")
    data_yaml(tmp_path / "set")
    outcome = run(tmp_path / "set", tmp_path / "set" / given, tmp_path / "out")
    assert sorted(outcome.images) == [f"train/images/{name}.jpg", f"valid/images/{name}.jpg"]
    assert {(row["category_id"], row["category"], row["decision"]) for row in outcome.masks} == {(1, "dog", "refined")}
    assert outcome.scan["unread"] == 0


@pytest.mark.parametrize(
    ("images", "masks"), [("", ""), ("images", "labels"), ("images", ""), ("images/train", "labels/train")]
)
def test_ultralytics(tmp_path: Path, images: str, masks: str) -> None:
    put_images(tmp_path / "set" / "images" / "train", "a.jpg")
    put(tmp_path / "set" / "labels" / "train" / "a.txt", f"0 {POLYGON}")
    put(tmp_path / "set" / "labels" / "train.cache", b"\0")
    put(tmp_path / "set" / "train.txt", "./images/train/a.jpg\n")
    data_yaml(tmp_path / "set")
    source = "yolo" if masks.startswith("labels") else None
    outcome = run(tmp_path / "set" / images, tmp_path / "set" / masks, tmp_path / "out", source)
    row = outcome.only()
    assert (row["category"], row["decision"], outcome.scan["unread"]) == ("cat", "refined", 0)


def test_labels_of_pose_are_boxes_with_key_points(tmp_path: Path) -> None:
    points = [0.3, 0.4, 0.5, 0.6, 0.7, 0.2]
    put_images(tmp_path / "set" / "images", "a.jpg")
    put(tmp_path / "set" / "labels" / "a.txt", f"0 0.5 0.5 0.5 0.5 {' '.join(map(str, points))}\n")
    put(tmp_path / "set" / "data.yaml", "kpt_shape: [3, 2]\nnames: [person]\n")
    outcome = run(tmp_path / "set" / "images", tmp_path / "set", tmp_path / "out")
    assert (outcome.pixels()["a#1"] == square()).all()
    assert json.loads(outcome.only()["extra"]) == {"keypoints": points}


@pytest.mark.parametrize("name", ["a.txt", "a.TXT"])
def test_files_of_windows(tmp_path: Path, name: str) -> None:
    """A byte order mark, and a line without corners first."""
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "masks" / name, f"0\r\n0 {POLYGON}\r\noops\r\n".encode("utf-8-sig"))
    put(tmp_path / "masks" / "classes.txt", "cat\r\n".encode("utf-8-sig"))
    outcome = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    rows = {row["source_mask_id"]: row for row in outcome.masks}
    assert (rows["a#1"]["category"], rows["a#2"]["category"], rows["a#3"]["reason"]) == (
        "cat",
        "cat",
        "mask_unreadable",
    )
    assert (outcome.pixels()["a#2"] == square()).all()


@pytest.mark.parametrize("bad", ["oops\n", f"0 {POLYGON}\noops\n", "\n", "0\n"])
def test_a_damaged_file_does_not_speak_for_a_folder(tmp_path: Path, bad: str) -> None:
    """Neither the first file nor any other one alone: most files of labels are sound."""
    put_images(tmp_path / "images", "a.jpg", "b.jpg")
    put(tmp_path / "own" / "a.txt", bad)
    put(tmp_path / "own" / "b.txt", f"0 {POLYGON}\n")
    outcome = run(tmp_path / "images", tmp_path / "own", tmp_path / "out")
    assert outcome.source == "yolo"
    assert (outcome.pixels()["b#1"] == square()).all()
