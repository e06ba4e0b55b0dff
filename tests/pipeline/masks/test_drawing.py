"""What is written on pictures, and how they are written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import RefusedError
from pipeline.masks import drawing
from pipeline.masks.drawing import Judged
from tests.results import ellipse


@pytest.mark.parametrize(
    ("judged", "coarse", "refined"),
    [
        ([Judged("refined", 0.5, 0.75)], "coarse, quality 0.50", "refined, quality 0.75"),
        ([Judged("kept_coarse", None, math.nan)], "coarse", "kept coarse"),
        (
            [Judged("refined", 0.5, 0.7), Judged("refined", 0.7, 0.9), Judged("failed", None, None)],
            "coarse, mean quality 0.60",
            "2 refined, 1 failed, mean quality 0.80",
        ),
    ],
)
def test_captions(judged: list[Judged], coarse: str, refined: str) -> None:
    assert drawing.captions(judged) == ("image", coarse, refined)


def test_a_small_crop_is_shown_large_and_its_caption_fits(tmp_path: Path) -> None:
    mask, photo = ellipse((24, 24), 9), np.full((48, 64, 3), 128, np.uint8)
    shown = drawing.panels(photo, [mask], [mask], ("image", "coarse", "refined, mean quality 0.80, and more words"))
    assert {panel.size for panel in shown} == {(320, 240 + drawing.CAPTION_PX)}
    caption = np.asarray(shown[2])[: drawing.CAPTION_PX]
    assert (caption[:, -6:] == 24).all()


def test_the_suffix_says_how(tmp_path: Path) -> None:
    mask, photo = ellipse((24, 24), 9), np.zeros((48, 64, 3), np.uint8)
    for name, frames, width in (("a.png", 1, 960), ("a.jpg", 1, 960), ("a.gif", 3, 320), ("a.WEBP", 3, 320)):
        drawing.write_comparison(tmp_path / name, photo, [mask], [mask], ("image", "coarse", "refined"))
        with Image.open(tmp_path / name) as written:
            assert (getattr(written, "n_frames", 1), written.width) == (frames, width), name
    with pytest.raises(RefusedError, match=r"has to end in one of \.png"):
        drawing.write_comparison(tmp_path / "a.tiff", photo, [mask], [mask], ("", "", ""))
