"""How fast training goes, how much of it is waiting for data, and sleeping while the pause file exists."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pipeline.models.ceiling import settle
from pipeline.models.lite.training import parallel
from pipeline.models.lite.training.config import TrainConfig
from pipeline.models.lite.training.prompting import Batch

LOOK_EVERY_S = 2.0


class Pace:
    """Since the last reading of `rates`: prompts a second, and the share of the time that went into getting batches.

    A device works on its own time, so the last batch before a reading is timed with the device settled before and
    after it; the others are counted like that one.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._clock, self._prompts, self._waited, self._steps = time.perf_counter(), 0, 0.0, 0
        self._on_device = config.device != "cpu"

    def timed(self, source: Iterator[Batch]) -> Batch:
        """The next batch."""
        settles = self._on_device and self._steps % self._config.report_every == 0
        if settles:
            settle(self._config.device)
        started = time.perf_counter()
        batch = next(source)
        if settles:
            settle(self._config.device)
        if settles or not self._on_device:
            self._waited += time.perf_counter() - started
        self._prompts += len(batch.image_index)
        self._steps += 1
        return batch

    def rates(self) -> tuple[float, float]:
        """(prompts a second, share waited), and a new count."""
        now = time.perf_counter()
        elapsed = max(now - self._clock, 1e-9)
        waited = self._waited * (self._steps if self._on_device else 1)
        found = self._prompts * self._config.processes / elapsed, min(1.0, waited / elapsed)
        self._clock, self._prompts, self._waited, self._steps = now, 0, 0.0, 0
        return found

    def pause(self) -> float:
        """Sleep while the pause file exists; seconds slept. All processes of a run do so together."""
        started = time.monotonic()
        while parallel.agree(float(self._config.pause_file.exists())):
            time.sleep(LOOK_EVERY_S)
        slept = time.monotonic() - started
        if slept < LOOK_EVERY_S:
            return 0.0
        self._clock += slept
        return slept
