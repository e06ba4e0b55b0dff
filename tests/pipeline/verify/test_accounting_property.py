"""Exactly once, whatever happens: random corpora, chunk sizes, failures, retries, increments, prunes, limits, kills and
clean-ups on real plan, part and shard files. Hypothesis tries to break it; the model of the truth is a dictionary.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pipeline.dataset import open_result
from pipeline.errors import RefusedError
from pipeline.output.garbage import collect, find_garbage
from pipeline.output.manifest import Retention
from pipeline.planning.increment import read_plan
from pipeline.storage import Access, Store
from pipeline.storage.lease import unguarded
from pipeline.verify.check import verify
from tests.pipeline.outputs import Output, name

MASKS = st.integers(0, 3)
NUMBERS = st.integers(0, 11)
SALTS = st.sampled_from(["", "redrawn", "again"])
CORPORA = st.dictionaries(NUMBERS, st.tuples(MASKS, SALTS), min_size=1, max_size=8)
REASONS = ("storage", "image_unreadable", "mask_empty")


class Killed(BaseException):
    """The process dies: nothing in the pipeline may catch it."""


class Exactly(RuleBasedStateMachine):
    """What users and fate do to one output. After every seal, it must be what the truth says."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="relabel-property-"))
        self.corpus: dict[int, tuple[int, str]] = {}
        self.planned: dict[int, tuple[int, str]] = {}
        self.broken: dict[str, tuple[int, str]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(chunk_images=st.integers(1, 4), corpus=CORPORA)
    def begin(self, chunk_images: int, corpus: dict[int, tuple[int, str]]) -> None:
        self.output = Output(self.folder / "out", chunk_images)
        self.corpus = dict(corpus)
        self.plan_it(prune=False, writes=None)

    @rule(corpus=CORPORA, prune=st.booleans(), writes=st.none() | st.integers(0, 3))
    def plan_more(self, corpus: dict[int, tuple[int, str]], prune: bool, writes: int | None) -> None:
        """The corpus is another one now: grown, changed, and (with prune) shrunk."""
        self.corpus = dict(corpus)
        self.plan_it(prune, writes)

    def plan_it(self, prune: bool, writes: int | None) -> None:
        if self.dies_after(writes, lambda: self.output.plan(self.corpus, prune=prune)):
            return
        self.planned = dict(self.corpus) if prune else {**self.planned, **self.corpus}

    @rule(image=NUMBERS, attempts=st.integers(0, 3), reason=st.sampled_from(REASONS))
    def break_an_image(self, image: int, attempts: int, reason: str) -> None:
        """From now on it fails in its first attempts."""
        self.broken[name(image)] = (attempts, reason)

    @rule(limit=st.none() | st.integers(1, 8), share=st.integers(1, 3), writes=st.none() | st.integers(0, 4))
    def refine(self, limit: int | None, share: int, writes: int | None) -> None:
        """A run that gets through some of the pending chunks, in an order of its own, or is killed half-way."""
        tasks = self.output.pending(limit)
        self.dies_after(writes, lambda: self.output.refine(tasks[::-share], self.fails))

    @rule(share=st.integers(1, 2), writes=st.none() | st.integers(0, 3))
    def retry(self, share: int, writes: int | None) -> None:
        self.dies_after(writes, lambda: self.output.refine(self.output.retry_tasks()[::share], self.fails))

    @rule(keep=st.integers(1, 2), shard_bytes=st.sampled_from([1, 1 << 20]), writes=st.none() | st.integers(0, 5))
    def seal(self, keep: int, shard_bytes: int, writes: int | None) -> None:
        retention = Retention(keep_generations=keep)
        try:
            killed = self.dies_after(writes, lambda: self.output.seal(retention=retention, shard_bytes=shard_bytes))
        except RefusedError:
            assert "no finished part" in str(self.refusal(retention))
            return
        if killed:
            self.output.seal(retention=retention, shard_bytes=shard_bytes)
        self.check()

    @precondition(lambda self: (self.folder / "out" / "current.json").exists())
    @rule()
    def collect(self) -> None:
        """gc takes nothing that the result or a later run needs."""
        before = Counter(task.part for task in self.output.pending())
        result = open_result(str(self.output.folder)).masks().to_pylist()
        collect(self.output.store, unguarded, Retention())
        assert find_garbage(self.output.store, Retention()).garbage == []
        assert Counter(task.part for task in self.output.pending()) == before
        assert open_result(str(self.output.folder)).masks().to_pylist() == result
        assert verify(str(self.output.folder), Access()).findings == []

    @rule()
    def finish(self) -> None:
        """The whole job, undisturbed: every planned image and mask is there once, done or failed with a reason."""
        self.output.plan(self.planned)
        self.output.refine(self.output.pending(), self.fails)
        try:
            self.output.seal()
        except RefusedError:
            assert not self.planned
            return
        report = self.check()
        assert report.pending == {"images": 0, "masks": 0}
        rows = open_result(str(self.output.folder)).images().to_pylist()
        assert {row["image_id"]: row["masks"] for row in rows} == {
            name(number): count for number, (count, _) in self.planned.items()
        }

    def check(self) -> Any:
        """`verify` finds nothing, and agrees with a plain reading of plan and shards."""
        report = verify(str(self.output.folder), Access())
        assert report.findings == []
        result = open_result(str(self.output.folder))
        images, masks = result.images().to_pylist(), result.masks().to_pylist()
        assert max(Counter(row["image_id"] for row in images).values(), default=1) == 1
        assert max(Counter(row["mask_id"] for row in masks).values(), default=1) == 1
        truth = {name(number) for number in self.planned}
        assert {row["image_id"] for row in images} <= truth
        assert {row["image_id"] for row in masks} <= {row["image_id"] for row in images}
        assert read_plan(self.output.store).images == len(self.planned) == report.planned["images"]
        for kind, rows in (("images", len(images)), ("masks", len(masks))):
            assert report.done[kind] + report.failed[kind] == rows
            assert report.planned[kind] == rows + report.pending[kind]
        return report

    def fails(self, what: str, attempt: int) -> str | None:
        attempts, reason = self.broken.get(what, (0, ""))
        return reason if attempt < attempts else None

    def refusal(self, retention: Retention) -> RefusedError:
        with pytest.raises(RefusedError) as refused:
            self.output.seal(retention=retention)
        return refused.value

    def dies_after(self, writes: int | None, action: Any) -> bool:
        """Do it; the process is killed before write number `writes`, if it comes to that. Whether it was."""
        if writes is None:
            action()
            return False
        left = writes
        real_put, real_create, real_swap = Store.put, Store.create, Store.swap

        def count() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        def put(store: Store, path: str, data: bytes) -> None:
            count()
            real_put(store, path, data)

        def create(store: Store, path: str, data: bytes) -> bool:
            count()
            return real_create(store, path, data)

        def swap(store: Store, path: str, data: bytes, version: str | None) -> bool:
            if version is not None:  # else it is a create
                count()
            return real_swap(store, path, data, version)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "swap", swap)
            patch.setattr(Store, "put", put)
            patch.setattr(Store, "create", create)
            try:
                action()
            except Killed:
                return True
        return False


TestExactlyOnce = Exactly.TestCase
TestExactlyOnce.settings = settings(
    max_examples=50,
    stateful_step_count=6,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
