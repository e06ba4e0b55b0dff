"""Everything that only a GPU can show, in one command, the most telling first; see README.md beside this file.

    python -m tests.benchmarks.gpu [--minutes 9] [--only device parity rates train] [--compiled]
    python -m tests.benchmarks.gpu --device cpu --small      the same lines without a GPU; its figures are of a CPU

Every line is printed and appended to OUTPUT/gpu.jsonl as it is measured, so a run that is cut has told most. Each step
has a share of the time, and what one leaves goes to the next. Nothing needs the network; random weights stand in for
Segment Anything's, and what follows the encoder is fed logits made from the coarse masks, so that it has real work.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the steps need to know."""

    device: str
    small: bool
    compiled: bool
    packs: list[Path]
    output: Path


@dataclass
class Clock:
    """Time left for a step, and for everything."""

    ends: float
    step_ends: float = field(default=float("inf"))

    def left(self) -> float:
        """Seconds until the step should end."""
        return min(self.ends, self.step_ends) - time.monotonic()


class Step(NamedTuple):
    """`run` yields rows as it measures them; it is dropped between two rows when its time is up."""

    name: str
    share: float  # of what time is left when it begins
    run: Callable[[Options, Clock], Iterator[Row]]


def all_steps() -> list[Step]:
    """In the order of what they tell."""
    from tests.benchmarks import gpu_parity, gpu_rates, gpu_train

    return [
        Step("device", 0.1, gpu_parity.device),
        Step("parity", 0.3, gpu_parity.parity),
        Step("rates", 0.6, gpu_rates.rates),
        Step("train", 1.0, gpu_train.train),
    ]


def run_steps(steps: list[Step], options: Options, minutes: float) -> bool:
    """Whether every step ended without an error; an error is a row, and the next step begins."""
    started = time.monotonic()
    clock = Clock(started + 60 * minutes)
    options.output.mkdir(parents=True, exist_ok=True)
    fine = True
    with (options.output / "gpu.jsonl").open("a") as sink:
        for step in steps:
            clock.step_ends = time.monotonic() + step.share * max(0.0, clock.ends - time.monotonic())
            for row in _rows(step, options, clock):
                fine = fine and "error" not in row
                line = json.dumps({"at_s": round(time.monotonic() - started, 1), "step": step.name, **row})
                print(line, flush=True)
                sink.write(line + "\n")
                sink.flush()
    return fine


def _rows(step: Step, options: Options, clock: Clock) -> Iterator[Row]:
    if clock.left() <= 0:
        yield {"not_run": "no time was left"}
        return
    try:
        for row in step.run(options, clock):
            yield row
            if clock.left() <= 0:
                yield {"cut": "its time was up"}
                return
    except Exception as error:  # whatever a first run meets: the steps after it still tell something
        yield {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="a small model and few images, for a rehearsal")
    parser.add_argument("--compiled", action="store_true", help="also through torch.compile")
    parser.add_argument("--only", nargs="+", choices=["device", "parity", "rates", "train"])
    parser.add_argument(
        "--pack", dest="packs", type=Path, nargs="+", default=[Path("build/gpu-pack")], help="what gpu_pack made"
    )
    parser.add_argument("--output", type=Path, default=Path("build/gpu"))
    given = parser.parse_args()

    from pipeline.errors import RefusedError
    from pipeline.models import check_device

    try:
        check_device(given.device)
    except RefusedError as error:
        sys.stderr.write(f"{error}; nothing was measured\n")
        sys.exit(2)
    options = Options(given.device, given.small, given.compiled, given.packs, given.output)
    steps = [step for step in all_steps() if not given.only or step.name in given.only]
    sys.exit(0 if run_steps(steps, options, given.minutes) else 1)


if __name__ == "__main__":
    main()
