"""What a peer made of an export, as a file that the tests read. Runs in the peer's environment: numpy alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Decoded = tuple[str, str, Any]
"""Image, class, (H, W) mask. The image as the peer calls it; the class by its name."""


def main(read: Callable[..., Iterable[Decoded]]) -> None:
    """`python READER.py FOUND.npz ARGUMENT...`: write what `read(ARGUMENT...)` gives."""
    found = list(read(*sys.argv[2:]))
    masks = {str(number): np.asarray(mask).astype(bool) for number, (_, _, mask) in enumerate(found)}
    names = json.dumps([[str(image), str(name)] for image, name, _ in found])
    np.savez_compressed(sys.argv[1], names=np.array(names), **masks)
