"""No secret of a URI reaches a file or a line: given as an option it is refused, inside annotations it is taken out."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from jobs import cli
from jobs.json_log import JsonLog
from pipeline.calibration.files import calibration_for
from pipeline.dataset import open_result
from pipeline.errors import RefusedError
from pipeline.exports import EXPORTS
from pipeline.exports.driver import export
from pipeline.exports.types import Options
from pipeline.models import NoModel
from pipeline.planning.increment import ChunkLimits, plan
from pipeline.planning.scans import coverage_for, record
from pipeline.report.page import report
from pipeline.request import Wanted, make_request
from pipeline.sources import SourceInput, scan
from pipeline.storage import Access, Store, split_uri
from pipeline.storage.lease import unguarded
from schemas.config import Gate, Method
from tests.conftest import DEMO
from tests.pipeline.whole import coco, run_here

SECRET = "hUnter2hUnter2"
SIGNED = f"https://photos.example.org/train/astronaut.jpg?Expires=9&X-Amz-Signature={SECRET}"
OWNED = f"https://bob:{SECRET}@photos.example.org/coffee.jpg"
URIS = (
    f"http://bob:{SECRET}@127.0.0.1:9/x",
    f"s3://AKIA:{SECRET}/x@bucket/x",
    f"http://127.0.0.1:9/x.json?sig={SECRET}",
)
OPTIONS = {
    "plan": ("--masks", "--images", "--output", "--checkpoint", "--adapter", "--config", "--endpoint-url"),
    "export": ("--to", "--images", "--endpoint-url"),
    "report": ("--to", "--ground-truth"),
    "inspect": ("--masks",),
}


@pytest.fixture
def handlers() -> Any:
    """What `main` does to signals ends with the test."""
    before = {number: signal.getsignal(number) for number in cli.ENDED_BY}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("command", "option"), [(name, option) for name, all_ in OPTIONS.items() for option in all_])
@pytest.mark.usefixtures("handlers")
def test_an_option_with_a_secret_is_refused_in_one_line(
    command: str, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for uri in URIS:
        monkeypatch.setattr("sys.argv", ["relabel", command, option, uri])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert ended.value.code == 2
        assert SECRET not in said.out + said.err
        assert "environment" in " ".join(said.err.split())


@pytest.mark.parametrize("uri", URIS)
def test_python_callers_are_refused_as_well(uri: str, tmp_path: Path) -> None:
    good = {"masks": str(DEMO / "coarse.json"), "images": str(DEMO / "images"), "output": str(tmp_path / "out")}
    for name in ("masks", "images", "output", "checkpoint", "adapter", "config"):
        with pytest.raises(RefusedError, match="credentials") as refused:
            make_request(Wanted(**{**good, "source": "coco", name: uri}))
        assert SECRET not in str(refused.value)
    for opened in (Store, Access, lambda given: split_uri(given, Access())):
        with pytest.raises(RefusedError, match="credentials"):
            opened(uri)
    with pytest.raises(RefusedError, match="credentials"):
        calibration_for(Gate(calibration=uri), Method(), Access())
    assert not any(SECRET in text for text in texts(tmp_path))


def texts(folder: Path) -> list[str]:
    """Every file below a folder, Parquet unpacked, and every name of one."""
    import pyarrow.parquet as pq

    found = []
    for path in folder.rglob("*"):
        found.append(str(path))
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            found += [json.dumps(table.to_pylist(), default=str), str(table.schema.metadata)]
        elif path.is_file():
            found.append(path.read_bytes().decode("latin-1"))
    return found


def hostile(folder: Path) -> Path:
    """The demo's annotations with signed addresses wherever a file of that kind has an address."""
    content = json.loads((DEMO / "coarse.json").read_text())
    images = [{**image, "coco_url": SIGNED, "flickr_url": OWNED} for image in content["images"]]
    number = 1 + max(image["id"] for image in images)
    images += [{"id": number, "file_name": SIGNED}, {"id": number + 1, "file_name": OWNED}]
    annotations = [
        *({**one, "source": SIGNED} for one in content["annotations"]),
        {"id": SIGNED, "image_id": images[0]["id"], "segmentation": [[5, 5, 90, 5, 90, 90]]},
        {"id": OWNED, "image_id": number, "segmentation": {"size": [9, 9], "counts": SIGNED}},
        {"id": 9999, "image_id": images[1]["id"], "segmentation": {"size": SIGNED, "counts": OWNED}},
        {"id": 9998, "image_id": SIGNED, "segmentation": OWNED},
    ]
    path = coco(folder / "c.json", images, annotations)
    whole = {**json.loads(path.read_text()), "info": {"url": OWNED}, "licenses": [{"url": SIGNED}]}
    whole["categories"] = [{"id": 1, "name": f"thing {SIGNED}"}]
    path.write_text(json.dumps(whole))
    return path


def test_nothing_that_is_written_or_said_holds_a_secret_of_the_annotations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = hostile(tmp_path), tmp_path / "out"
    result = run_here(DEMO / "images", given, out, NoModel(), Method(refiner="none"))
    store, images = Store(str(out)), Store(str(DEMO / "images"))
    listed = {file.path: file for file in images.list()}
    coverage = coverage_for(store, images.uri, str(given), "coco", ())
    entered = SourceInput(str(given), Access(), listed, coverage=coverage, images_uri=images.uri)
    plan(store, scan("coco", entered), listed, ChunkLimits(16, 1 << 28))
    scanned = record(store, entered, "coco", unguarded)
    JsonLog("run").event("covered", scan=scanned, detail=SIGNED)
    (tmp_path / "out" / "page.html").write_text(report(str(out)).html)
    refused = set()
    for name in EXPORTS:
        try:
            export(open_result(str(out)), Store(str(out / "exports" / name)), images, name, Options())
        except RefusedError as error:
            refused.add(str(error))
    assert not any(SECRET in text for text in refused)
    assert len(refused) < len(EXPORTS)
    found = texts(out)
    assert result.manifest.counts.images["ok"] == 5
    assert not any(SECRET in text for text in found)
    assert any("X-Amz-Signature=***" in text for text in found)
    assert any("***@photos.example.org" in text for text in found)
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert "***" in said.err


def test_lvis_names_its_images_without_what_signs_their_address(tmp_path: Path) -> None:
    content = json.loads((DEMO / "coarse.json").read_text())
    for image in content["images"]:
        image["coco_url"] = f"https://photos.example.org/train/{image.pop('file_name')}?X-Amz-Signature={SECRET}"
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(content))
    listed = {file.path: file for file in Store(str(DEMO / "images")).list()}
    found = {image.image_uri for image in scan("lvis", SourceInput(str(path), Access(), listed))}
    assert found == set(listed)
