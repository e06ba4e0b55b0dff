"""JSON in pieces: the same entries whatever the blocks, refusals in one line, bounded memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RefusedError
from pipeline.sources import json_stream
from pipeline.sources.by_image import ByImage
from pipeline.storage import Access
from tests.conftest import ROOT

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def read(path: Path) -> list[tuple[str, Any]]:
    return list(json_stream.entries(str(path), Access()))


def whole(content: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in content.items() if isinstance(content, dict) else [("", content)]:
        found += [(key, json_stream.LIST), *((key, e) for e in value)] if isinstance(value, list) else [(key, value)]
    return found


@settings(max_examples=40, deadline=None)
@given(
    content=st.dictionaries(st.text(), st.lists(VALUES, max_size=4) | VALUES, max_size=4) | st.lists(VALUES),
    block=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_the_same_in_any_blocks(
    tmp_path_factory: pytest.TempPathFactory, content: Any, block: int, indent: int | None, ascii_only: bool
) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    path.write_bytes(json.dumps(content, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "BLOCK_BYTES", block)
        try:
            found = read(path)
        except RefusedError:
            assert "\\ud" in ascii(content)  # half a surrogate pair is no UTF-8
            return
    assert found == whole(content)


@pytest.mark.parametrize("block", range(1, 30))
def test_a_number_is_not_ended_by_a_block(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    path.write_text("[-0.0, 1.5e+10, 2E-3, 12, 3.25]")
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", block)
    assert [entry for _, entry in read(path)][1:] == [-0.0, 1.5e10, 2e-3, 12, 3.25]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "3",
        '{"a": [1, 2',
        '{"a": [1 2]}',
        '{"a": 1} 2',
        '{"a" 1}',
        "{1: 2}",
        '["\xff"]',
        "[" * 100_000,
        '{"a":',
    ],
)
def test_what_is_not_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RefusedError, match=r"x\.json is not valid JSON"):
        read(tmp_path / "x.json")


def test_entries_come_together_by_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage.disk_table.HELD_CHARACTERS", 200)
    spill = ByImage(tmp_path)
    for number in range(100):
        spill.add(f"{number % 7}é", number % 2 == 1, [number])
    found = {key: (images, masks) for key, images, masks in spill.groups()}
    assert found == {
        f"{key}é": ([[n] for n in range(key, 100, 7) if n % 2 == 0], [[n] for n in range(key, 100, 7) if n % 2])
        for key in range(7)
    }


PLANS = """
import re, sys
from pipeline.planning.increment import ChunkLimits, plan
from pipeline.sources import SourceInput, scan
from pipeline.storage import Access, Store
def peak_mb():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10
before = peak_mb()
planned = plan(Store(sys.argv[2]), scan("coco", SourceInput(sys.argv[1], Access(), {})), {}, ChunkLimits(64, 1 << 30))
print(planned.images, planned.masks, before, peak_mb())
"""


def write_large(path: Path, megabytes: int) -> tuple[int, int]:
    """A COCO file of about that size, annotations before images, each a polygon of 250 points; images, masks."""
    points = json.dumps([[round(i * 1.37 % 640, 2) for i in range(500)]])
    masks = 0
    with path.open("w") as file:
        file.write('{"annotations": [')
        while file.tell() < megabytes << 20:
            file.write(f'{"," if masks else ""}\n{{"id": {masks}, "image_id": {masks * 7919 % (masks + 1) // 4}, ')
            file.write(f'"category_id": 1, "iscrowd": 0, "segmentation": {points}}}')
            masks += 1
        images = masks // 4 + 1
        entries = ({"id": n, "file_name": f"{n:09d}.jpg", "height": 480, "width": 640} for n in range(images))
        file.write('],\n"images": [' + ",\n".join(map(json.dumps, entries)))
        file.write('],\n"categories": [{"id": 1, "name": "thing"}]}')
    return images, masks


@pytest.mark.parametrize("megabytes", [24, pytest.param(2048, marks=pytest.mark.slow)])
def test_a_large_file_is_planned_in_bounded_memory(tmp_path: Path, megabytes: int) -> None:
    images, masks = write_large(tmp_path / "large.json", megabytes)
    command = [sys.executable, "-c", PLANS, str(tmp_path / "large.json"), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000, check=True)
    found_images, found_masks, before_mb, peak_mb = map(int, done.stdout.split())
    assert (found_images, found_masks) == (images, masks)
    print(f"{megabytes} MB of JSON: {peak_mb} MB at most, {before_mb} MB of it before")
    assert peak_mb < 1024
    assert megabytes > 100 or peak_mb - before_mb < 400
