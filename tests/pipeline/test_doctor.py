"""What `relabel doctor` finds, and where it finds something wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline import doctor
from pipeline.storage import Access, Store
from tests.conftest import free_ports, small_disk


def test_a_machine_that_passes_the_tests_has_no_problem(tmp_path: Path) -> None:
    output = tmp_path / "new" / "output"
    found = list(doctor.diagnose(str(output), Access(), None, with_ray=False))
    assert [one for one in found if one.state == "problem"] == []
    assert {"python", "packages", "memory", "GPUs", "store", "conditional writes", "clock"} <= {o.check for o in found}
    assert not output.exists()


def test_an_output_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "0.json").write_text("{}")
    list(doctor.diagnose(str(tmp_path), Access(), None, with_ray=False))
    assert [path.name for path in tmp_path.rglob("*")] == ["leases", "0.json"]


def test_an_output_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = {one.check: one for one in doctor.diagnose(str(tmp_path / "file"), Access(), None, with_ray=False)}
    assert found["store"].state == found["clock"].state == "problem"
    assert "is a file; name a folder" in found["store"].found


def test_a_store_can_be_tried(bucket: str, s3_endpoint: str) -> None:
    store = Store(f"s3://{bucket}/refined", Access(s3_endpoint))
    checks = (doctor.writable, doctor.conditional_writes, doctor.clock)
    assert [check(store).state for check in checks] == ["ok", "ok", "ok"]
    assert store.list(temporary=True) == []


def test_a_store_that_does_not_answer_is_a_problem() -> None:
    [port] = free_ports(1)
    found = doctor.writable(Store("s3://bucket/refined", Access(f"http://127.0.0.1:{port}")))
    assert found.state == "problem"
    assert found.do


def test_a_clock_that_is_off_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.time.time
    monkeypatch.setattr(doctor.time, "time", lambda: real() + 1000)
    found = doctor.clock(Store(str(tmp_path)))
    assert (found.state, found.found.split()[0][:2]) == ("problem", "99")
    assert "ahead of" in found.found


def test_a_container_has_the_memory_of_its_limit(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(f"{3 << 30}\n")
    assert doctor.memory_bytes(limit) == 3 << 30
    limit.write_text("max\n")
    assert doctor.memory_bytes(limit) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_little_shared_memory_is_told(tmp_path: Path) -> None:
    with small_disk(tmp_path / "shm", "1m") as folder:
        found = doctor.shared_memory(folder)
    assert found.state == "warning"
    assert "--shm-size" in found.do


def test_a_cluster_that_is_not_there_is_a_problem() -> None:
    [port] = free_ports(1)
    assert doctor.ray(f"127.0.0.1:{port}").state == "problem"
