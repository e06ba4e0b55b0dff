"""Label Studio's JSON export (and JSON_MIN): a file of tasks, or a folder of files of one task each.

https://labelstud.io/guide/task_format. Brush (run lengths), polygon, rectangle and ellipse regions, in percent of the
image's sides; turned ones too. Key points and whatever is no region of an image are named as not read. Of a task, the
newest annotation that was not cancelled counts, and where there is none, its newest prediction; the others are named.
Options of this source:
    from=annotations|predictions|all    these alone; `all`: every annotation of a task
    image=KEY                           of a task's `data`, of which image the regions are, where it has several
A mask's source id is its region's. An image's name is the task's `image_uri` (of this project's export), else the end
of its address that is a path in --images, with or without the prefix that an upload gets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pipeline.errors import RefusedError
from pipeline.sources import annotated, documents, json_stream, regions
from pipeline.sources.annotated import Annotated
from pipeline.sources.documents import Form
from pipeline.sources.fields import as_flag, as_id, as_list, as_name, brief_value, extra_of
from pipeline.sources.names import decoded
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, SourceInput

CURE = "--source label-studio:image=KEY"
CHOICES = ("annotations", "predictions", "all")
UPLOADED = re.compile(r"^[0-9a-f]{8}-")
TASK_FIELDS = frozenset(("id", "data", "annotations", "completions", "predictions", "drafts"))
Content = Mapping[str, Any]


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every task."""
    chosen = parse(given.options)
    if given.masks_uri.lower().endswith(".json"):
        yield from annotated.plan(given, _tasks(given, chosen))
    else:
        form = Form("Label Studio", lambda path, task, given: _task(task, path, given, chosen) if fits(task) else None)
        yield from documents.scan(given, form)


class Chosen(NamedTuple):
    """results: which of a task's are taken, "" for a person's, else a model's. image: the key of the image in a task's
    data, "" for the only one.
    """

    results: str
    image: str


def parse(options: Mapping[str, str]) -> Chosen:
    """Raises RefusedError."""
    chosen = Chosen(options.get("from", ""), options.get("image", ""))
    if not options.keys() <= {"from", "image"} or chosen.results not in ("", *CHOICES):
        raise RefusedError(f"source label-studio takes from={'|'.join(CHOICES)} and image=KEY, not {dict(options)}")
    return chosen


def fits(keys: Content) -> bool:
    """Whether an entry of a list is a task, or a document with these keys; of lists the first entry may stand there."""
    if isinstance(keys.get("data"), dict):
        return any(name in keys for name in ("annotations", "predictions", "completions"))
    return "data" not in keys and any(_is_min(as_list(value)) for value in keys.values())


def _is_min(found: list[Any]) -> bool:
    return bool(found) and all(isinstance(one, dict) and "original_width" in one for one in found)


def _tasks(given: SourceInput, chosen: Chosen) -> Iterator[Annotated]:
    file = given.masks_uri.rpartition("/")[2]
    number, whole = 0, dict[str, Any]()
    for key, entry in json_stream.entries(given.masks_uri, given.access):
        if key:
            _collect(whole, key, entry)
        elif entry is not json_stream.LIST:
            number += 1
            place = f"{file}, task {number}"
            if isinstance(entry, dict) and fits(entry):
                yield _task(entry, place, given, chosen)
            else:
                given.coverage.leave(place, "no task", brief_value(entry), kind="task")
    if whole:
        if not fits(whole):
            raise RefusedError(f"{given.masks_uri} is not an export of Label Studio: it is no list of tasks")
        yield _task(whole, file, given, chosen)
    given.coverage.take(file)


def _collect(whole: dict[str, Any], key: str, entry: Any) -> None:
    """The members of a file that is one task."""
    if entry is json_stream.LIST:
        whole[key] = []
    elif isinstance(whole.get(key), list):
        whole[key].append(entry)
    else:
        whole[key] = entry


def _task(task: Content, where: str, given: SourceInput, chosen: Chosen) -> Annotated:
    if not isinstance(task.get("data"), dict):
        task = _of_min(task)
    taken = _chosen(task, where, given, chosen.results or None)
    results = [one for source in taken for one in as_list(source.get("result"))]
    found = regions.of(results, where, given.coverage)
    address = _address(task["data"], results, chosen.image or found.image)
    if address is None:
        address = _one_of(task, where, given, is_told=not found.shapes or "image_uri" in task["data"])
    given.coverage.take(where, "task")
    height, width = found.size_hw or (None, None)
    kept = {name: value for name, value in task["data"].items() if value != address and name != "image_uri"}
    rest = {**({"data": kept} if kept else {}), **({"results": found.of_image} if found.of_image else {})}
    return Annotated(
        stated=as_name(task["data"].get("image_uri")) or address,
        source_id=as_id(task.get("id", where)),
        height=height,
        width=width,
        shapes=found.shapes,
        names=_names(task, address, given),
        extra=extra_of(rest, ()),
        where=where,
    )


def _one_of(task: Content, where: str, given: SourceInput, is_told: bool) -> str:
    """Of several addresses the one that is an image of --images, or the first where there is none, or where it does
    not matter (is_told). Raises RefusedError where several are there.
    """
    found = _addresses(task["data"])
    there = {} if is_told else {key: one for key, one in found.items() if _is_there(task, one, given)}
    if len(set(there.values())) > 1:
        keys = ", ".join(there)
        raise RefusedError(f"{where} has several images ({keys}), and nothing says of which its regions are: {CURE}")
    return next(iter({**there, **found}.values()))


def _is_there(task: Content, address: str, given: SourceInput) -> bool:
    return any(name in given.images for name in _names({"data": task["data"]}, address, given) if name)


def _of_min(task: Content) -> dict[str, Any]:
    """A task of JSON_MIN as one of JSON."""
    lists = {name: value for name, value in task.items() if _is_min(as_list(value))}
    results = [
        {**one, "value": one, "from_name": name, "id": f"{name}#{number}"}
        for name, found in lists.items()
        for number, one in enumerate(found, 1)
    ]
    data = {name: value for name, value in task.items() if isinstance(value, str)}
    return {"id": task.get("id"), "data": data, "annotations": [{"result": results}]}


def _chosen(task: Content, where: str, given: SourceInput, asked: str | None) -> list[Content]:
    """The annotations or predictions that count; the others are named."""
    people = _entries(task, ("annotations", "completions"), where, given)
    models = _entries(task, ("predictions",), where, given)
    usable = [pair for pair in people if not as_flag(pair[1].get("was_cancelled"))]
    chosen = asked or ("annotations" if usable else "predictions")
    taken = usable if chosen == "all" else _newest(models if chosen == "predictions" else usable)
    for pair in people:
        if pair not in usable:
            given.coverage.ignore(pair[0], "cancelled by the annotator", kind="annotation")
        elif chosen == "predictions":
            given.coverage.ignore(pair[0], "an annotation, and from=predictions", kind="annotation")
        elif pair not in taken:
            why = "not the newest annotation of its task: from=all takes all"
            given.coverage.leave(pair[0], why, kind="annotation")
    for pair in models:
        if chosen != "predictions":
            given.coverage.ignore(pair[0], "a prediction, beside annotations", kind="prediction")
        elif pair not in taken:
            given.coverage.ignore(pair[0], "not the newest prediction of its task", kind="prediction")
    return [one for _, one in taken]


def _newest(found: list[tuple[str, Content]]) -> list[tuple[str, Content]]:
    """The last of those that changed last, as far as they say when."""
    return sorted(found, key=lambda pair: as_name(pair[1].get("updated_at") or pair[1].get("created_at")))[-1:]


def _entries(task: Content, keys: tuple[str, ...], where: str, given: SourceInput) -> list[tuple[str, Content]]:
    found: list[tuple[str, Content]] = []
    for key in keys:
        for number, one in enumerate(as_list(task.get(key)), 1):
            place = f"{where}, {key.removesuffix('s')} {number}"
            if isinstance(one, dict):
                found.append((place, one))
            else:
                given.coverage.leave(place, "no object", brief_value(one), kind=key.removesuffix("s"))
    return found


def _address(data: Content, results: list[Any], image: str) -> str | None:
    """The image's address: of the key that a result names, or that is called as the image's tag, else the only one that
    looks like an image's; None where several do. image: the tag, or the key that was asked for.
    """
    keys = [as_name(one.get("source")).lstrip("$") for one in results if isinstance(one, dict)]
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    if (named := next((texts[key] for key in (*keys, image) if key in texts), None)) is not None:
        return named
    looks = _addresses(data)
    if len(set(looks.values())) > 1:
        return None
    return next(iter(looks.values()), None) or next(iter(texts.values()), "")


def _addresses(data: Content) -> dict[str, str]:
    """Those of a task's data that look like an image's, by their keys."""
    texts = {name: value for name, value in data.items() if isinstance(value, str) and name != "image_uri"}
    return {name: value for name, value in texts.items() if _path(value).lower().endswith(tuple(IMAGE_SUFFIXES))}


def _path(address: str) -> str:
    return decoded(address, ("url", "percent", "slashes")) or address


def _names(task: Content, address: str, given: SourceInput) -> Iterator[str]:
    """The ends of the address, the longest first, then the names that an upload had."""
    yield as_name(task["data"].get("image_uri"))
    yield address
    for path in (address, _path(address)):
        root = given.images_uri.rstrip("/")
        yield path.removeprefix(f"{root}/")
        parts = path.split("/")
        yield from ("/".join(parts[start:]) for start in range(len(parts)))
    for name in (_path(address).rpartition("/")[2], as_name(task.get("file_upload")).rpartition("/")[2]):
        yield from (name, UPLOADED.sub("", name))
