"""What comes back altered, incomplete, or from an export that is no longer the newest."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from pipeline.dataset import overlays
from pipeline.dataset.verdicts import digest, rejected
from pipeline.errors import RefusedError
from pipeline.exports.types import Options
from pipeline.output.corrected import lay_over
from pipeline.storage import Access
from pipeline.verify.check import verify
from tests.pipeline.corrections.way_back import (
    GONE,
    MOVED,
    RING,
    as_polygon,
    attribute,
    back,
    corrected_once,
    edit,
    edited,
    exported,
    ids,
    of_mask,
    polygon,
    relabel,
    rows,
)
from tests.pipeline.outputs import Output


def first_finding(output: Output) -> tuple[str, str]:
    found = verify(output.store.uri, Access()).findings[0]
    return found.kind, found.path


def test_an_overlay_that_was_altered_is_a_finding(output: Output, tmp_path: Path) -> None:
    found = back(output, edited(exported(output, tmp_path / "cvat", "cvat"), lambda root: edit(output, root)))
    output.seal(shard_bytes=1)
    path = output.folder / found.path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert first_finding(output) == ("altered", found.path)
    path.unlink()
    assert first_finding(output) == ("missing", found.path)


def test_what_cannot_be_read_stays_and_is_named(output: Output, tmp_path: Path) -> None:
    own = ids(output)

    def spoil(root: Element) -> None:
        as_polygon(of_mask(root, own[MOVED])[0], [1, 1, 2, 2])
        of_mask(root, own["1-0"])[1].attrib["width"] = "31"
        of_mask(root, own["2-0"])[1].attrib["name"] = "elsewhere.jpg"
        as_polygon(of_mask(root, own["3-0"])[0], RING)

    path = edited(exported(output, tmp_path / "cvat", "cvat"), spoil)
    done = relabel("review", output.folder, "--from", path)
    assert done.exit_code == 3, done.output
    assert "back: 1 replaced, in 2 images" in done.stdout
    for said in (f"mask {own[MOVED]}: ", "0001.jpg is 31x20 in the file and 30x20", "elsewhere.jpg is not in the"):
        assert said in done.stderr


@pytest.mark.parametrize("options", [Options(where="area < 150"), Options(min_quality=0.5)])
def test_masks_that_were_not_sent_are_not_gone(output: Output, tmp_path: Path, options: Options) -> None:
    sent = exported(output, tmp_path / "cvat", "cvat", options)

    def draw(root: Element) -> None:
        as_polygon(next(mask for image in root.iter("image") for mask in image), RING)

    found = back(output, edited(sent, draw), sent=str(sent))
    assert found.counts["replaced"] == 1
    assert "removed" not in found.counts


def test_a_file_without_most_masks_is_asked_about(output: Output, tmp_path: Path) -> None:
    def empty(root: Element) -> None:
        for image in root.iter("image"):
            for mask in list(image):
                image.remove(mask)

    path = edited(exported(output, tmp_path / "cvat", "cvat"), empty)
    with pytest.raises(RefusedError, match=r"remove 10 of the 10 masks.*--sent"):
        back(output, path)
    assert back(output, path, allow_removals=True).counts == {"removed": 10}
    output.seal(shard_bytes=1)
    assert rows(output) == {}
    assert verify(output.store.uri, Access()).findings == []


def test_an_image_that_has_changed_keeps_its_masks(output: Output, tmp_path: Path) -> None:
    back(output, edited(exported(output, tmp_path / "cvat", "cvat"), lambda root: edit(output, root)))
    before = rows(output)[MOVED]
    [overlay] = overlays.standing(output.store)
    changes = [change for change in overlay.changes if change["action"] == "replaced"]
    image = {"image_id": "0000.jpg", "status": "ok", "masks": 1, "height": 40, "width": 60}
    [other], [mask] = lay_over(changes, [image], [before])
    assert other == image
    assert mask["mask_rle"] == before["mask_rle"]
    assert mask["detail"] == "overlay back was not applied: its mask is of 30x20, the image of 60x40"


def test_a_corrected_mask_is_no_longer_rejected(output: Output, tmp_path: Path) -> None:
    row = rows(output)[MOVED]
    verdict = {"mask_id": row["mask_id"], "digest": digest(row), "verdict": "reject", "strata": []}
    page = tmp_path / "verdicts.json"
    page.write_text(json.dumps({"kind": "relabel-verdicts", "schema_version": 1, "verdicts": [verdict]}))
    path = edited(exported(output, tmp_path / "cvat", "cvat"), lambda root: edit(output, root))
    assert relabel("review", output.folder, page).exit_code == 0
    assert rejected(output.store.uri) == {row["mask_id"]}
    back(output, path)
    output.seal(shard_bytes=1)
    assert rejected(output.store.uri) == frozenset()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give one of"),
        (("a.json", "--list"), "give one of"),
        (("--from", "a.xml", "--undo", "x"), "give one of"),
        (("--undo", "nobody"), "there are: none"),
        (("--from", "x.zip"), "unpack the archive"),
        (("--from", "no/such.xml"), "the corrections no/such.xml do not exist"),
    ],
)
def test_what_cannot_be_meant_is_refused(output: Output, words: tuple[str, ...], said: str) -> None:
    refused = relabel("review", output.folder, *words).exception
    assert isinstance(refused, RefusedError)
    assert said in str(refused)


def test_a_coco_file_is_no_correction(output: Output, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="is coco; corrections come back as cvat or label-studio"):
        back(output, exported(output, tmp_path / "coco", "coco"))


def test_a_name_is_no_path(output: Output, tmp_path: Path) -> None:
    path = edited(exported(output, tmp_path / "cvat", "cvat"), lambda root: edit(output, root))
    for name in ("../x", "a b", "", ".hidden"):
        with pytest.raises(RefusedError, match="letters"):
            back(output, path, name=name or " ")
    back(output, path, name="fine")
    with pytest.raises(RefusedError, match="give another --name"):
        back(output, path, name="fine")


def test_a_mask_that_somebody_removed_since_is_named(output: Output, tmp_path: Path) -> None:
    own, sent = corrected_once(output, tmp_path)

    def redraw(root: Element) -> None:
        as_polygon(of_mask(root, own[GONE])[0], RING)
        as_polygon(of_mask(root, own["2-0"])[0], RING)

    found = back(output, edited(sent, redraw), sent=str(sent))
    assert found.counts == {"kept": 2, "replaced": 1}
    assert found.unread == [f"image 0000.jpg, mask {own[GONE]}: the result has no such mask (any more)"]


def test_a_mask_copied_to_another_image_is_added_there(output: Output, tmp_path: Path) -> None:
    own = ids(output)

    def propagate(root: Element) -> None:
        copy = polygon(of_mask(root, own["1-0"])[1], "thing", RING)
        attribute(copy, "mask_id").text = own[MOVED]

    assert back(output, edited(exported(output, tmp_path / "cvat", "cvat"), propagate)).counts["added"] == 1
