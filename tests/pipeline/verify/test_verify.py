"""`verify` on real outputs: silent on a sound one, and loud for every kind of damage."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import JobError, RefusedError
from pipeline.storage import Access
from pipeline.verify.check import verify
from pipeline.verify.files import Report
from schemas import layout
from tests.conftest import small_disk
from tests.pipeline.outputs import Output

CORPUS = {number: (number % 3, "") for number in range(1, 11)}  # 10 images, 10 masks, 4 chunks


def some_fail(name: str, attempt: int) -> str | None:
    """One image and one mask fail; the image comes back in round 1."""
    if name == "0003.jpg" and attempt == 0:
        return "storage"
    return "mask_unreadable" if name.startswith("f") else None


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """Two increments, one with a replaced image, and one retry round."""
    made = Output(tmp_path_factory.mktemp("sound") / "out")
    made.plan(CORPUS)
    made.refine(made.pending(), some_fail)
    made.refine(made.retry_tasks(), some_fail)
    made.plan({**CORPUS, 1: (2, "changed"), 11: (1, "")})
    made.refine(made.pending(), some_fail)
    made.seal()
    return made


@pytest.fixture
def output(sound: Output, tmp_path: Path) -> Output:
    """A copy to damage."""
    shutil.copytree(sound.folder, tmp_path / "out")
    return Output(tmp_path / "out")


def findings(output: Output) -> set[tuple[str, str]]:
    return {(one.kind, one.path) for one in check(output).findings}


def check(output: Output) -> Report:
    return verify(str(output.folder), Access())


def test_a_sound_output_has_no_findings_and_the_right_numbers(output: Output) -> None:
    report = check(output)
    assert report.findings == []
    assert report.notes == []
    rows = [mask for image in output.store.list("runs") if "/masks/" in image.path for mask in read(output, image.path)]
    failed = sum(row["decision"] == "failed" for row in rows)
    assert report.planned == {"images": 11, "masks": len(rows)} == {"images": 11, "masks": 12}
    assert report.failed == {"images": 0, "masks": failed}
    assert report.done == {"images": 11, "masks": 12 - failed}
    assert report.files == len(output.store.list())


def test_unfinished_work_is_pending_and_not_a_finding(output: Output) -> None:
    output.plan({**CORPUS, 1: (2, "changed"), 11: (1, ""), 12: (2, ""), 13: (1, "")})
    report = check(output)
    assert (report.findings, report.pending["images"]) == ([], 0)
    [note] = report.notes
    assert note.startswith("plan/2/")
    assert note.endswith(" is planned and not sealed yet")
    output.refine(output.pending(limit=12))
    assert check(output).findings == []
    output.seal()
    report = check(output)
    assert (report.findings, report.planned["images"], report.pending["images"]) == ([], 13, 2)


def every_file(output: Output) -> list[str]:
    return [file.path for file in output.store.list()]


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
def test_any_file_damaged_is_found_and_named(output: Output, damage: str) -> None:
    """Each file of the output in turn."""
    paths = every_file(output)
    assert {path.split("/")[0] for path in paths} == {"plan", "runs", "current.json"}
    for path in paths:
        file = output.folder / path
        whole = file.read_bytes()
        if damage == "missing":
            file.unlink()
        elif damage == "truncated":
            file.write_bytes(whole[: len(whole) // 2] if whole else b"x")
        else:
            middle = len(whole) // 2
            file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :] if whole else b"x")
        found = check(output).findings
        named = path if path != "current.json" or damage == "missing" else ""
        file.write_bytes(whole)
        assert found, f"{path} {damage} and not found"
        assert any(named in one.path for one in found), f"{path} {damage}, but {found} is named"
    assert check(output).findings == []


@pytest.mark.parametrize(
    "path",
    ["masks/0123456789abcdef0123456789abcdef.parquet", "images/x.parquet", "parts/0009-0000000-0123456789ab.parquet"],
)
def test_a_file_that_nothing_names_is_extra(output: Output, path: str) -> None:
    output.run.put(path, b"something")
    [(kind, where)] = findings(output)
    assert kind == "extra"
    assert where.endswith(path)
    output.run.delete(path)
    output.store.put("stray.txt", b"")
    assert findings(output) == {("extra", "stray.txt")}


def test_what_a_killed_run_leaves_is_a_note(output: Output) -> None:
    output.store.put("plan/2/bucket-0000-1023.parquet", b"half")
    output.run.put("seals/1/manifest.json", b"{}")
    output.run.put(layout.shard("masks", hashlib.sha256(b"unlisted").hexdigest()), b"unlisted")
    report = check(output)
    assert report.findings == []
    assert "3 files left by an interrupted run" in report.notes[0]


Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def read(output: Output, path: str) -> list[dict[str, Any]]:
    return pq.read_table(output.folder / path).to_pylist()


def forge(output: Output, kind: str, change: Change) -> str:
    """Change a shard's rows and every hash above it, as a wrong program would have written them."""
    current = json.loads((output.folder / "current.json").read_bytes())
    seal = output.folder / f"runs/{current['fingerprint']}/seals/{current['generation']}/{current['attempt']}"
    manifest = json.loads((seal / "manifest.json").read_bytes())
    entry = max(manifest[kind], key=lambda entry: entry["rows"])
    file = output.folder / entry["path"]
    table = pq.read_table(file)
    rows = change(table.to_pylist())
    names = {name for row in rows for name in row}
    schema = pa.schema([column for column in table.schema if column.name in names])
    pq.write_table(pa.Table.from_pylist(rows, schema), file)
    entry |= {"rows": len(rows), "bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (seal / "manifest.json").write_text(json.dumps(manifest))
    current["manifest_sha256"] = hashlib.sha256((seal / "manifest.json").read_bytes()).hexdigest()
    (output.folder / "current.json").write_text(json.dumps(current))
    return str(entry["path"])


def kept(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return next(row for row in rows if row["mask_rle"] is not None)


def setting(**values: Any) -> Change:
    """Change one row that has a mask."""

    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept(rows).update(values)
        return rows

    return change


def in_mask(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    row = kept(rows)
    row["mask_rle"] = {**row["mask_rle"], "size": [row["height"] + 1, row["width"]]}
    return rows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (setting(decision="maybe"), "unknown decision 'maybe'"),
        (setting(reason="because"), "unknown reason 'because'"),
        (setting(quality=1.5), "has quality 1.5"),
        (setting(quality=float("nan")), "has quality nan"),
        (setting(area=7), "has the area 7"),
        (setting(bbox_xywh=[0, 0, 1, 1]), "has the box [0.0, 0.0, 1.0, 1.0]"),
        (setting(mask_rle=None), "has no mask_rle"),
        (setting(coarse_rle={"size": [20, 30], "counts": "0"}), "coarse_rle that does not decode"),
        (in_mask, "mask_rle that does not decode"),
        (setting(mask_rle={"size": [20, 30], "counts": "hb0"}), "is not its"),
        (setting(decision="failed", reason="storage"), "failed, and has mask_rle"),
        (setting(image_uri=None), "has no image_uri"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_that_contradicts_itself_is_found(output: Output, change: Change, words: str) -> None:
    path = forge(output, "masks", change)
    found = [one for one in check(output).findings if one.kind == "row"]
    assert {one.path for one in found} == {path}
    assert any(words in one.detail for one in found), found


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("masks", lambda rows: rows[1:], "is planned and not there"),
        ("masks", lambda rows: [*rows, rows[0]], "is there 2 times"),
        ("masks", setting(mask_id="0" * 32), "was not planned"),
        ("images", lambda rows: rows[1:], "is planned and not there"),
        ("images", lambda rows: [*rows, rows[0]], "is there 2 times"),
        ("images", lambda rows: [{**rows[0], "image_id": "stranger.jpg"}, *rows[1:]], "was not planned"),
        ("images", lambda rows: [{**rows[0], "masks": 9}, *rows[1:]], "says it has 9 masks"),
        (
            "images",
            lambda rows: [{**row, "status": "failed", "reason": "storage"} for row in rows],
            "masks that did not",
        ),
    ],
)
def test_lost_doubled_and_strange_rows_are_found(output: Output, kind: str, change: Change, words: str) -> None:
    forge(output, kind, change)
    found = [one for one in check(output).findings if one.kind == "accounting"]
    assert any(words in one.detail for one in found), found


@pytest.mark.parametrize("change", [lambda rows: [{k: v for k, v in row.items() if k != "area"} for row in rows]])
def test_another_schema_is_found(output: Output, change: Change) -> None:
    path = forge(output, "masks", change)
    assert ("schema", path) in findings(output)


def test_many_findings_of_one_kind_are_counted(output: Output) -> None:
    forge(output, "masks", lambda rows: [{**row, "reason": "because"} for row in rows * 4])
    found = [one.detail for one in check(output).findings if one.kind == "row"]
    assert len(found) == 6
    assert "more like this" in found[-1]


def test_where_nothing_was_sealed_there_is_nothing_to_verify(output: Output, tmp_path: Path) -> None:
    for folder in (tmp_path / "empty", output.folder.parent):  # the folder around a result is none
        with pytest.raises(RefusedError, match="nothing to verify"):
            verify(str(folder), Access())


def test_a_full_disk_for_temporary_files_is_one_line(
    sound: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", "8k") as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(JobError, match=f"no room for temporary files in {disk}: .*No space left"):
            verify(sound.store.uri, Access())
        assert not list(disk.iterdir())
