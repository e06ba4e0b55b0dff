"""The files of `--images` by hash range: a listing like any other, and what an inventory has, wherever it is read."""

from pathlib import Path

import pytest

from pipeline.errors import RefusedError
from pipeline.planning import listed, spill
from pipeline.planning.increment import ChunkLimits, plan, read_chunk, read_plan
from pipeline.planning.listed import by_range, in_ranges, is_large, listing_of, of_inventory
from pipeline.planning.rows import tag
from pipeline.planning.shuffle import Shuffle
from pipeline.sources import PlannedImage, PlannedMask
from pipeline.sources.coverage import IMAGES, READ, UNNAMED, UNREAD, Coverage
from pipeline.sources.inventory import open_inventory
from pipeline.storage import Access, Store, StoredFile
from pipeline.storage.listing import listing
from tests.pipeline.planning.test_pieces import elsewhere
from tests.pipeline.sources.test_inventory import FORMATS, FOUND, make

NAMES = ["a.jpg", "caf\udce9.jpg", 'quo"te,1.jpg', "line\nbreak.jpg", "shards/1.tar", "b.heic", "c.jpg", "unnamed.png"]
FILES = [StoredFile(name, number, f"etag {number}", 0.5, "", number, None) for number, name in enumerate(NAMES)]


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "output"))


def image(uri: str, container: str = "") -> PlannedImage:
    member = {"container": container, "offset": 0, "length": 9, "column": None} if container else None
    mask = PlannedMask("1", 1, "thing", "[[0, 0, 5, 0, 5, 5]]")
    return PlannedImage(uri, uri, (10, 20), [mask], member=member)  # type: ignore[arg-type]


def test_files_are_found_by_their_paths(output: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed, "FILES", 3)
    with listing_of(in_ranges([FILES[0]._replace(size=77), *FILES]), output) as found:
        assert {path: found[path] for path in found} == {file.path: file for file in FILES}
        assert "a.jp" not in found
        assert found.get("etag 0") is None
        assert len(found) == len(FILES) + 1


def test_a_table_of_files_comes_by_range_as_well(output: Store) -> None:
    with listing(FILES) as table, by_range(table, output) as found:
        assert sorted(table.values()) == sorted(FILES)
        assert {path: found[path] for path in found} == dict(table)
    with listing_of(in_ranges(FILES), output) as found, by_range(found, output) as same:
        assert same is found


@pytest.mark.parametrize("at_once", [0, spill.FILES_AT_ONCE])
def test_rows_have_what_is_told_of_their_files_and_all_files_are_accounted_for(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "FILES_AT_ONCE", at_once)
    images = [*map(image, NAMES[:4]), image("shards/1.tar#x.jpg", "shards/1.tar"), image("gone.jpg")]
    output, coverage = Store(str(tmp_path / "out")), Coverage(["c.*"])
    plan(output, images, {file.path: file for file in FILES}, ChunkLimits(99, 1 << 30), coverage=coverage)
    rows = [row for chunk in read_plan(output).chunks for row in read_chunk(output, chunk).to_pylist()]
    told = {row["source_image_id"]: (row["size_bytes"], row["etag"]) for row in rows}
    assert told == {
        "a.jpg": (0, tag(FILES[0])),
        "caf\\udce9.jpg": (1, tag(FILES[1])),
        'quo"te,1.jpg': (2, tag(FILES[2])),
        "line\nbreak.jpg": (3, tag(FILES[3])),
        "shards/1.tar#x.jpg": (4, tag(FILES[4])),
        "gone.jpg": (None, None),
    }
    assert [coverage.count(IMAGES, state) for state in (READ, UNNAMED, UNREAD)] == [5, 2, 1]
    assert [one.name for one in coverage.left()] == ["c.jpg", "unnamed.png", "b.heic"]


@pytest.mark.parametrize("kind", FORMATS)
def test_an_inventory_is_read_file_by_file(kind: str, tmp_path: Path) -> None:
    manifest = str(make(tmp_path, kind, FORMATS[kind]))
    inventory = open_inventory(manifest, Access(), "s3://bucket/photos")
    output = Store(str(tmp_path / "output"))
    for shuffle in (None, Shuffle(output, elsewhere)):
        with listing_of(of_inventory(inventory, shuffle), output) as found:
            assert {path: found[path] for path in found} == {file.path: file for file in FOUND}
    with pytest.raises(RefusedError, match="none of the 6 entries"):
        list(of_inventory(open_inventory(manifest, Access(), "s3://bucket/phot"), shuffle))


def test_only_large_inventories_of_several_files_are_read_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = open_inventory(str(make(tmp_path, "ORC", FORMATS["ORC"])), Access(), "s3://bucket")
    assert not is_large(inventory)
    monkeypatch.setattr(listed, "INVENTORY_BYTES", 1)
    assert not is_large(inventory)
