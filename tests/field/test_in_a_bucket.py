"""What is read does not depend on where it lies: each source, and a folder of all sorts, on disk and on S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.storage import Access, Store
from tests.compat.make import SOURCES
from tests.compat.photos import GROWN
from tests.field.world import Outcome, encoded, photograph, put, put_images, run, square

OF_THE_PLACE = ("etag", "size_bytes", "image_uri", "detail")
"""Tags differ; a URI may stand in what is said."""


def uploaded(folder: Path, bucket: str, access: Access) -> str:
    """The folder's files in a bucket; its URI."""
    store = Store(f"s3://{bucket}/in", access)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        store.put(str(path.relative_to(folder)), path.read_bytes())
    return store.uri


def told(outcome: Outcome, root: str) -> dict[str, Any]:
    """Rows and coverage, without what is of the place."""
    rows = [{key: value for key, value in row.items() if key not in OF_THE_PLACE} for row in outcome.masks]
    images = [{key: value for key, value in row.items() if key not in OF_THE_PLACE} for row in outcome.images.values()]
    scan = {key: outcome.scan[key] for key in ("found", "unread")}
    found = json.dumps([rows, images, scan, outcome.source], default=repr).replace(root, "ROOT")
    back: dict[str, Any] = {"found": json.loads(found)}
    return back


def both(folder: Path, bucket: str, endpoint: str, output: Path, **given: str | None) -> tuple[Any, Any]:
    """On disk and in the bucket. given: masks, images, source, with `{input}` for the folder."""
    access = Access(endpoint)
    remote = uploaded(folder, bucket, access)
    outcomes = []
    for place, root in (("disk", str(folder)), ("s3", remote)):
        words = {name: text and text.replace("{input}", root) for name, text in given.items()}
        outcome = run(words["images"], words["masks"] or "", output / place, words["source"], access=access)
        outcomes.append(told(outcome, root))
    return outcomes[0], outcomes[1]


@pytest.mark.parametrize("name", SOURCES)
def test_every_source(name: str, s3_endpoint: str, bucket: str, tmp_path: Path) -> None:
    source = SOURCES[name]
    source.write(tmp_path / "in", GROWN)
    given = {"masks": source.masks, "images": source.images, "source": source.source}
    on_disk, on_s3 = both(tmp_path / "in", bucket, s3_endpoint, tmp_path, **given)
    assert on_disk == on_s3


def test_a_folder_of_all_sorts(s3_endpoint: str, bucket: str, tmp_path: Path) -> None:
    put_images(tmp_path / "in/images", "a.jpg", "b/ä c.png", "alone.jpg")
    put(tmp_path / "in/masks/a.png", square() * 255)
    put(tmp_path / "in/masks/b/ä c.gif", encoded(square() * 255, "GIF"))
    put(tmp_path / "in/masks/orphan.png", square() * 255)
    put(tmp_path / "in/masks/notes.txt", "not a mask")
    put(tmp_path / "in/masks/broken.png", b"no picture")
    put(tmp_path / "in/masks/x.json", "{}")
    put(tmp_path / "in/images/film.mp4", encoded(photograph()))
    given = {"masks": "{input}/masks", "images": "{input}/images", "source": None}
    on_disk, on_s3 = both(tmp_path / "in", bucket, s3_endpoint, tmp_path, **given)
    assert on_disk == on_s3
    names = {name for tally in on_s3["found"][2]["found"] if tally["state"] == "unread" for name in tally["names"]}
    assert {"notes.txt", "x.json"} <= names
