"""A calibration as it is written down: JSON that turns the score components of a mask into estimates of its IoU.

Written by `relabel calibrate`, read when parts are sealed. It is data, never code: numbers, trees as flat lists, names
of score columns. Whatever does not fit this schema is refused.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.config import Method, digest

Side = Literal["coarse", "refined"]
NOT_OF_THE_MODEL = {"encode_batch", "decode_batch", "max_image_pixels", "dtype"}
"""Method fields that do not change what scores mean; `dtype` changes their third digit."""


class CalibrationError(ValueError):
    """The file is not a calibration; the text says where."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Tree(_Frozen):
    """A decision tree of n nodes, the root first. Node k goes to `left[k]` where the feature is <= `threshold[k]`,
    else to `right[k]`; a leaf has feature -1 and answers `value[k]`. Children stand after their parent."""

    feature: list[int]
    threshold: list[float]
    left: list[int]
    right: list[int]
    value: list[float]

    @model_validator(mode="after")
    def _goes_down(self) -> Tree:
        count = len(self.feature)
        if not count or {len(self.threshold), len(self.left), len(self.right), len(self.value)} != {count}:
            raise ValueError("a tree's lists differ in length, or are empty")
        for node, feature in enumerate(self.feature):
            if feature >= 0 and not (node < self.left[node] < count and node < self.right[node] < count):
                raise ValueError(f"node {node} of a tree does not lead to later nodes")
        return self


class Estimator(_Frozen):
    """Boosted trees: estimate = base + sum of the trees, cut to [0, 1]. `features`: columns (calibration/apply.py)."""

    features: list[str]
    base: float
    trees: list[Tree]

    @model_validator(mode="after")
    def _known_features(self) -> Estimator:
        if any(not -1 <= feature < len(self.features) for tree in self.trees for feature in tree.feature):
            raise ValueError("a tree asks for a feature that is not named")
        return self


class Map(_Frozen):
    """A rising piecewise linear function from a raw estimate to a calibrated one; flat beyond its ends."""

    score: list[float]
    iou: list[float]

    @model_validator(mode="after")
    def _rises(self) -> Map:
        if len(self.score) != len(self.iou) or not self.score:
            raise ValueError("a map needs as many scores as IoUs, at least one")
        if self.score != sorted(self.score) or self.iou != sorted(self.iou):
            raise ValueError("a map's values must rise")
        return self


class Certificate(_Frozen):
    """'Of the masks with quality >= `quality`, a share of at least `share` have IoU >= `iou`'.

    Each image counts once, whatever the number of its masks. `certified`: shown by Learn-then-Test, together with all
    other certificates of the same calibration, at its confidence; otherwise not certifiable on these data.
    """

    quality: float
    share: float
    iou: float
    images: int
    masks: int
    observed: float | None
    p_value: float
    certified: bool


class Distribution(_Frozen):
    """How a score was distributed when it was calibrated: inner bin edges, and the share of masks in each bin."""

    edges: list[float]
    shares: list[float]

    @model_validator(mode="after")
    def _fits(self) -> Distribution:
        if len(self.shares) != len(self.edges) + 1 or self.edges != sorted(self.edges):
            raise ValueError("a distribution has one share more than rising edges")
        return self


class Calibration(_Frozen):
    """Everything that seal needs to know about the quality of a refiner's masks.

    method_key   of the method whose scores it was fitted to (`method_key`)
    estimators   by side; a side without one starts from the fixed formula of masks/gate.py
    maps         by side, applied after it
    margin       by how much the refined mask's estimate must exceed the coarse one's
    lower_scale  quality_lower = quality - lower_scale * (1 - quality + LOWER_FLOOR) (calibration/apply.py)
    """

    version: Literal[1] = 1
    calibration_id: str = Field(min_length=1)
    note: str
    method_key: str
    fitted_on: dict[str, int | float | str]
    estimators: dict[Side, Estimator] = {}
    maps: dict[Side, Map] = {}
    margin: float = 0.0
    lower_scale: float | None = None
    lower_share: float | None = None
    confidence: float | None = None
    certificates: list[Certificate] = []
    drift: dict[str, Distribution] = {}


def method_key(method: Method) -> str:
    """12 hex digits: methods of equal key give scores of equal meaning."""
    return digest(method.model_dump(mode="json", exclude=NOT_OF_THE_MODEL))[:12]


def parse_calibration(text: str) -> Calibration:
    """JSON -> Calibration. Raises CalibrationError with one readable line."""
    try:
        return Calibration.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "the file"
        raise CalibrationError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
