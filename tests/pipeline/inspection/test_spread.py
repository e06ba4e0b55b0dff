"""The images that are shown: every category, what is odd, and the same ones in whatever order they come."""

from __future__ import annotations

import random

from pipeline.inspection.spread import Spread
from pipeline.sources import PlannedImage, PlannedMask


def image(number: int, category: int = 1, problem: str | None = None, **more: str | bool) -> PlannedImage:
    mask = PlannedMask(str(number), category, f"c{category}", "[]", **more)  # type: ignore[arg-type]
    return PlannedImage(f"{number:04}.jpg", str(number), None, [mask], problem)


def shown(images: list[PlannedImage], size: int) -> list[str]:
    spread = Spread(size)
    for one in images:
        spread.add(one)
    return [one.image_uri for one in spread.chosen()]


def test_rare_ones_are_shown_among_many() -> None:
    many = [image(number) for number in range(1000)]
    rare = [
        image(2000, category=7),
        image(2001, detail="boxes: no segmentation"),
        image(2002, crowd=True),
        image(2003, problem="image_missing"),
        PlannedImage("empty.jpg", "", None),
    ]
    chosen = shown(many + rare, 12)
    assert len(chosen) == 12
    assert {one.image_uri for one in rare} <= {*chosen}
    assert chosen == sorted(chosen)


def test_the_order_does_not_matter() -> None:
    images = [image(number, category=number % 40) for number in range(500)]
    first = shown(images, 30)
    random.Random(1).shuffle(images)
    assert shown(images, 30) == first
    assert len({*first}) == 30


def test_by_chance_still_takes_part_where_there_are_many_categories() -> None:
    chosen = shown([image(number, category=number) for number in range(300)], 30)
    assert len(chosen) == 30


def test_all_rows_of_an_image_come_along() -> None:
    spread = Spread(2)
    for number in range(50):
        spread.add(image(number))
        spread.add(image(number))
    assert [one.image_uri for one in spread.chosen()].count("0000.jpg") in (0, 2)
    assert len(spread.chosen()) == 4


def test_few_images_are_all_shown() -> None:
    assert len(shown([image(number) for number in range(5)], 36)) == 5
    assert shown([image(1)], 0) == []
