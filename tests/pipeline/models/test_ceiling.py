"""Memory is in megabytes and CPUs are counted on every system, whatever unit or call it has."""

import os
import resource
import sys

import pytest

from jobs.export import usable_cpus
from pipeline.models.ceiling import peak_memory_mb


@pytest.mark.parametrize(("platform", "unit"), [("linux", 2**10), ("darwin", 2**20)])
def test_peak_memory_is_in_megabytes(platform: str, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak / unit <= peak_memory_mb("cpu") <= 1.1 * peak / unit


def test_cpus_where_the_system_cannot_say_which_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(os, "sched_getaffinity"):
        assert usable_cpus() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cpus() == os.cpu_count()
