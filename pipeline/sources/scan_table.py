"""The coverage of a planning pass, as a scan keeps it (`scans/<digest>.json`), as a table for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.sources.coverage import IGNORED, IMAGES, MASKS, ODD, READ, UNNAMED, UNREAD
from pipeline.sources.names import AS_THEY_ARE, NameRule
from pipeline.sources.pairing import RULES
from pipeline.words import one_line, plural

FEW = 0.5
"""A share of matched names below it is said loudly."""
MAX_SHOWN = 12
UNITS = ("file or entry", "files and entries")
NAMES = {"names of images": "image names in the masks"}
"""What was matched, as it is kept, and as it is said."""
STATES = {
    READ: "read",
    UNREAD: "NOT read",
    IGNORED: "ignored",
    UNNAMED: "no mask belongs to it",
    ODD: "odd",
}


def lines(scan: Mapping[str, Any]) -> list[str]:
    """The coverage of a pass as a table for people, a row a line."""
    found = [f"coverage ({scan['source']}): {_sum(scan, MASKS)}; {_sum(scan, IMAGES)}"]
    for what, (matched, names) in scan["matches"].items():
        few = "  ONLY " if matched < FEW * names else "  "
        found.append(f"{few}{matched} of {names} {NAMES.get(what, what)} belong to an image")
    found += [f"  {rule}" for rule in _rules(scan["rules"])]
    shown = [tally for tally in scan["found"] if tally["state"] != READ]
    shown.sort(key=lambda tally: (list(STATES).index(tally["state"]), -tally["count"]))
    found += [f"  {_line(tally)}" for tally in shown[:MAX_SHOWN]]
    if len(shown) > MAX_SHOWN:
        found.append(f"  and {plural(len(shown) - MAX_SHOWN, 'more kind')}")
    found += [f"  masks: {_categories(scan['categories'])}"] if scan["categories"] else []
    return [one_line(line) for line in found]


def _sum(scan: Mapping[str, Any], root: str) -> str:
    counts = {
        state: sum(tally["count"] for tally in scan["found"] if (tally["root"], tally["state"]) == (root, state))
        for state in (READ, UNREAD, IGNORED, UNNAMED)
    }
    said = ", ".join(_total(root, state, count) for state, count in counts.items() if count)
    return f"--{root} {said or 'not listed'}"


def _total(root: str, state: str, count: int) -> str:
    if state == READ:
        return f"{count:,} planned" if root == IMAGES else f"{plural(count, *UNITS)} read"
    return f"{count:,} {'without a mask' if state == UNNAMED else STATES[state]}"


def _line(tally: Mapping[str, Any]) -> str:
    names = ", ".join(tally["names"][: 1 if tally["count"] > 1 else None])
    what = f"{tally['count']} {tally['kind']}" if tally["kind"] else str(tally["count"])
    where = "" if tally["state"] == ODD else f"--{tally['root']}: "
    state = STATES[tally["state"]]
    why = state if tally["reason"] == state else f"{state}: {tally['reason']}"
    return f"{where}{what} {why} ({'e.g. ' if tally['count'] > 1 else ''}{names})"


def _rules(rules: Mapping[str, Any]) -> Iterator[str]:
    """Rules that were found, in words; what is as it always is goes without saying."""
    for name, value in rules.items():
        if name.startswith("names of") and list(value) != AS_THEY_ARE:
            yield f"{name} are read {NameRule(tuple(value[0]), *value[1:])}"
        elif name.startswith("pairs of") and value != "same":
            yield f"masks and images are paired by {RULES[value].what}"


def _categories(categories: Sequence[Mapping[str, Any]]) -> str:
    ranked = sorted(categories, key=lambda one: (-one["masks"], one["category_id"]))
    said = [f"{one['masks']} of {one['category'] or 'category {}'.format(one['category_id'])}" for one in ranked[:8]]
    return ", ".join(
        [*said, *([f"and {plural(len(ranked) - 8, 'more category', 'more categories')}"] if len(ranked) > 8 else [])]
    )
