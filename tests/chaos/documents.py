"""Files read by field: each field of JSON, YAML, CSV, XML, text and Parquet can be replaced by another value."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

Field = tuple[Any, ...]
"""Where a value lies in a document: keys and indices from its root."""


def _of_tree(load: Callable[[bytes], Any], dump: Callable[[Any], bytes]) -> Callable[[bytes], Any]:
    def reader(data: bytes) -> tuple[list[Field], Callable[[Field, Any], bytes]]:
        def replaced(field: Field, wrong: Any) -> bytes:
            tree = load(data)
            if not field:
                return dump(wrong)
            parent = tree
            for key in field[:-1]:
                parent = parent[key]
            parent[field[-1]] = wrong
            return dump(tree)

        return list(_places(load(data))), replaced

    return reader


def _places(tree: Any, at: Field = ()) -> Iterator[Field]:
    yield at
    items: Iterable[tuple[Any, Any]] = tree.items() if isinstance(tree, dict) else ()
    if isinstance(tree, list):
        items = list(enumerate(tree))[:2]  # the others are of the same kind
    for key, value in items:
        yield from _places(value, (*at, key))


def _text(wrong: Any) -> str:
    return wrong if isinstance(wrong, str) else json.dumps(wrong)


def _of_words(separator: str) -> Callable[[bytes], Any]:
    """Text whose lines are words: YOLO's labels."""

    def load(data: bytes) -> Any:
        return [line.split(separator) for line in data.decode().splitlines()]

    def dump(tree: Any) -> bytes:
        lines = tree if isinstance(tree, list) else [tree]
        text = "\n".join(separator.join(map(_text, line if isinstance(line, list) else [line])) for line in lines)
        return text.encode("utf-8", "surrogatepass")

    return _of_tree(load, dump)


def _csv_bytes(tree: Any) -> bytes:
    sink = io.StringIO()
    rows = tree if isinstance(tree, list) else [[tree]]
    csv.writer(sink).writerows([map(_text, row) if isinstance(row, list) else [_text(row)] for row in rows])
    return sink.getvalue().encode("utf-8", "surrogatepass")


def _of_xml(data: bytes) -> tuple[list[Field], Callable[[Field, Any], bytes]]:
    """Texts and attributes of elements; what XML cannot hold is written into the text all the same."""

    def elements() -> list[ElementTree.Element]:
        return list(ElementTree.fromstring(data).iter())

    def replaced(field: Field, wrong: Any) -> bytes:
        root = ElementTree.fromstring(data)
        element = list(root.iter())[field[0]]
        if field[1] == "text":
            element.text = "PLACE"
        else:
            element.set(field[1], "PLACE")
        value = _text(wrong).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
        return ElementTree.tostring(root).replace(b"PLACE", value.encode("utf-8", "surrogatepass"))

    fields = [
        (number, key)
        for number, element in enumerate(elements())
        for key in (*element.keys(), *(["text"] if (element.text or "").strip() else []))
    ]
    return fields, replaced


def _of_parquet(data: bytes) -> tuple[list[Field], Callable[[Field, Any], bytes]]:
    rows = pq.read_table(pa.BufferReader(data)).to_pylist()

    def replaced(field: Field, wrong: Any) -> bytes:
        """One row of the wrong value alone, since a column has one type."""
        table = pa.Table.from_pylist([{**rows[0], field[0]: wrong}])
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        return bytes(sink.getvalue())

    return [(name,) for name in rows[0]], replaced


READERS: dict[str, Callable[[bytes], Any]] = {
    ".json": _of_tree(json.loads, lambda tree: json.dumps(tree).encode()),
    ".yaml": _of_tree(yaml.safe_load, lambda tree: yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "replace")),
    ".txt": _of_words(" "),
    ".csv": _of_tree(lambda data: list(csv.reader(io.StringIO(data.decode()))), _csv_bytes),
    ".xml": _of_xml,
    ".parquet": _of_parquet,
}
