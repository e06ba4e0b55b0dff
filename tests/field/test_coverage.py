"""Nothing unread in silence: every file and entry is read, or named; what cannot be meant is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.errors import RefusedError
from pipeline.planning.coverage import content
from pipeline.sources import detect
from pipeline.sources.coverage import Coverage
from pipeline.sources.scan_table import lines
from pipeline.storage import Store
from pipeline.verify.check import verify
from schemas import layout
from tests.field.world import RING, Outcome, coco, encoded, photograph, put, put_images, run, square

MASK = square() * 255
Names = dict[str, bytes]


def plan(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["plan", *map(str, words)])


LABELME = {"version": "5.0", "shapes": [{"label": "thing", "points": [[5, 5], [30, 5]]}], "imagePath": "a.jpg"}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", {**LABELME, "shapes": []}),
        ("b.json", {"objects": "of nobody's format"}),
        ("annotations.xml", "<annotations/>"),
        ("a.xml", "<annotation/>"),
        ("train/_annotations.coco.json", coco({"file_name": "a.jpg"})),
        ("notes.txt", "nothing to see"),
        ("", None),
    ],
)
def test_no_mask_at_all_is_refused_with_what_is_there(tmp_path: Path, name: str, data: Any) -> None:
    put_images(tmp_path / "images", "a.jpg")
    (tmp_path / "masks").mkdir()
    if name:
        put(tmp_path / "masks" / name, data)
    with pytest.raises(RefusedError, match="no mask at all") as refused:
        run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert name in str(refused.value)
    assert not Store(str(tmp_path / "out")).list("plan")


def test_a_folder_of_photographs_alone_is_refused(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg", "b.jpg")
    put(tmp_path / "images" / "a.json", {"caption": "a cat"})
    with pytest.raises(RefusedError, match=r"2 \.jpg"):
        run(tmp_path / "images", tmp_path / "images", tmp_path / "out")


def test_masks_of_no_image_are_refused_with_both_sides(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "cat.jpg")
    put(tmp_path / "masks" / "dog.png", MASK)
    with pytest.raises(RefusedError, match=r"--masks has dog\.png, --images has cat\.jpg"):
        run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")


@pytest.mark.parametrize(
    "other", [("a.txt", "0 0.5 0.5 0.2 0.2\n"), ("a.npy", b"x"), ("t.tar", b"x"), ("t.parquet", b"x")]
)
def test_two_formats_that_fit_are_refused(tmp_path: Path, other: tuple[str, Any]) -> None:
    put(tmp_path / "masks" / "a.png", MASK)
    put(tmp_path / "masks" / other[0], other[1])
    with pytest.raises(RefusedError, match="fits two formats"):
        detect(str(tmp_path / "masks"))


def test_a_format_that_the_folder_contradicts_is_refused(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "masks" / "a.png", MASK)
    for source in ("yolo", "cam", "voc"):
        with pytest.raises(RefusedError, match="no mask at all"):
            run(tmp_path / "images", tmp_path / "masks", tmp_path / "out", source)


def folder(tmp_path: Path) -> tuple[Path, Path]:
    put_images(tmp_path / "images", "a.jpg", "b.jpg", "c.jpg")
    put(tmp_path / "masks" / "a.png", MASK)
    return tmp_path / "images", tmp_path / "masks"


def test_the_command_says_what_it_left_and_ends_with_3(tmp_path: Path) -> None:
    images, masks = folder(tmp_path)
    for name in ("a.json", "b.json", ".DS_Store", "README.md", "LICENSE", "notes.txt"):
        put(masks / name, "x")
    words = ("--images", images, "--masks", masks, "--output", tmp_path / "out")
    done = plan(*words)
    assert done.exit_code == 3, done.output
    assert "2 .json NOT read" in done.output
    assert "by its name" in done.output
    assert plan(*words, "--max-unread", "3").exit_code == 0
    assert plan(*words, "--max-unread", "2").exit_code == 3
    assert plan(*words, "--ignore", "*.json").exit_code == 3
    meant = plan(*words, "--ignore", "*.json", "--ignore", "notes.*", "--json")
    assert meant.exit_code == 0, meant.output
    assert json.loads(meant.stdout)["scan"]["unread"] == 0
    refused = plan("--images", images, "--masks", tmp_path / "images", "--output", tmp_path / "none")
    assert refused.exit_code != 0
    assert isinstance(refused.exception, RefusedError | SystemExit)


def test_an_unchanged_night_has_the_same_scan(tmp_path: Path) -> None:
    images, masks = folder(tmp_path)
    put(masks / "a.json", "{}")
    first, second = (run(images, masks, tmp_path / "out") for _ in range(2))
    other = run(images, masks, tmp_path / "other")
    assert first.scan == second.scan == other.scan
    scans, others = (
        {path.name: path.read_bytes() for path in (tmp_path / output / "scans").glob("*/*")}
        for output in ("out", "other")
    )
    assert scans == others
    assert len(scans) == 2
    assert second.result.manifest.generation == 0


def test_the_scan_is_in_the_manifest_and_verified(tmp_path: Path) -> None:
    images, masks = folder(tmp_path)
    put(masks / "a.json", "{}")
    outcome = run(images, masks, tmp_path / "out")
    named = outcome.result.manifest.scan
    assert named is not None
    assert named.unread == 1
    rows = pq.read_table(tmp_path / "out" / layout.unread(named.path)).to_pylist()
    assert [row["name"] for row in rows if row["state"] == "unread"] == ["a.json"]
    put(tmp_path / "out" / named.path, "{}")
    assert any(finding.path == named.path for finding in verify(str(tmp_path / "out"), Store("x").access).findings)


@pytest.mark.skipif(os.name != "posix", reason="links and pipes are those of POSIX")
def test_links_and_what_is_no_file(tmp_path: Path) -> None:
    images, masks = folder(tmp_path)
    put(tmp_path / "elsewhere" / "x.png", MASK)
    put_images(tmp_path / "photographs", "x.jpg")
    (images / "linked").symlink_to(tmp_path / "photographs")
    (masks / "linked").symlink_to(tmp_path / "elsewhere")
    (masks / "linked" / "back").symlink_to(masks)
    (masks / "b.png").symlink_to(tmp_path / "nowhere.png")
    (masks / "c.png").symlink_to(masks / "a.png")
    os.mkfifo(masks / "pipe.png")
    outcome = run(images, masks, tmp_path / "out")
    rows = {row["source_mask_id"]: row for row in outcome.masks}
    assert {name for name, row in rows.items() if row["decision"] == "refined"} == {"a", "c", "linked/x"}
    assert (rows["b"]["reason"], rows["b"]["detail"].partition(":")[0]) == ("mask_missing", "gone")
    assert sorted(outcome.said("unread")["no file"]) == ["linked/back", "pipe.png"]


def test_images_that_are_not_decoded_are_named(tmp_path: Path) -> None:
    images, masks = folder(tmp_path)
    put(images / "d.heic", b"x")
    outcome = run(images, masks, tmp_path / "out")
    assert outcome.said("unread", "images") == {"an image of a format that is not decoded": ["d.heic"]}
    assert outcome.scan["unread"] == 1


def test_coverages_of_two_parts_are_one() -> None:
    whole, first, second = Coverage(), Coverage(), Coverage()
    for coverage, names in ((first, "cab"), (second, "zyd")):
        for one in (whole, coverage):
            for name in names:
                one.take(f"{name}.png")
                one.leave(f"{name}.x", "no mask")
                one.category(1, "thing")
    first.merge(second)
    assert content(first, "png") == content(whole, "png")
    assert list(first.left()) == list(whole.left())


def test_the_table_says_what_matters(tmp_path: Path) -> None:
    images, masks = folder(tmp_path)
    for name in ("a.json", "b.json"):
        put(masks / name, "x")
    for number in range(3):
        put(masks / f"lost{number}.png", MASK)
    said = "\n".join(lines(run(images, masks, tmp_path / "out").scan))
    assert "--masks 4 files and entries read, 2 NOT read" in said
    assert "ONLY 1 of 4 mask files" in said
    assert "masks: 4 of category 1" in said


# Generated folders: files of every kind, somewhere below --masks. Whatever they are, none is left out in silence.

PIECES: Names = {
    "a.png": encoded(MASK),
    "sub/b.png": encoded(np.full((64, 96), 3, np.uint8)),
    "c.gif": encoded(MASK, "GIF"),
    "broken.png": b"\x89PNG no",
    "empty.png": b"",
    "d.jpg": encoded(MASK, "JPEG"),
    "photo.webp": encoded(photograph(), "WEBP"),
    "e.txt": b"0 0.25 0.25 0.75 0.25 0.75 0.75\n",
    "caption.txt": b"a cat",
    "f.json": json.dumps(LABELME).encode(),
    "g.xml": b"<annotation/>",
    "h.npy": b"\x93NUMPY no",
    "README.md": b"x",
    ".DS_Store": b"x",
    "labels/i.txt": b"1 0.5 0.5 0.2 0.2\n",
    "data.yaml": b"names: [a, b]\n",
    "j.tar.gz": b"x",
    "no suffix": b"x",
    "k.heic": b"x",
    "l.csv": b"a,b\n",
    "classes.txt": b"a\nb\n",
    "labelmap.txt": b"background:0,0,0::\n",
    "m_gtFine_instanceIds.png": encoded(np.full((64, 96), 26001, np.uint16)),
    "m_gtFine_color.png": encoded(photograph()),
    "deep/er/n.tif": encoded(MASK, "TIFF"),
    "ü 猫.png": encoded(MASK),
    "metadata.jsonl": json.dumps({"file_name": "a.jpg", "segmentation": [RING]}).encode(),
}
SOURCES = [
    None,
    "png",
    "instances",
    "class-maps",
    "yolo",
    "cam",
    "voc",
    "image-folder",
    "webdataset",
    "parquet",
    "labelme",
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(names=st.sets(st.sampled_from(sorted(PIECES)), min_size=1, max_size=9), source=st.sampled_from(SOURCES))
def test_whatever_lies_there_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], source: str | None
) -> None:
    root = tmp_path_factory.mktemp("mixed")
    put_images(root / "images", *(f"{Path(name).with_suffix('')}.jpg" for name in names), "other.jpg")
    for name in names:
        put(root / "masks" / name, PIECES[name])
    try:
        outcome = run(root / "images", root / "masks", root / "out", source)
    except RefusedError as refused:
        said = str(refused)
    else:
        said = ""
        check_all_named(outcome, root / "out", {*names})
    assert "\n" not in said  # one line, exit code 2


def check_all_named(outcome: Outcome, output: Path, names: set[str]) -> None:
    """read + named = there; and the exit code is 0 only where nothing is left that nobody ignored."""
    scan = outcome.result.manifest.scan.path
    rows = pq.read_table(output / layout.unread(scan)).to_pylist()
    named = {row["name"] for row in rows if row["root"] == "masks"}
    assert named <= names
    files_of_masks = [
        t
        for t in outcome.scan["found"]
        if t["root"] == "masks" and t["state"] == "read" and t["kind"].startswith((".", "no"))
    ]
    assert sum(tally["count"] for tally in files_of_masks) + len(named) == len(names), (rows, outcome.scan["found"])
    assert outcome.scan["unread"] == sum(row["state"] == "unread" for row in rows)
    left = {row["name"] for row in rows if row["root"] == "masks" and row["state"] == "unread"}
    assert outcome.scan["unread"] >= len(left)


def test_what_an_export_keeps_beside_the_masks_is_no_mask(tmp_path: Path) -> None:
    put_images(tmp_path / "images", "a.jpg")
    put(tmp_path / "masks/a.png", square() * 255)
    for name in (".relabel-export/job.json", ".relabel-export/done/000000.json", "export.json", "other/export.json"):
        put(tmp_path / "masks" / name, {})
    outcome = run(tmp_path / "images", tmp_path / "masks", tmp_path / "out")
    assert outcome.said("ignored") == {
        "of an export by relabel": [".relabel-export/done/000000.json", ".relabel-export/job.json", "export.json"]
    }
    assert [name for names in outcome.said("unread").values() for name in names] == ["other/export.json"]


def test_names_with_ends_of_lines_break_no_line_of_the_table(tmp_path: Path) -> None:
    content = coco({"file_name": "a.jpg"})
    content["categories"] = [{"id": 1, "name": "cat\nno: more"}]
    put_images(tmp_path / "images", "a.jpg", "b\nc.jpg")
    outcome = run(tmp_path / "images", put(tmp_path / "x.json", content), tmp_path / "out")
    said = lines(outcome.scan)
    assert not any("\n" in line for line in said)
    assert any(r"cat\nno: more" in line for line in said)
