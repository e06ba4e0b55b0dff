"""Paths looked up by their hashes, held in memory or spilled to disk: the answers are the same."""

import tracemalloc
from collections.abc import Iterator

import pytest

from pipeline.sources import path_set
from pipeline.sources.path_set import PathSet
from pipeline.storage import disk_table

PATHS = [f"folder {number % 7}/{number:05d}.jpg" for number in range(3000)]
ODD = ["caf\udce9.jpg", 'quote".jpg', "line\nbreak.jpg", "ünïcode.jpg", ""]


def filled(paths: list[str]) -> PathSet:
    found = PathSet()
    for path in paths:
        found.add(path)
    return found


@pytest.mark.parametrize("held", [path_set.HELD, 100])
def test_each_path_is_found_again_and_no_other(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_set, "HELD", held)
    planned = [*PATHS[::3], *ODD, *PATHS[:30:3]]
    asked = [*PATHS, *ODD, "another.jpg"]
    answers = list(filled(planned).look_up(asked))
    assert sorted(path for path, _ in answers) == sorted(asked)
    assert {path for path, there in answers if there} == set(planned)


def test_an_empty_set_holds_nothing() -> None:
    assert list(PathSet().look_up(["a", "b"])) == [("a", False), ("b", False)]
    assert list(filled(["a"]).look_up([])) == []


def test_memory_does_not_grow_with_the_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_set, "HELD", 1 << 10)
    monkeypatch.setattr(disk_table, "HELD_CHARACTERS", 1 << 14)

    def peak_of(count: int) -> int:
        def names() -> Iterator[str]:
            return (f"{number}.jpg" for number in range(count))

        tracemalloc.start()
        found = PathSet()
        for name in names():
            found.add(name)
        assert all(there for _, there in found.look_up(names()))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_of(60_000) < 1.5 * peak_of(20_000)
