"""What the palette and the transparency of a mask image say of its pixels. Pure.

Places in a palette are labels, and the palette of a label image is decoration: VOC's colours say nothing that its
indices do not. But where a palette has greys only, the image is a grey one that some encoder indexed, in any order:
then black is the background, wherever in the palette it stands. The palettes of Cityscapes and ADE20K have greys among
their colours: whether an image uses others says nothing, unless it has black and white and no more.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

DARK, LIGHT, MIDDLE = 15, 240, 128  # levels up to which grey is black, from which it is white, and half-way
BLACK_ELSEWHERE = "a palette whose index 0 is not its black, read by its indices"
SEVERAL_HIDDEN = "transparent pixels of several colours, read as if they were opaque"
BLACK_SHOWN = "black pixels that are not transparent, read as background"
HIDDEN = "alpha: transparent pixels are background"

Palette = npt.NDArray[np.uint8]
Pixels = npt.NDArray[Any]


class Greys(NamedTuple):
    """pixels: (H, W) uint8 levels, of which the darkest is 0 where it is black, the lightest 255 where it is white.

    is_ordered: whether index 0 is the background for the palette too, so that the indices are labels as good.
    """

    pixels: Palette
    is_ordered: bool


class Shown(NamedTuple):
    """(H, W, 3) pixels with what is transparent set to black; a note, and what is odd, "" for nothing."""

    pixels: Pixels
    note: str = ""
    odd: str = ""


def greys(places: Palette, palette: Palette) -> Greys | None:
    """(H, W) places in a (N, 3) palette -> their greys; None where it has colours, or a place has none."""
    used = np.unique(places)
    if not len(used) or int(used[-1]) >= len(palette):
        return None
    if not (palette == palette[:, :1]).all():  # of classes, whose ids are the indices in every image
        return None
    levels = palette[:, 0].copy()
    shades = np.unique(levels[used])
    darkest, lightest = int(shades[0]), int(shades[-1])
    is_all_white = len(shades) == 1 and lightest >= LIGHT
    is_dark = darkest <= DARK or (len(shades) == 2 and darkest < MIDDLE <= lightest)
    is_ordered = not is_all_white and (int(levels[0]) <= darkest or not is_dark)
    levels[palette[:, 0] == darkest] = 0 if is_dark else darkest
    levels[palette[:, 0] == lightest] = 255 if lightest >= LIGHT else lightest
    return Greys(levels[places], is_ordered)


def is_black_elsewhere(places: Palette, palette: Palette) -> bool:
    """Whether black is in use, and not at index 0, nor at 255 as void: the indices may be the order of an encoder."""
    used = np.unique(places)
    used = used[(used < len(palette)) & (used != 255)]
    black = ~palette[used].any(axis=1)
    return bool(len(palette) and palette[0].any() and black.any())


def without_hidden(pixels: Pixels, alpha: Palette) -> Shown | None:
    """(H, W, 3) pixels that are not all of one colour, by their (H, W) alpha; None: the alpha is the mask.

    What is transparent is no object, if one colour fills it. Where it is black already, the colours say as much.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return Shown(pixels)
    below, black = pixels[hidden], np.asarray(~pixels.any(axis=2))
    if not (below == below[:1]).all():
        return Shown(pixels, odd=SEVERAL_HIDDEN)
    shown = black[~hidden]
    if shown.all():
        return None
    odd = BLACK_SHOWN if shown.any() else ""
    if black[hidden].all():
        return Shown(pixels, odd=odd)
    return Shown(np.where(hidden[..., None], 0, pixels).astype(pixels.dtype), HIDDEN, odd)
