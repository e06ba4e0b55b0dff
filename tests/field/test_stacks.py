"""Arrays beside images, as medical datasets and models write them: which array is the mask, and what its values are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.masks import binary
from tests.field.test_arrays_and_ade import npy, npz
from tests.field.world import SIZE_HW, Outcome, photograph, put, put_images, run, square

FIRST, SECOND = square(), square(box=(50, 60, 4, 20))
STACK = np.stack([FIRST, SECOND])
LABELS = (3 * FIRST + 7 * SECOND).astype(np.uint8)
SOFT = np.clip(np.add.accumulate(np.ones(SIZE_HW, np.float32), 1) * 8 - 200, 0, 255).astype(np.uint8)
CHANNELS = np.moveaxis(photograph(), 2, 0)
OBJECTS = "the values of an array (H, W) taken as objects, not as classes"


def outcome_of(folder: Path, data: bytes, suffix: str = "npz", source: str | None = None) -> Outcome:
    put_images(folder / "images", "a.jpg")
    put(folder / "masks" / f"a.{suffix}", data)
    return run(folder / "images", folder / "masks", folder / "out", source)


@pytest.mark.parametrize("image", [photograph(), CHANNELS, photograph()[..., 0], CHANNELS.astype(np.float32) / 255])
@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("gts", LABELS),
        ("label", LABELS),
        ("y", STACK),
        ("img_masks", STACK),
        ("seg", LABELS[None]),
        ("masks", LABELS.astype(np.int64)),
    ],
)
def test_the_array_that_is_no_image_is_the_mask(tmp_path: Path, image: Any, name: str, array: Any) -> None:
    """`imgs` and `gts` of MedSAM, `image` and `label` of others; an image is no stack, whatever its axes are."""
    outcome = outcome_of(tmp_path, npz(imgs=image, spacing=np.ones(3), **{name: array}))
    assert all((binary.decode(row["coarse_rle"]) == one).all() for row, one in zip(outcome.masks, STACK, strict=True))
    assert outcome.said("odd") == ({} if array is STACK else {OBJECTS: ["a.npz"]})
    assert outcome.scan["unread"] == 0


def test_an_image_alone_is_no_mask(tmp_path: Path) -> None:
    row = outcome_of(tmp_path, npz(imgs=CHANNELS), source="stacks").only()
    assert row["detail"] == "unreadable: no array of masks, but imgs (3, 64, 96)"


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.stack([FIRST * 5.5 - 4, SECOND * 5.5 - 4]), "unreadable: values from -4 to 1.5, no shares"),
        (np.stack([LABELS, LABELS]), "unreadable: 2 values in one mask, which has one"),
        (CHANNELS, "unreadable: "),
        (-STACK.astype(np.int8), "unreadable: a label below 0: -1"),
    ],
)
def test_what_is_no_mask_fails(tmp_path: Path, array: Any, said: str) -> None:
    """Logits are not cut at 0.5, and the classes of a map are not one object."""
    masks = outcome_of(tmp_path, npy(array), "npy", "stacks").masks
    assert [row["reason"] for row in masks] == ["mask_unreadable"] * len(array)
    assert all(row["detail"].startswith(said) for row in masks)


def test_soft_edges_of_8_bits_are_cut_half_way(tmp_path: Path) -> None:
    row = outcome_of(tmp_path, npy(SOFT[None]), "npy").only()
    assert (binary.decode(row["coarse_rle"]) == (SOFT >= 128)).all()
    assert row["detail"].startswith("soft edges")
