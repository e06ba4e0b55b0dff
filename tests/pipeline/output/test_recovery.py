"""State heals: what says which result counts is written anew from what is there, or the user is asked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.dataset import open_result
from pipeline.errors import JobError, RefusedError
from pipeline.output.garbage import collect, find_garbage
from pipeline.output.manifest import KEEP_ONE
from pipeline.output.recovery import check_method
from pipeline.output.reseal import reseal
from pipeline.output.seal import SealRequest, seal
from pipeline.output.status import read_status
from pipeline.planning.increment import read_plan
from pipeline.refining.pending import take_on
from pipeline.storage import Access
from pipeline.storage.documents import read_current
from pipeline.storage.lease import Patience, held, in_use, unguarded, uses
from pipeline.verify.check import verify
from schemas import layout
from schemas.config import Gate, Method
from tests.pipeline.outputs import Output

CORPUS = dict.fromkeys(range(9), (2, ""))
QUICK = Patience(ttl_s=0.2, wait_s=20)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    made = Output(tmp_path / "out")
    made.plan(CORPUS)
    made.refine(made.pending())
    made.seal()
    return made


@pytest.fixture
def other(output: Output) -> Output:
    """Another method's result on the same output, which is not the current one."""
    made = Output(output.folder, method=Method(iterations=2))
    made.refine(made.pending())
    made.seal()
    output.seal(Gate(review_below=0.4))
    return made


def rows(output: Output) -> list[dict[str, object]]:
    return open_result(output.store.uri).masks().to_pylist()


def is_sound(output: Output) -> bool:
    return verify(output.store.uri, Access()).findings == []


@pytest.mark.parametrize("damage", [None, b"", b'{"fingerprint": ', b"[]"])
def test_a_pointer_is_written_anew(output: Output, damage: bytes | None) -> None:
    before = rows(output)
    pointer = output.folder / layout.CURRENT
    if damage is None:
        pointer.unlink()
    else:
        pointer.write_bytes(damage)
        with pytest.raises(JobError, match=r"current\.json is damaged.*relabel run"):
            read_current(output.store)
    with pytest.raises(JobError, match="until then nothing is removed"):
        find_garbage(output.store, KEEP_ONE)
    assert reseal(output.store, {}).changed
    assert rows(output) == before
    assert is_sound(output)


def test_of_several_methods_it_is_asked_which_one_counts(output: Output, other: Output) -> None:
    (output.folder / layout.CURRENT).unlink()
    with pytest.raises(RefusedError, match="--method NAME` says which") as refused:
        reseal(output.store, {})
    assert all(one.name in str(refused.value) for one in (output, other))
    with pytest.raises(RefusedError, match=other.name):
        check_method(output.store, output.name)
    reseal(output.store, {}, method=other.name)
    current = read_current(output.store)
    assert current is not None
    assert current.fingerprint == other.name
    assert is_sound(output)


@pytest.mark.parametrize("damage", [None, b"", b"{}"])
def test_the_same_seal_again_repairs_a_manifest(output: Output, damage: bytes | None) -> None:
    before = rows(output)
    [manifest] = output.folder.glob("runs/*/seals/0/*/manifest.json")
    if damage is None:
        manifest.unlink()
    else:
        manifest.write_bytes(damage)
    with pytest.raises(RefusedError, match=r"manifest\.json.*relabel run"):
        open_result(output.store.uri)
    with pytest.raises(JobError, match="relabel run"):
        read_status(output.store.uri, Access())
    sealed = output.seal()
    assert (sealed.changed, sealed.generation) == (True, 1)
    assert rows(output) == before
    assert is_sound(output)


@pytest.mark.parametrize("torn", [b"", b'{"owner": "', b"[]", b"null"])
def test_a_torn_lease_lapses(output: Output, torn: bytes) -> None:
    """As a file system without links leaves it when who creates it is killed."""
    output.store.put(layout.lease(3), torn)
    said: list[str] = []
    with held(output.store, QUICK, said.append) as fence:
        fence()
    assert len(said) == 1
    assert [file.path for file in output.store.list(layout.LEASES)] == [layout.lease(4)]


def test_a_damaged_part_is_named_with_what_to_do(output: Output) -> None:
    output.plan({**CORPUS, 9: (1, "")})
    output.refine(output.pending())
    [part] = output.folder.glob("runs/*/parts/0001-*")
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(JobError, match=r"parts/0001-.* is damaged .*: delete it, and run again"):
        output.seal()
    part.unlink()
    output.refine(output.pending())
    output.seal()
    assert is_sound(output)


def test_an_increment_that_the_result_has_and_the_plan_lost_is_told(output: Output) -> None:
    output.store.delete(layout.Increment(0).choice)
    for does in (output.seal, lambda: find_garbage(output.store, KEEP_ONE)):
        with pytest.raises((JobError, RefusedError), match=r"_COMMITTED was lost|no finished part"):
            does()
    output.plan(CORPUS)
    assert not output.seal().changed
    assert is_sound(output)


def test_a_run_in_progress_is_shown_and_spared(output: Output, other: Output) -> None:
    name = other.name
    with in_use(output.store, name, QUICK, "2/4"):
        [who] = uses(output.store)[name]
        assert who.endswith("Z, part 2/4")
        found = collect(output.store, unguarded, KEEP_ONE, other_methods=True)
        assert found.spared == {name: [who]}
        assert found.garbage == []
        shown = {one.fingerprint: one.refining for one in read_status(output.store.uri, Access())}
        assert shown == {output.name: [], name: [who]}
    assert uses(output.store) == {}
    found = collect(output.store, unguarded, KEEP_ONE, other_methods=True)
    assert found.spared == {}
    assert {one.path.split("/")[1] for one in found.garbage} == {name}


def test_a_run_that_was_killed_is_not_in_progress(output: Output) -> None:
    script = "import os, sys; from pipeline.storage.lease import Patience, in_use; from pipeline.storage import Store\n"
    script += "with in_use(Store(sys.argv[1]), 'feedc0ffee00', Patience()):\n    os._exit(1)"
    subprocess.run([sys.executable, "-c", script, output.store.uri], check=False)
    assert len(output.store.list(layout.LEASES)) == 1
    assert uses(output.store) == {}
    with in_use(output.store, output.name, QUICK):
        assert list(uses(output.store)) == [output.name]
    assert output.store.list(layout.LEASES) == []


def test_a_method_that_was_removed_comes_back_under_another_name(output: Output, other: Output) -> None:
    """What a removal was about to delete is not used again, whenever it goes on."""
    first = other.name
    collect(output.store, unguarded, KEEP_ONE, other_methods=True)
    assert other.name == f"{first}-1"
    other.refine(other.pending())
    other.seal()
    current = read_current(output.store)
    assert current is not None
    assert current.fingerprint == other.name
    assert is_sound(output)


def test_a_run_answers_for_what_it_took_on(output: Output) -> None:
    """Parts that something else removed meanwhile are no reason to publish less."""
    output.plan({**CORPUS, 9: (1, ""), 10: (1, "")})
    output.refine(output.pending())
    before, planned = read_current(output.store), read_plan(output.store)
    [part] = output.folder.glob("runs/*/parts/0001-*")
    part.unlink()
    request = SealRequest(output.store, output.name, Gate(), None, 1 << 20, "/photos")
    with pytest.raises(JobError, match="2 images that this run has refined are not in"):
        seal(request, took_on=take_on(planned, None))
    assert read_current(output.store) == before
    seal(request, took_on=take_on(planned, 9))  # `--limit 9`: the other two are not its business
    assert json.loads((output.folder / layout.CURRENT).read_bytes())["generation"] >= 0
