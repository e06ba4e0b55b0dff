"""The configuration behind a result."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dataset.settings import method_of
from pipeline.errors import JobError
from pipeline.storage import Store
from schemas import layout
from schemas.config import Config, to_yaml


def test_what_a_run_wrote_is_read_and_what_is_gone_is_said_in_one_line(tmp_path: Path) -> None:
    run = Store(str(tmp_path))
    with pytest.raises(JobError, match=rf"{layout.CONFIG} is gone; `relabel run` with the arguments it had writes it"):
        method_of(run)
    run.put(layout.CONFIG, to_yaml(Config()).encode())
    assert method_of(run) == Config()
