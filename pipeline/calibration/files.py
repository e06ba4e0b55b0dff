"""Calibrations as files: those that come with the package, and those that `relabel calibrate` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import RefusedError
from pipeline.storage import Access, read_text
from schemas.calibration import Calibration, CalibrationError, method_key, parse_calibration
from schemas.config import Gate, Method

PACKAGED_FOLDER = Path(__file__).parents[1] / "models" / "weights"
MAX_CALIBRATION_BYTES = 1 << 26
NAMED = PACKAGED, NONE = "packaged", "none"


def packaged(method: Method) -> Calibration | None:
    """The calibration that came with the package for this method and these weights, if there is one."""
    return next((one for one in all_packaged() if one.method_key == method_key(method)), None)


def all_packaged() -> Iterator[Calibration]:
    """Every calibration of the package, by file name."""
    for path in sorted(PACKAGED_FOLDER.glob("*.calibration.json")):
        yield parse_calibration(path.read_text(encoding="utf-8"))


def read_calibration(uri: str, access: Access) -> Calibration:
    """A calibration file. Raises RefusedError."""
    try:
        return parse_calibration(read_text(uri, access, MAX_CALIBRATION_BYTES, "calibration"))
    except CalibrationError as error:
        raise RefusedError(f"{uri} is not a calibration: {error}") from None


def calibration_for(gate: Gate, method: Method, access: Access) -> Calibration | None:
    """What the gate names. Raises RefusedError for a file that was fitted to scores of another method."""
    if gate.calibration == NONE:
        return None
    if gate.calibration == PACKAGED:
        return packaged(method)
    found = read_calibration(gate.calibration, access)
    if found.method_key != method_key(method):
        raise RefusedError(
            f"{gate.calibration} was fitted to another method or other weights (key {found.method_key}, this one's is "
            f"{method_key(method)}): their scores mean something else. Calibrate this result: relabel calibrate"
        )
    return found
