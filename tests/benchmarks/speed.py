"""The peer comparison: the same masks, weights and iterations through a plain loop and through this project.

    python -m tests.benchmarks.speed --data ../shared/data/dev      (make bench-speed)

Ways are run in turn (A B A B ...), each in a process of its own; ratios are of medians within this run. Parts: `lite`
(the loop against one process), `encoder` (ViT-B), `ray` (`relabel run`, and Ray around a model that sleeps), `overlap`
(several chunks around one model), `jpeg` (large ones decoded whole and reduced), `s3` (clients).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline.masks import binary

PARTS = ["lite", "encoder", "ray", "overlap", "jpeg", "s3"]


def worker(module: str, *words: str) -> dict[str, Any]:
    """Run `python -m tests.benchmarks.<module> ...`; what it prints last is JSON."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def lite(data: Path, images: int, rounds: int, iterations: int, threads: int | None) -> dict[str, Any]:
    """(a) against (b): images/s, CPU-seconds per image, and whether the masks are the same ones."""
    rates: dict[str, list[float]] = {"loop": [], "project": []}
    cpu: dict[str, list[float]] = {"loop": [], "project": []}
    answers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for way, found in rates.items():
                path = Path(folder) / f"{way}.json"
                words = ["--data", str(data), "--images", str(images), "--iterations", str(iterations)]
                words += ["--threads", str(threads)] if threads else []
                result = worker("speed_lite", way, *words, "--masks-to", str(path))
                found.append(result["images"] / result["seconds"])
                cpu[way].append(result["cpu_seconds"] / result["images"])
                answers[way] = json.loads(path.read_text())
    pairs = [
        binary.iou(binary.decode(a), binary.decode(b))
        for of_image in zip(answers["loop"], answers["project"], strict=True)
        for a, b in zip(*of_image, strict=True)
    ]
    loop, project = (statistics.median(rates[way]) for way in ("loop", "project"))
    return {
        "images_per_s": {way: [round(rate, 2) for rate in found] for way, found in rates.items()},
        "ratio": round(project / loop, 2),
        "cpu_s_per_image": {way: [round(seconds, 3) for seconds in found] for way, found in cpu.items()},
        "cpu_ratio": round(statistics.median(cpu["loop"]) / statistics.median(cpu["project"]), 2),
        "masks": len(pairs),
        "mean_iou_between": round(statistics.mean(pairs), 4),
        "least_iou_between": round(min(pairs), 4),
    }


def encoder(images: int, rounds: int) -> dict[str, Any]:
    """ViT-B's image encoder, the package's against this project's."""
    found: dict[str, list[dict[str, Any]]] = {"package": [], "project": []}
    for number in range(rounds):
        for way, results in found.items():
            check = ["--check"] if way == "project" and number == 0 else []
            results.append(worker("speed_encoder", way, "--images", str(images), *check))
    ratios = {}
    for name, key in (("ratio", "seconds_per_image"), ("cpu_ratio", "cpu_seconds_per_image")):
        package, project = (statistics.median(r[key] for r in found[way]) for way in found)
        ratios[name] = round(package / project, 2)
    return {**found, **ratios}


def ray(data: Path, images: int, iterations: int, threads: int | None) -> dict[str, Any]:
    """(c) against (b): `relabel run` with an actor for each core, start-up apart; and what Ray itself costs."""
    found: dict[str, Any] = {}
    if data.exists():
        cores = threads or os.cpu_count() or 1
        words = ["--data", str(data), "--images", str(images), "--iterations", str(iterations)]
        alone = worker("speed_lite", "project", *words, "--threads", str(cores))
        run = worker("speed_ray", "photos", *words, "--actors", str(cores), "--repeats", "4")
        rate = alone["images"] / alone["seconds"]
        found["photos"] = {
            "one_process": round(rate, 3),
            "relabel_run": run,
            "ratio": round(run["images_per_s_up"] / rate, 3),
        }
    sizes = [(2000, 2), (8000, 4), (16_000, 8), (32_000, 8)]
    found["machinery"] = [
        worker("speed_ray", "machinery", "--images", str(count), "--actors", str(actors)) for count, actors in sizes
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/dev"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--images", type=int, default=30, help="of `lite`")
    parser.add_argument("--encoder-images", type=int, default=8)
    parser.add_argument("--ray-images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of either way; default: what each would take")
    options = parser.parse_args()
    found: dict[str, Any] = {"cores": os.cpu_count(), "load_before": os.getloadavg()}
    if "lite" in options.parts:
        if options.data.exists():
            found["lite"] = lite(options.data, options.images, options.rounds, options.iterations, options.threads)
        else:
            found["lite"] = f"skipped: no data at {options.data}"
    if "encoder" in options.parts:
        found["encoder"] = encoder(options.encoder_images, options.rounds)
    if "ray" in options.parts:
        found["ray"] = ray(options.data, options.ray_images, options.iterations, options.threads)
    for part in ("overlap", "jpeg"):
        if part in options.parts and options.data.exists():
            found[part] = worker(f"speed_{part}", "--data", str(options.data))
    if "s3" in options.parts:
        found["s3"] = worker("speed_s3")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
