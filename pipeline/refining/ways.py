"""The methods that a chunk is refined by: categories may have a way of their own (`method.per_category`). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.config import Method


def ways(method: Method, categories: Iterable[str]) -> list[tuple[Method, frozenset[str] | None]]:
    """Each method that the masks of a chunk are refined by, with the categories that it is for; None: all of them.

    The method itself comes first, then others in the order of their categories. Those that are kept as they came are in
    none. What they are depends on the categories that are there, and on nothing else.
    """
    if not method.per_category:
        return [(method, None)]
    plain = method.model_copy(update={"per_category": {}})
    found: dict[str, tuple[Method, list[str]]] = {}
    for category in sorted(set(categories)):
        recipe = method.per_category.get(category)
        if recipe is None or not recipe.keep_coarse:
            own = plain.model_copy(update=recipe.of_method() if recipe else {})
            found.setdefault(own.model_dump_json(), (own, []))[1].append(category)
    first = found.pop(plain.model_dump_json(), None)
    return [(own, frozenset(names)) for own, names in ([first] if first else []) + list(found.values())]
