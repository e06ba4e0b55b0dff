"""A disk that is full is one line that names the place, and what was done by then is gone on from."""

import tempfile
from pathlib import Path

import pytest

from pipeline.errors import JobError
from pipeline.storage import Access, Store
from pipeline.verify.check import verify
from tests.conftest import small_disk
from tests.pipeline.outputs import Output

CORPUS = dict.fromkeys(range(12), (3, ""))


def test_a_full_output_is_told_by_every_step_and_resumed(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "192k") as disk:
        output = Output(disk / "out")
        output.plan(CORPUS)
        filler = disk / "filler"
        for step in (
            lambda: output.refine(output.pending()),
            output.seal,
            lambda: output.plan({**CORPUS, 12: (1, "")}),
        ):
            fill(filler)
            with pytest.raises(JobError, match=f"cannot write {disk}/out/.*No space left") as told:
                step()
            assert "\n" not in str(told.value)
            filler.unlink()
            if step is not output.seal:
                output.refine(output.pending())
        output.seal()
        assert verify(output.store.uri, Access()).findings == []


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return


def test_a_full_disk_for_what_is_written_piece_by_piece(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        with (
            pytest.raises(JobError, match=f"no room for {disk}/out/x: .*No space left"),
            Store(str(disk / "out")).writer("x") as file,
        ):
            file.write(b"\0" * (1 << 20))
        assert not [path for path in disk.rglob("*") if path.is_file()]


def test_a_full_folder_for_temporary_files_of_an_upload(
    tmp_path: Path, s3_endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"s3://{bucket}", Access(s3_endpoint))
    with small_disk(tmp_path / "disk", "64k") as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with pytest.raises(JobError, match=f"temporary files in {disk}: .*No space left"), store.writer("x") as file:
            file.write(b"\0" * (1 << 20))
    assert store.list() == []
