"""Patches from a file to the sealed result and back: each action, verdicts, and what cannot be applied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.corrections import patch_file
from pipeline.corrections.patch import Patched, connected_pieces, patch
from pipeline.dataset import findings, overlays
from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.storage import Access
from pipeline.storage.lease import unguarded
from pipeline.verify.check import verify
from tests.pipeline.corrections.way_back import files, ids, relabel, rows, sealed
from tests.pipeline.outputs import SIZE_HW, Output

NEW = np.zeros(SIZE_HW, np.uint8)
NEW[10:18, 20:29] = 1
AGAIN = ("--kind", "duplicate", "--duplicate-iou", "0.5")
TWO = np.zeros(SIZE_HW, np.uint8)
TWO[1:5, 1:5] = TWO[10:19, 10:19] = 1


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return sealed(tmp_path)


def write(path: Path, *patches: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"kind": "relabel-patches", "schema_version": 1, "patches": patches}))
    return path


def kept(output: Output, path: Path, name: str | None = None) -> Patched:
    return patch(output.store.uri, str(path), name, Access(), unguarded)


def of(output: Output, source_id: str, action: str, **more: Any) -> dict[str, Any]:
    """A patch of one of the result's masks."""
    return {"action": action, "image_id": f"000{source_id[0]}.jpg", "mask_id": ids(output)[source_id], **more}


def test_every_action_comes_to_the_result_and_is_taken_back(output: Output, tmp_path: Path) -> None:
    assert relabel("seal", output.folder).exit_code == 0
    before, first = rows(output), files(output)
    halves = [NEW.copy(), NEW.copy()]
    halves[0][:, 24:] = 0
    halves[1][:, :24] = 0
    path = write(
        tmp_path / "by-hand.json",
        of(output, "0-0", "remove"),
        of(output, "0-1", "class", category="cup"),
        of(output, "0-2", "crowd"),
        of(output, "1-0", "split", rles=[binary.encode(half) for half in halves]),
        {"action": "add", "image_id": "0003.jpg", "category": "thing", "rle": binary.encode(NEW)},
        of(output, "2-0", "remove", verdict="no"),
    )
    done = relabel("patch", output.folder, "--from", path)
    assert done.exit_code == 0, done.output
    assert "by-hand: 2 added, 2 marked, 1 removed, 1 replaced" in done.stdout
    assert "not applied: 1 with the verdict no" in done.stdout
    assert files(output) == first
    assert relabel("seal", output.folder).exit_code == 0
    after = rows(output)
    assert before.keys() - after.keys() == {"0-0"}
    assert after.keys() - before.keys() == {"by-hand/1-0.1", "by-hand/patch-4"}
    assert (after["0-1"]["category"], after["0-1"]["category_id"]) == ("cup", 2)
    same = ("mask_rle", "decision", "reason", "quality", "refined_rle")
    assert {name: after["0-1"][name] for name in same} == {name: before["0-1"][name] for name in same}
    assert (after["0-2"]["crowd"], after["0-2"]["quality"]) == (True, None)
    assert after["1-0"]["mask_rle"] == binary.encode(halves[0])
    assert after["by-hand/1-0.1"]["mask_rle"] == binary.encode(halves[1])
    split_from = json.loads(after["by-hand/1-0.1"]["extra"])["split_from"]
    assert split_from == after["1-0"]["mask_id"]
    assert after["by-hand/patch-4"]["mask_rle"] == binary.encode(NEW)
    assert after["0-1"]["detail"] == "marked in overlay by-hand"
    assert {name: row for name, row in after.items() if name[0] == "2"} == {
        name: row for name, row in before.items() if name[0] == "2"
    }
    report = verify(output.store.uri, Access())
    assert (report.findings, report.notes) == ([], [])
    assert (
        "by-hand: sealed: 2 added, 2 marked, 1 removed, 1 replaced\n"
        in relabel("review", output.folder, "--list").stdout
    )
    assert relabel("review", output.folder, "--undo", "by-hand").exit_code == 0
    assert relabel("seal", output.folder).exit_code == 0
    assert files(output) == first


def test_several_patches_of_one_mask_add_up(output: Output, tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", of(output, "0-1", "class", category="cup"), of(output, "0-1", "crowd"))
    assert kept(output, path).counts == {"marked": 1}
    output.seal(shard_bytes=1)
    row = rows(output)["0-1"]
    assert (row["category"], row["crowd"]) == ("cup", True)


def test_findings_come_back_judged(output: Output, tmp_path: Path) -> None:
    to = tmp_path / "found.parquet"
    assert relabel("findings", output.folder, *AGAIN, "--as-patches", to).exit_code == 0
    found = findings.latest(rows_of(output))
    assert found is not None
    assert found.rows.num_rows >= 3
    entries = patch_file._of_parquet(to.read_bytes(), "")
    for entry, verdict in zip(entries, ("yes", "no", ""), strict=False):
        entry["verdict"] = verdict
    to.write_bytes(patch_file.write(entries, str(to)))
    done = relabel("patch", output.folder, "--from", to)
    assert done.exit_code == 0, done.output
    assert "found: 1 removed" in done.stdout
    assert "kept 2 verdicts on findings" in done.stdout
    assert f"not applied: 1 with the verdict no, {len(entries) - 2} findings without a verdict" in done.stdout
    output.seal(shard_bytes=1)
    assert entries[0]["mask_id"] not in ids(output).values()
    assert relabel("findings", output.folder, *AGAIN).exit_code == 0
    again = findings.latest(rows_of(output))
    assert again is not None
    assert {row["finding_id"] for row in again.rows.to_pylist() if row["verdict"] == "wrong"} == {
        entries[1]["finding_id"]
    }
    report = verify(output.store.uri, Access())
    assert (report.findings, report.notes) == ([], [])


def rows_of(output: Output) -> Any:
    from pipeline.dataset import open_result

    return open_result(output.store.uri)


def test_what_cannot_be_applied_is_named_and_the_rest_is(output: Output, tmp_path: Path) -> None:
    other = binary.encode(np.ones((5, 5), np.uint8))
    path = write(
        tmp_path / "p.json",
        of(output, "0-0", "remove"),
        of(output, "0-0", "crowd"),
        of(output, "1-0", "split"),
        {"action": "remove", "image_id": "9.jpg", "mask_id": "x"},
        {"action": "remove", "image_id": "0000.jpg", "mask_id": "x"},
        {"action": "add", "image_id": "0000.jpg", "category": "thing", "rle": other},
        {"action": "add", "image_id": "0000.jpg", "rle": binary.encode(NEW)},
        {"action": "add", "image_id": "0000.jpg", "category": "thing", "rle": {"size": [20, 30], "counts": "x"}},
        {"action": "add", "image_id": "0000.jpg", "category": "thing", "rle": binary.encode(0 * NEW)},
        {"action": "add", "image_id": "0000.jpg", "category": "thing"},
        of(output, "0-1", "class"),
    )
    done = relabel("patch", output.folder, "--from", path)
    assert done.exit_code == 3, done.output
    assert "p: 1 removed" in done.stdout
    for said in (
        "patch 1, crowd",
        "the mask is in one piece",
        "the image is not in the result",
        "its mask is of 5x5, the image of 30x20",
        "it has no `category`",
        "no pixel is set",
        "it has no `rle`",
    ):
        assert said in done.stderr
    assert done.stderr.count("not taken:") == 10


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "no file of patches"),
        ({"action": "melt", "image_id": "a"}, "unknown action 'melt'"),
        ({"action": "remove"}, "patch 0: image_id: Field required"),
        (3, "patch 0: "),
        ({"action": "remove", "image_id": "a", "mask_id": "b", "verdict": "maybe"}, "'maybe' is neither yes nor no"),
        (
            {"action": "remove", "image_id": "a", "mask_id": "b", "verdict": "no"},
            "nothing in it is to be applied: 1 rej",
        ),
    ],
)
def test_a_file_that_is_none_is_refused(output: Output, tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(content) if isinstance(content, str) else write(path, content)
    with pytest.raises(RefusedError, match=said):
        kept(output, path)
    assert overlays.listed(output.store) == {}


def test_pieces_keep_their_specks() -> None:
    mask = TWO.copy()
    mask[0, 29] = 1
    pieces = [binary.decode(rle) for rle in connected_pieces(binary.encode(mask))]
    assert [int(piece.sum()) for piece in pieces] == [82, 16]
    assert (pieces[0] + pieces[1] == mask).all()
