"""Exports stay well-formed, whatever a dataset's names and carried fields are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exports.text import to_json, xml_attribute, xml_content
from pipeline.exports.types import Piece
from tests.pipeline.exports.results import ImageCase, MaskCase, make_result, write

ANY_TEXT = st.text(st.characters(exclude_categories=()))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)
NAME = 'a\x01 "b" <c> & \ufffe\n\té'
EXTRA = '{"score": NaN, "far": -Infinity, "huge": 1e999, "text": "half \\ud800", "\\udfff": "\\ud83d\\ude00", "id": 7}'


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def strictly(text: str) -> Any:
    """As strict parsers read it: UTF-8, no NaN, no infinity."""
    found = json.loads(text, parse_constant=refuse)
    json.dumps(found, ensure_ascii=False).encode()
    return found


@given(value=VALUES)
def test_json(value: Any) -> None:
    piece = Piece()
    text = to_json(value, piece)
    found = strictly(text)
    assert text.isascii()
    if not piece.lost:
        assert json.dumps(found) == json.dumps(value)


@given(text=ANY_TEXT)
def test_xml(text: str) -> None:
    piece = Piece()
    document = f"<x y={xml_attribute(text, piece)}>{xml_content(text, piece)}</x>"
    found = ElementTree.fromstring(document)
    assert found.attrib["y"] == (found.text or "")
    if not piece.lost:
        assert found.attrib["y"] == text


@pytest.mark.parametrize("name", ["coco", "lvis", "coco-panoptic", "webdataset", "cvat", "label-studio", "yolo"])
def test_odd_names_and_fields(tmp_path: Path, name: str) -> None:
    mask = MaskCase(np.ones((4, 5), np.uint8), 1, NAME)
    images = [ImageCase("a\x02b.png", (4, 5), [mask], extra=EXTRA, has_photo=False)]
    lost = write(make_result(tmp_path, images), tmp_path / "to", name).report["lost"]
    for path in (tmp_path / "to").rglob("*.json"):
        strictly(path.read_text())
    for path in (tmp_path / "to").rglob("*.xml"):
        ElementTree.parse(path)
    if name in ("coco", "lvis", "coco-panoptic"):
        assert (lost["numbers that JSON cannot hold"], lost["characters that UTF-8 cannot hold"]) == (3, 2)
        [content] = [strictly(path.read_text()) for path in (tmp_path / "to").glob("*[!t].json")]
        [entry] = content["images"]
        assert (entry["score"], entry["text"], entry["\ufffd"], entry["id"]) == (None, "half \ufffd", "😀", 1)
        assert entry["file_name"] == "a\x02b.png"
    if name in ("cvat", "label-studio"):
        assert lost["characters that XML cannot hold"] > 0
    if name == "yolo":
        assert yaml.safe_load((tmp_path / "to" / "data.yaml").read_text())["names"] == {0: NAME}
