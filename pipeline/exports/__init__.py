"""Exports: writers of one output format each. `registry.py` tells how to add one."""

from __future__ import annotations

from pipeline.exports.registry import EXPORTS, find
from pipeline.exports.types import Export

__all__ = ["EXPORTS", "Export", "find"]
