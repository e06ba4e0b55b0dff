"""What can be found of masks. A kind is a name, what it says, and the patch that would cure it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.dataset.findings import finding_id
from pipeline.masks.binary import Rle

Row = dict[str, Any]

REMOVE, SPLIT, ADD, CLASS, LOOK = "remove", "split", "add", "class", "look"
"""Actions of patches; `look`: a person has to say what to do."""


class Kind(NamedTuple):
    """title: in words; action: of a finding, unless it says another."""

    title: str
    action: str


KINDS = {
    "duplicate": Kind("two masks of the same pixels", REMOVE),
    "several": Kind("one mask that seems to hold several objects", SPLIT),
    "inside": Kind("a mask within another one of its class", REMOVE),
    "half": Kind("a mask that seems to be a part of its object", LOOK),
    "overlap": Kind("two masks that share many pixels", LOOK),
    "box": Kind("a box that is not that of its mask", LOOK),
    "uncovered": Kind("an object that no mask covers, as the model sees it", ADD),
    "class": Kind("a mask that looks like another class", CLASS),
}
WITH_MODEL = ("uncovered", "class")
"""Kinds that are looked for where a model is named."""


@dataclass(frozen=True)
class Finding:
    """One finding. mask: the row that the action is about; other: the one that it collides with; both of MASKS.

    rle: of a mask that is not there yet; `mask` then says which image it is of. suggested: a class that it looks like.
    """

    kind: str
    mask: Row
    other: Row | None
    certainty: float
    measure: float
    detail: str
    action: str = ""
    rle: Rle | None = None
    suggested: str | None = None

    def row(self) -> Row:
        """As FINDINGS has it."""
        other = self.other or {}
        masks = [{**self.mask, "mask_rle": self.rle} if self.rle else self.mask, self.other]
        if self.suggested is not None:
            masks.append({"mask_id": f"class {self.suggested}"})
        return {
            "finding_id": finding_id(self.kind, self.mask["image_id"], *masks),
            "kind": self.kind,
            **{name: self.mask[name] for name in ("image_id", "image_uri", "mask_id", "category")},
            "other_mask_id": other.get("mask_id"),
            "other_category": self.suggested or other.get("category"),
            "action": self.action or KINDS[self.kind].action,
            "certainty": self.certainty,
            "measure": self.measure,
            "rle": self.rle,
            "detail": self.detail,
            "verdict": None,
        }
