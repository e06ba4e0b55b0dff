"""What a look found, as lines for people and as JSON. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.inspection.look import Found
from pipeline.inspection.oddities import Oddity, oddities
from pipeline.sources import scan_table
from pipeline.sources.coverage import READ
from pipeline.words import plural

MAX_SIZES = 6
MAX_CATEGORIES = 25


def lines(found: Found, max_unread: int) -> list[str]:
    """Format, coverage, sizes, categories, oddities and the verdict, a fact a line."""
    said = [f"masks: {found.masks_uri}"]
    if found.source:
        said += [f"format: {found.source} ({found.format}), {found.why}", f"images: {found.images_uri}"]
    said += [f"THIS IS A SAMPLE: only {cut}; --limit 0 reads all" for cut in found.cut]
    if found.scan is not None:
        said += [*_what_was_read(found.scan), *scan_table.lines({**found.scan, "categories": []})]
    said += [f"sizes: {text}" for text in sizes(found)]
    if found.scan is not None:
        said += category_lines(found.scan)
    if found.without_masks:
        said.append(f"{found.without_masks} of {found.images} planned images have no mask")
    odd = oddities(found.seen)
    if found.seen:
        said.append(f"looked at {plural(len(found.seen), 'image')}: {'' if odd else 'nothing odd'}".rstrip())
    said += [f"  {oddity_line(one)}" for one in odd]
    return [*said, f"verdict: {verdict(found, max_unread)}"]


def verdict(found: Found, max_unread: int) -> str:
    """What planning would do, in a sentence."""
    if found.refused is not None:
        hint = " (of a sample: --limit 0 reads all)" if found.cut else ""
        return f"planning would REFUSE this: {found.refused}{hint}"
    all_of_it = "this sample" if found.cut else "all of it"
    if found.unread > max_unread:
        unread = plural(found.unread, "file or entry", "files or entries")
        return f"planning would leave {unread} UNREAD, more than --max-unread {max_unread}"
    return f"planning would accept {all_of_it}: {plural(found.images, 'image')} with {plural(found.masks, 'mask')}"


def sizes(found: Found) -> list[str]:
    """Declared and true sizes, the most frequent first."""
    true = Counter((seen.row["height"], seen.row["width"]) for seen in found.seen if seen.pixels is not None)
    said = [_sizes(found.sizes, "declared for {}")] if found.sizes else []
    return [*said, *([_sizes(true, "of {} looked at")] if true else [])]


def _sizes(counted: Counter[tuple[int, int]], of: str) -> str:
    most = ", ".join(f"{width}x{height} ({count})" for (height, width), count in counted.most_common(MAX_SIZES))
    more = f" and {len(counted) - MAX_SIZES} more" if len(counted) > MAX_SIZES else ""
    return f"{of.format(plural(sum(counted.values()), 'image'))}: {most}{more}"


def category_lines(scan: Mapping[str, Any]) -> list[str]:
    """Each category with its masks, and those that are declared and have none."""
    ranked = sorted(scan["categories"], key=lambda one: (-one["masks"], one["category_id"]))
    said = [
        f"  {one['masks']:>8}  {one['category_id']:>6}  {one['category'] or '-'}" for one in ranked[:MAX_CATEGORIES]
    ]
    more = [f"  and {len(ranked) - MAX_CATEGORIES} more"] if len(ranked) > MAX_CATEGORIES else []
    empty = without_a_mask(scan)
    shown = ", ".join(empty[:MAX_CATEGORIES]) + (", ..." if len(empty) > MAX_CATEGORIES else "")
    lost = [f"  declared, and without a mask: {shown}"] if empty else []
    return [f"categories: {len(ranked)} (masks, id, name)", *said, *more, *lost] if ranked or lost else []


def without_a_mask(scan: Mapping[str, Any]) -> list[str]:
    """Names of categories that the dataset declares and no mask has."""
    declared = [one for one in scan["dataset"].get("categories", []) if isinstance(one, dict)]
    used = {str(one["category_id"]) for one in scan["categories"]} | {one["category"] for one in scan["categories"]}
    return [
        str(one.get("name") or one.get("id"))
        for one in declared
        if not {str(one.get("id")), str(one.get("name"))} & used
    ]


def oddity_line(odd: Oddity) -> str:
    """As `2 images: masks overlap (e.g. a.jpg: ...)`."""
    return f"{plural(odd.images, 'image')}: {odd.what} ({'e.g. ' if odd.images > 1 else ''}{odd.example})"


def as_dict(found: Found, max_unread: int, written: Sequence[str]) -> dict[str, Any]:
    """Everything, as JSON takes it."""
    return {
        "masks_uri": found.masks_uri,
        "images_uri": found.images_uri,
        "source": found.source,
        "format": found.format,
        "why": found.why,
        "sample": found.cut,
        "refused": found.refused,
        "verdict": verdict(found, max_unread),
        "images": found.images,
        "masks": found.masks,
        "images_without_masks": found.without_masks,
        "unread": found.unread,
        "coverage": found.scan,
        "categories_without_a_mask": without_a_mask(found.scan) if found.scan else [],
        "sizes": [{"height": h, "width": w, "images": count} for (h, w), count in found.sizes.most_common()],
        "looked_at": [seen.row["image_uri"] for seen in found.seen],
        "odd": [asdict(odd) for odd in oddities(found.seen)],
        "written": list(written),
    }


def _what_was_read(scan: Mapping[str, Any]) -> list[str]:
    """The files and entries that were read, by kind."""
    read = [tally for tally in scan["found"] if tally["state"] == READ and tally["root"] == "masks"]
    said = (f"{tally['kind']}: {tally['count']}{_example(tally)}" for tally in read)
    return [f"read: {', '.join(said)}"] if read else []


def _example(tally: Mapping[str, Any]) -> str:
    several = "e.g. " if tally["count"] > 1 else ""
    return f" ({several}{tally['names'][0]})" if tally["names"][0] else ""
