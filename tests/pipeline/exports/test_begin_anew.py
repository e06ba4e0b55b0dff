"""What an export that was killed anywhere leaves goes when it is begun anew; what is the user's own stays."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from pipeline.dataset import Result
from pipeline.exports import EXPORTS, driver
from pipeline.exports.types import ExportImage, Options, Piece
from pipeline.storage import Store
from tests.pipeline.exports.results import ImageCase, MaskCase, make_result
from tests.pipeline.exports.test_left_out import files_in

PIXELS = np.tril(np.ones((12, 16), np.uint8))
BEFORE, AFTER = (("train", 0.9), ("val", 0.1)), (("train", 0.5), ("val", 0.5))


@pytest.fixture
def result(tmp_path: Path) -> Result:
    """Eight images in two shards; four would have one name."""
    names = [*(f"{n}.png" for n in range(4)), "a.png", "a.jpg", "b.png", "b.jpg"]
    return make_result(tmp_path, [ImageCase(name, (12, 16), [MaskCase(PIXELS)]) for name in names], shards=2)


def run(result: Result, to: Path, name: str, splits: Any, overwrite: bool = False) -> None:
    options = Options(splits=splits, with_images=EXPORTS[name].copies_images)
    driver.export(result, Store(str(to)), Store(result.manifest.images_root), name, options, overwrite=overwrite)


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Kills what is under way when it is about to change its n-th file."""
    left: list[int | None] = [None]
    real = {name: getattr(Store, name) for name in ("put", "delete", "writer")}

    def step() -> None:
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

    def stepping(name: str) -> Callable[..., Any]:
        def stepped(*given: Any) -> Any:
            step()
            return real[name](*given)

        return stepped

    @contextmanager
    def writer(store: Store, path: str) -> Iterator[BinaryIO]:
        with real["writer"](store, path) as file:
            yield file
            step()
        step()

    for name in ("put", "delete"):
        monkeypatch.setattr(Store, name, stepping(name))
    monkeypatch.setattr(Store, "writer", writer)
    return lambda number: left.__setitem__(0, number)


@pytest.mark.parametrize("name", EXPORTS)
def test_overwriting_what_was_killed_anywhere(
    name: str, result: Result, tmp_path: Path, killed_at: Callable[[int | None], None]
) -> None:
    run(result, tmp_path / "whole", name, AFTER)
    expected = {**files_in(tmp_path / "whole"), "notes.txt": b"mine", "images/train/notes.txt": b"mine too"}
    for at in range(1, 200, 3):
        to = tmp_path / f"{at}"
        killed_at(at)
        try:
            run(result, to, name, BEFORE)
            is_over = True
        except KeyboardInterrupt:
            is_over = False
        killed_at(at // 2)  # and the one that begins anew, too
        (to / "images" / "train").mkdir(parents=True, exist_ok=True)
        (to / "images" / "train" / "notes.txt").write_text("mine too")
        (to / "notes.txt").write_text("mine")
        with pytest.raises(KeyboardInterrupt):
            run(result, to, name, AFTER, overwrite=True)
        killed_at(None)
        run(result, to, name, AFTER, overwrite=True)
        assert files_in(to) == expected
        if is_over:
            return
    raise AssertionError("never over")


@pytest.mark.parametrize("name", EXPORTS)
def test_going_on_after_being_killed_anywhere(
    name: str, result: Result, tmp_path: Path, killed_at: Callable[[int | None], None]
) -> None:
    """Once while the export is written, and once while a file of it that was lost is."""
    run(result, tmp_path / "whole", name, AFTER)
    expected = files_in(tmp_path / "whole")
    lost = next(path for path in expected if not path.startswith(".relabel-export") and path != "export.json")
    for at in range(1, 200, 5):
        to = tmp_path / f"{at}"
        killed_at(at)
        with pytest.raises(KeyboardInterrupt) if at < 12 else _either():
            run(result, to, name, AFTER)
        killed_at(None)
        run(result, to, name, AFTER)
        assert files_in(to) == expected
        (to / lost).unlink()
        killed_at(at)
        with _either() as ended:
            run(result, to, name, AFTER)
            ended.append(True)
        killed_at(None)
        run(result, to, name, AFTER)
        assert files_in(to) == expected
        if ended:
            return
    raise AssertionError("never over")


@contextmanager
def _either() -> Iterator[list[bool]]:
    try:
        yield (ended := [])
    except KeyboardInterrupt:
        assert not ended


def test_temporary_files_of_a_killed_process_go_and_no_others(result: Result, tmp_path: Path) -> None:
    run(result, tmp_path / "to", "yolo", BEFORE)
    (tmp_path / "to" / "export.json").unlink()
    hers = [tmp_path / "to" / name for name in (".tmp-notes", f".tmp-lock-{'a' * 64}")]
    killed = [tmp_path / "to" / folder / f".tmp-{'0f' * 16}" for folder in ("", "labels/train", ".relabel-export")]
    for path in [*hers, *killed]:
        path.write_bytes(b"half")
    run(result, tmp_path / "to", "yolo", BEFORE)
    assert all(path.exists() for path in hers)
    assert not any(path.exists() for path in killed)


def test_counts_are_in_the_same_order_in_every_process() -> None:
    masks = [{"class_id": class_id} for class_id in range(40)]
    piece = Piece()
    piece.count(ExportImage(1, "a", "a", "a.png", 1, 1, "", masks, []))
    assert list(piece.images_of) == sorted(piece.images_of)
