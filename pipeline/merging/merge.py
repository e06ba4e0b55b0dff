"""Two annotations -> one COCO file, and what was taken from which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import sources
from pipeline.merging import classes, reading, writing
from pipeline.merging.classes import Classes
from pipeline.merging.reading import Given, Pair, Row, Spilled
from pipeline.merging.rule import ADDED, FIRST, NOT_EXHAUSTIVE, REPLACED, SECOND, choose
from pipeline.planning.coverage import Content
from pipeline.sources import walks
from pipeline.sources.coverage import Coverage
from pipeline.sources.fields import as_int, as_list
from pipeline.storage import Access, Store
from pipeline.storage.disk_table import scratch_folder
from pipeline.storage.listing import listing
from pipeline.words import plural


@dataclass(frozen=True)
class Asked:
    """images: the root that both are of; key: one of reading.KEYS; names: of the second's classes, what the first calls
    them; only_known: leave classes that the first does not have; only_first: leave images that it does not have.
    """

    first: Given
    second: Given
    images: str
    key: str = "path"
    names: Mapping[str, str] = field(default_factory=dict)
    only_known: bool = False
    only_first: bool = False


@dataclass
class Merged:
    """What was done. images: by `both` and the name of the only one that has them; pairs: images' classes by outcome;
    masks: by the name of the annotation that they are from; unread: masks that cannot be read; examples: of these;
    scans: of both, as planning has them.
    """

    images: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)
    left_images: int = 0
    unread: int = 0
    examples: list[str] = field(default_factory=list)
    new_classes: list[str] = field(default_factory=list)
    left_classes: list[str] = field(default_factory=list)
    scans: list[Content] = field(default_factory=list)


def merge(asked: Asked, target: Store, path: str, access: Access) -> Merged:
    """Write the COCO file. Raises RefusedError where the two cannot be read, or joined."""
    done = Merged()
    images = Store(asked.images, access)
    with scratch_folder("merge") as folder, listing(walks.regular(images, Coverage())) as listed:
        first, second = (
            reading.spill(one, asked.images, listed, asked.key, folder / str(number), access)
            for number, one in enumerate((asked.first, asked.second))
        )
        done.scans = [first.scan, second.scan]
        joined = classes.join(first.classes, second.classes, asked.names, asked.only_known)
        done.new_classes, done.left_classes = joined.new, joined.left
        lists = {name: folder / f"{name}.jsonl" for name in ("images", "annotations")}
        with lists["images"].open("wb") as images_file, lists["annotations"].open("wb") as masks_file:
            for image, masks in _taken(first, second, asked, joined, done, access):
                images_file.writelines(writing.lines([image]))
                masks_file.writelines(writing.lines(masks))
        with target.writer(path) as sink:
            writing.assemble(sink, _head(asked, first, joined), lists.items())
    return done


def _taken(
    first: Spilled, second: Spilled, asked: Asked, joined: Classes, done: Merged, access: Access
) -> Iterator[tuple[Row, list[Row]]]:
    """Entries of `images`, each with its entries of `annotations`."""
    files = [_files(one.given, access) for one in (first, second)]
    names = asked.first.name, asked.second.name
    for pair in reading.pairs(first, second):
        if pair.first is None and asked.only_first:
            done.left_images += 1
            continue
        done.images["both" if pair.first and pair.second else names[FIRST if pair.first else SECOND]] += 1
        side = FIRST if pair.first else SECOND
        image = (pair.first or pair.second or {})["image"]
        entry = writing.image_entry(image, side, names[side])
        yield entry, list(_masks(pair, entry, image, names, files, joined, done))


def _masks(
    pair: Pair,
    entry: Row,
    image: Row,
    names: tuple[str, str],
    files: list[Store | None],
    joined: Classes,
    done: Merged,
) -> Iterator[Row]:
    own = [{**mask, "category_id": mask["class"][0]} for mask in (pair.first or {}).get("masks", [])]
    others = [
        {**mask, "category_id": number}
        for mask in (pair.second or {}).get("masks", [])
        if (number := joined.of_second[tuple(mask["class"])]) is not None
    ]
    for choice in choose(own, others, _not_exhaustive(pair.second, joined)):
        done.pairs[choice.outcome] += 1
        for side, mask in choice.masks:
            found, problem = writing.annotation(mask, image, entry["id"], side, names[side], files[side])
            done.masks[names[side]] += 1
            if problem:
                done.unread += 1
                done.examples = [*done.examples, f"{image['uri']}, {names[side]} {mask['source_id']}: {problem}"][:10]
            yield found


def _not_exhaustive(second: Row | None, joined: Classes) -> Collection[int]:
    """Classes, in the merged numbers, of which LVIS says that not every object of the image is annotated."""
    if second is None:
        return ()
    said = {as_int(number) for number in as_list(writing.parsed(second["image"]["extra"]).get(writing.NOT_EXHAUSTIVE))}
    return {own for (number, _), own in joined.of_second.items() if own is not None and number in said}


def _files(given: Given, access: Access) -> Store | None:
    root = sources.files_root(given.source, given.uri)
    return None if root is None else Store(root, access)


def _head(asked: Asked, first: Spilled, joined: Classes) -> dict[str, Any]:
    """The file's first keys. Fields of the first's classes stay."""
    described = {
        as_int(own.get("id")): own for own in first.scan["dataset"].get("categories", []) if isinstance(own, dict)
    }
    entries = [{**described.get(number, {}), "id": number, "name": name} for number, name in sorted(joined.all.items())]
    about = f"{asked.first.name} and {asked.second.name}, merged by relabel: more instances of a class in an image win"
    return {"info": {"description": about}, "categories": entries}


OUTCOMES = {
    "kept": "{first} has as many or more",
    REPLACED: "{second} has more",
    ADDED: "{first} has none",
    NOT_EXHAUSTIVE: "{second} says that it has not annotated them all: not used",
}


def lines(done: Merged, asked: Asked) -> Iterator[str]:
    """What was done, in words."""
    names = {"first": asked.first.name, "second": asked.second.name}
    only = f"{done.images[asked.first.name]:,} only in {asked.first.name}, {done.images[asked.second.name]:,} only in "
    yield f"images: {done.images['both']:,} in both, {only}{asked.second.name}"
    if done.left_images:
        yield f"left out: {plural(done.left_images, 'image')} that {asked.first.name} does not have"
    for outcome, said in OUTCOMES.items():
        if done.pairs[outcome]:
            yield f"classes in images, {outcome}: {done.pairs[outcome]:,} ({said.format(**names)})"
    yield "masks: " + ", ".join(f"{done.masks[name]:,} of {name}" for name in names.values())
    if done.new_classes:
        yield f"new classes: {_some(done.new_classes)}"
    if done.left_classes:
        yield f"left out, classes that {asked.first.name} does not have: {_some(done.left_classes)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
