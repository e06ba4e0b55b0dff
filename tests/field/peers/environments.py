"""Environments of the peers that read our exports, each of its own, in build/peers/NAME/ by uv: `make peers`.

A peer that cannot be installed is named, and its tests skip.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "build" / "peers"
READERS = Path(__file__).parent / "readers"

PEERS: dict[str, tuple[str, ...]] = {
    "pycocotools": ("pycocotools>=2.0.11", "pillow"),
    "lvis": ("lvis>=0.5.3", "opencv-python-headless", "pycocotools"),
    "panopticapi": ("panopticapi @ git+https://github.com/cocodataset/panopticapi.git",),
    "cityscapesscripts": ("cityscapesscripts>=2.3", "numpy<2"),
    "supervision": ("supervision>=0.31", "opencv-python-headless"),
    "datumaro": ("datumaro>=1.13",),
    "ultralytics": ("ultralytics>=8.4",),
    "label-studio": ("label-studio>=1.23",),
    "label-studio-sdk": ("label-studio-sdk>=2.1",),
    "label-studio-converter": ("label-studio-converter>=0.0.59",),
    "fiftyone": ("fiftyone>=1.22", "pycocotools"),
}


def python(name: str) -> Path:
    """The peer's interpreter; there once its environment is whole."""
    return FOLDER / name / "bin" / "python"


def reader(name: str) -> Path:
    """The script that decodes with it; both of Label Studio's have one."""
    stem = "label_studio" if name.startswith("label-studio") else name
    return READERS / f"{stem}_.py"


def build(name: str, packages: tuple[str, ...]) -> bool:
    """Make one environment, unless it is there; whether it is."""
    if (FOLDER / name / "whole").exists():
        return True
    uv = [str(Path(sys.executable).with_name("uv"))]
    for command in (
        [*uv, "venv", "--quiet", "--clear", "--python", "3.11", str(FOLDER / name)],
        [*uv, "pip", "install", "--quiet", "--python", str(python(name)), *packages],
    ):
        if subprocess.run(command, check=False).returncode != 0:
            return False
    (FOLDER / name / "whole").touch()
    return True


def is_whole(name: str) -> bool:
    """Whether the environment can be used."""
    return (FOLDER / name / "whole").exists()


def main() -> None:
    """Build those that are named, or all."""
    wanted = sys.argv[1:] or list(PEERS)
    missing = [name for name in wanted if not build(name, PEERS[name])]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} peers in {FOLDER}", *(f"not installed: {m}" for m in missing))


if __name__ == "__main__":
    main()
