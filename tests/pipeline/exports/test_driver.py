"""An export goes on where it stopped, refuses what would mix, takes what the filters say; and the command does so."""

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.export import parse_decisions, parse_splits
from pipeline.dataset import Result
from pipeline.errors import RefusedError
from pipeline.exports import EXPORTS, driver
from pipeline.exports.types import Export
from pipeline.storage import Access, Store
from tests.conftest import Cli
from tests.pipeline.exports.results import ImageCase, MaskCase, make_result, write

PIXELS = np.ones((4, 4), np.uint8)
EMPTY = np.zeros((4, 4), np.uint8)


@pytest.fixture
def result(tmp_path: Path) -> Result:
    """Six images in three shards; one without masks, one whose only mask failed."""
    images = [
        ImageCase("0.png", (4, 4), [MaskCase(PIXELS, quality=0.9), MaskCase(PIXELS, quality=0.2)]),
        ImageCase("1.png", (4, 4), []),
        ImageCase("2.png", (4, 4), [MaskCase(EMPTY)]),
        ImageCase("3.png", (4, 4), [MaskCase(PIXELS, 2, "dog", 0.9, "review")]),
        ImageCase("4.png", (4, 4), [MaskCase(PIXELS, quality=0.1)]),
        ImageCase("5.png", (4, 4), [MaskCase(PIXELS, quality=0.8)]),
    ]
    return make_result(tmp_path, images, shards=3)


def content(folder: Path) -> dict[str, list[str]]:
    data = json.loads((folder / "instances.json").read_text())
    return {
        "images": [image["file_name"] for image in data["images"]],
        "masks": [annotation["mask_id"] for annotation in data["annotations"]],
    }


def test_filters(result: Result, tmp_path: Path) -> None:
    write(result, tmp_path / "all", "coco")
    assert content(tmp_path / "all")["images"] == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    write(result, tmp_path / "sure", "coco", min_quality=0.5)
    assert content(tmp_path / "sure")["images"] == ["0.png", "1.png", "3.png", "5.png"]
    assert content(tmp_path / "sure")["masks"] == ["0000-0", "0003-0", "0005-0"]
    write(result, tmp_path / "dogs", "coco", where="category = 'dog'", keep_empty=True)
    assert content(tmp_path / "dogs")["images"] == ["0.png", "1.png", "2.png", "3.png", "4.png", "5.png"]
    assert content(tmp_path / "dogs")["masks"] == ["0003-0"]
    write(result, tmp_path / "review", "coco", decisions=("review",))
    assert content(tmp_path / "review") == {"images": ["1.png", "3.png"], "masks": ["0003-0"]}


def test_goes_on_after_any_interruption(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(result, tmp_path / "whole", "coco")
    real = EXPORTS["coco"]

    def dies(*arguments: object) -> None:
        raise KeyboardInterrupt

    def dies_at_the_second(job: object, group: object, index: int) -> object:
        return dies() if index == 1 else real.write(job, group, index)  # type: ignore[arg-type]

    for export in (Export(dies_at_the_second, real.finish), Export(real.write, dies)):  # type: ignore[arg-type]
        monkeypatch.setitem(EXPORTS, "coco", export)
        with pytest.raises(KeyboardInterrupt):
            write(result, tmp_path / "to", "coco")
        assert not (tmp_path / "to" / "export.json").exists()
    monkeypatch.setitem(EXPORTS, "coco", real)
    put = Store.put
    monkeypatch.setattr(Store, "put", lambda *given: dies() if given[1] == "export.json" else put(*given))
    with pytest.raises(KeyboardInterrupt):
        write(result, tmp_path / "to", "coco")
    monkeypatch.undo()
    assert write(result, tmp_path / "to", "coco").groups == 0
    assert content(tmp_path / "to") == content(tmp_path / "whole")
    assert not list((tmp_path / "to").rglob("*.jsonl"))
    assert write(result, tmp_path / "to", "coco").groups == 0


def test_another_export_is_refused_or_replaced(result: Result, tmp_path: Path) -> None:
    write(result, tmp_path / "to", "coco")
    with pytest.raises(RefusedError, match=r"another export .*options"):
        write(result, tmp_path / "to", "coco", min_quality=0.5)
    (tmp_path / "to" / "notes.txt").write_text("the user's own")
    options = driver.Options(splits=(("a", 0.5), ("b", 0.5)))
    target = Store(str(tmp_path / "to"))
    driver.export(result, target, target, "coco", options, overwrite=True)
    names = {path.name for path in (tmp_path / "to").iterdir() if path.is_file()}
    assert names == {"notes.txt", "instances_a.json", "instances_b.json", "export.json"}
    with pytest.raises(RefusedError, match="not empty"):
        write(result, tmp_path / "images", "coco")


@pytest.mark.parametrize("name", EXPORTS)
def test_to_an_object_store(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str, s3_endpoint: str
) -> None:
    """Stopped after a shard and gone on with, the objects are the files that a folder gets."""
    pixels = np.tril(np.ones((12, 16), np.uint8))
    cases = [ImageCase(f"{n}.png", (12, 16), [MaskCase(pixels), MaskCase(1 - pixels, 2, "dog")]) for n in range(4)]
    made = make_result(tmp_path, cases, shards=2)
    photos, real = Store(made.manifest.images_root), EXPORTS[name]
    options = driver.Options(splits=(("train", 0.5), ("val", 0.5)), with_images=real.copies_images)
    target = Store(f"s3://{bucket}/to", Access(s3_endpoint))

    def dies_at_the_second(job: object, group: object, index: int) -> object:
        if index == 1:
            raise KeyboardInterrupt
        return real.write(job, group, index)  # type: ignore[arg-type]

    monkeypatch.setitem(EXPORTS, name, real._replace(write=dies_at_the_second))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        driver.export(made, target, photos, name, options)
    monkeypatch.setitem(EXPORTS, name, real)
    assert driver.export(made, target, photos, name, options).groups == 1
    folder = Store(str(tmp_path / "to"))
    driver.export(made, folder, photos, name, options)
    objects, files = ({file.path: store.read(file.path) for file in store.list()} for store in (target, folder))
    assert objects == files
    assert len(files) > 4


def test_the_command(result: Result, tmp_path: Path, relabel: Cli) -> None:
    options = ["--format", "coco", "--to", tmp_path / "to", "--workers", "2", "--split", "train=0.5,val=0.5"]
    done = relabel("export", result.store.uri, *options, "--where", "quality > 0.15")
    assert done.returncode == 0, done.stderr
    assert "masks" in done.stdout
    report = json.loads((tmp_path / "to" / "export.json").read_text())
    assert report["counts"] == {
        "images": 4,
        "masks": 4,
        "left out: failed masks": 1,
        "left out: images of which no mask is selected": 2,
        "left out: masks not selected": 1,
    }
    assert sorted(report["files"]) == ["instances_train.json", "instances_val.json"]


@pytest.mark.parametrize("text", ["train=0.5", "../x=1", "a=0.5,a=0.5", "a", "a=x", "a=-1,b=2"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(RefusedError, match="--split"):
        parse_splits(text)


def test_decisions_are_names() -> None:
    assert parse_decisions("refined, review") == ("refined", "review")
    with pytest.raises(RefusedError, match="--decision takes"):
        parse_decisions("failed")
    assert parse_decisions(None) == ()
    for text in ("", " , "):
        with pytest.raises(RefusedError, match="names none of refined"):
            parse_decisions(text)


def test_an_export_of_nothing_says_so(result: Result, tmp_path: Path, relabel: Cli) -> None:
    done = relabel("export", result.store.uri, "--format", "coco", "--to", tmp_path / "to", "--where", "quality > 2")
    assert done.returncode == 0
    assert done.stderr.endswith("no mask is selected: the export has none\n")
    counts = json.loads((tmp_path / "to" / "export.json").read_text())["counts"]
    assert counts["masks"] == 0
