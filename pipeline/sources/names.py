"""Which image a name means, where it is not simply the image's path.

Annotation files name images as another machine saw them: `images\\p0.jpg`, `two%20words.jpg`, with a leading folder,
with another suffix. Where no name is that of an image, a sample of the names shows the one rule (NameRule) that makes
them so; where some are, only how they are encoded is undone for the others. What is found is pinned in the output
(`Coverage.decide`): a name never means another image the next night.
"""

from __future__ import annotations

import heapq
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline.errors import RefusedError
from pipeline.sources.coverage import IMAGES, Coverage
from pipeline.storage import StoredFile

SAMPLE = 1000
CANDIDATES = 8
MIN_SHARE = 0.5
MAX_RULES = 64


class NameRule(NamedTuple):
    """How a name becomes a path: decode, then take `drop` off its front, put `add` there, and give it `suffix`.

    some: only for names that are no paths as they are, and become one.
    """

    decode: tuple[str, ...] = ()
    drop: str = ""
    add: str = ""
    suffix: str = ""
    some: bool = False

    def resolve(self, name: str, images: Mapping[str, StoredFile]) -> str:
        """The path that a name means in the image root."""
        if self.some and (name in images or self.apply(name) not in images):
            return name
        return self.apply(name)

    @property
    def cost(self) -> int:
        """How much of a name it changes: of two rules that fit, the cheaper one is meant."""
        return len(self.decode) + 2 * bool(self.drop) + 2 * bool(self.add) + bool(self.suffix)

    def apply(self, name: str) -> str:
        """The path that a name means."""
        path = decoded(name, self.decode)
        path = f"{self.add}{path.removeprefix(self.drop)}"
        return str(PurePosixPath(path).with_suffix(self.suffix)) if self.suffix and PurePosixPath(path).name else path

    def __str__(self) -> str:
        parts = [DECODERS[step] for step in self.decode]
        parts += [f"without the leading {self.drop}"] if self.drop else []
        parts += [f"below {self.add}"] if self.add else []
        parts += [f"with the suffix {self.suffix}"] if self.suffix else []
        return ", ".join(parts) + (" (some)" if self.some else "") or "as they are"


AS_THEY_ARE = [[], "", "", "", False]
DECODERS = {
    "url": "the path of the URL",
    "percent": "percent signs decoded",
    "slashes": "backslashes as slashes",
    "dots": "without ./ and drive letters",
    "nfc": "accents composed (NFC)",
    "nfd": "accents decomposed (NFD)",
}


def decoded(name: str, steps: Iterable[str]) -> str:
    """A name after some of DECODERS."""
    for step in steps:
        name = _step(name, step)
    return name


def _step(name: str, step: str) -> str:
    if step == "url":
        return _of_url(name)
    if step == "percent":
        return unquote(name)
    if step == "slashes":
        return name.replace("\\", "/")
    if step == "dots":
        _, _, path = name.rpartition(":/")
        return "/".join(part for part in path.split("/") if part not in ("", "."))
    return unicodedata.normalize("NFC" if step == "nfc" else "NFD", name)


def _of_url(name: str) -> str:
    """The path in a URL, also that of Label Studio's `/data/local-files/?d=...`."""
    try:
        parts = urlsplit(name)
    except ValueError:
        return name
    asked = parse_qs(parts.query).get("d")
    return asked[0] if asked else parts.path.lstrip("/")


class NameSample:
    """A thousand of the names that are no image's path, whichever order they come in, and how many of all are."""

    def __init__(self, images: Mapping[str, StoredFile]) -> None:
        self._images = images
        self._held: list[tuple[int, str]] = []
        self.names = self.matched = 0

    def add(self, name: str) -> None:
        """One name of the annotation file."""
        self.names += 1
        if name in self._images:
            self.matched += 1
            return
        weight = -zlib.crc32(name.encode("utf-8", "surrogatepass"))
        if len(self._held) < SAMPLE:
            heapq.heappush(self._held, (weight, name))
        elif weight > self._held[0][0]:
            heapq.heappushpop(self._held, (weight, name))

    def sample(self) -> list[str]:
        """The sampled names, in order."""
        return sorted(name for _, name in self._held)


def rule_for(sample: NameSample, images: Mapping[str, StoredFile], coverage: Coverage, file: str) -> NameRule:
    """The rule that names of an annotation file follow. Raises RefusedError when none makes any an image's path."""
    if not sample.names or not len(images):
        return NameRule()
    find = _encoding if sample.matched else _found
    decode, *rest = coverage.decide(f"names of {file}", lambda: find(sample, images, file))
    return NameRule(tuple(decode), *rest)


def _encoding(sample: NameSample, images: Mapping[str, StoredFile], _file: str) -> list[Any]:
    """How the names that are no paths are encoded, where others are paths as they are."""
    names = sample.sample()
    found = Counter(
        {steps: sum(decoded(name, steps) in images for name in names) for steps in _STEPS if "url" not in steps}
    )
    steps, count = max(found.items(), key=lambda pair: (pair[1], -len(pair[0])))
    return [list(steps), "", "", "", True] if count else AS_THEY_ARE


def _found(sample: NameSample, images: Mapping[str, StoredFile], file: str) -> list[Any]:
    names = sample.sample()
    by_stem = _candidates(names, images)
    rules: Counter[NameRule] = Counter()
    for name in names:
        rules.update({rule for path in by_stem.get(_loose_stem(name), ()) for rule in _relations(name, path)})
    likely = sorted(rules, key=lambda rule: (-rules[rule], rule.cost, rule))[:MAX_RULES]
    best = max(
        likely, key=lambda rule: (sum(rule.apply(name) in images for name in names), -rule.cost), default=NameRule()
    )
    if sum(best.apply(name) in images for name in names) < MIN_SHARE * len(names):
        raise RefusedError(
            f"no name in {file} is that of an image: it names {names[0]}, --images has {next(iter(images))}; "
            "is --images the folder that the names are relative to?"
        )
    return [list(best.decode), best.drop, best.add, best.suffix, False]


def _candidates(names: list[str], images: Mapping[str, StoredFile]) -> dict[str, list[str]]:
    """Paths of images whose name without folder and suffix, loosely, is that of one of the names."""
    wanted = {_loose_stem(name) for name in names}
    found: dict[str, list[str]] = defaultdict(list)
    for path in images:
        stem = _loose_stem(path)
        if stem in wanted and len(found[stem]) < CANDIDATES:
            found[stem].append(path)
    return found


def _loose_stem(name: str) -> str:
    path = decoded(name, ("url", "percent", "slashes", "nfc"))
    return PurePosixPath(path).stem.casefold()


def _relations(name: str, path: str) -> Iterator[NameRule]:
    """The rules by which a name is a path."""
    for steps in _STEPS:
        plain = decoded(name, steps)
        if not plain:
            continue
        suffix = PurePosixPath(path).suffix if PurePosixPath(plain).suffix != PurePosixPath(path).suffix else ""
        renamed = str(PurePosixPath(plain).with_suffix(suffix)) if suffix and PurePosixPath(plain).name else plain
        common = _common_tail(renamed, path)
        if common:
            yield NameRule(steps, _head(plain, renamed, common), path[: len(path) - len(common)], suffix)


def _head(plain: str, renamed: str, common: str) -> str:
    """What stands before the common end, of the name as it was before its suffix was changed."""
    return plain[: len(renamed) - len(common)]


def _common_tail(first: str, second: str) -> str:
    """The longest end of whole parts that two paths have in common, "" where they differ in their last part."""
    parts = 0
    one, two = first.split("/"), second.split("/")
    while parts < min(len(one), len(two)) and one[-1 - parts] == two[-1 - parts]:
        parts += 1
    return "/".join(one[len(one) - parts :]) if parts else ""


_STEPS: list[tuple[str, ...]] = [
    (),
    ("slashes",),
    ("percent",),
    ("dots",),
    ("slashes", "dots"),
    ("percent", "slashes"),
    ("percent", "dots"),
    ("percent", "slashes", "dots"),
    ("nfc",),
    ("nfd",),
    ("slashes", "nfc"),
    ("url",),
    ("url", "percent"),
    ("url", "percent", "slashes", "dots"),
]


def hint(name: str, images: Mapping[str, StoredFile]) -> str:
    """Why an image is not there, as far as the listing tells: "" where it is, or cannot be known."""
    if not len(images) or name in images:
        return ""
    last = PurePosixPath(decoded(name, ("slashes",))).name
    near = next((path for path in (last, unquote(last), last.lower(), last.upper()) if path and path in images), None)
    return f"the folder has {near}, the file names {name}" if near else f"--images has no {name}"


def say_matches(matched: int, names: int, what: str, coverage: Coverage) -> None:
    """Keep how many names have an image, to be said loudly where they are fewer than half."""
    coverage.dataset.setdefault("matches", {})
    found = coverage.dataset["matches"]
    if isinstance(found, dict):
        before = found.get(what, [0, 0])
        found[what] = [before[0] + matched, before[1] + names]


__all__ = ["IMAGES", "NameRule", "NameSample", "hint", "rule_for", "say_matches"]
