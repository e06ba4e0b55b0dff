"""What is done with every pixel of a mask, done where the model is: for all masks of an image at once, in torch.

The same functions as OpenCV and numpy compute (`masks/frames.py`, `masks/views.py`, `masks/scores.py`), so that next
to a GPU the CPU is left with distance transforms, components and run lengths. Agreement is a test
(tests/pipeline/models/test_on_device.py); last bits differ, as they do between any two execution classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.masks.binary import Mask
from pipeline.masks.frames import FloatArray, Frame
from pipeline.masks.scores import CONTRAST_RADIUS_PX, STABILITY_OFFSET
from pipeline.masks.views import AROUND_RATIO, OUTLINE_PX, Judged, View

PIXELS_AT_ONCE = 1 << 24
"""Of all masks of a pass; each takes about 80 bytes of the device's memory."""

SMALLEST_SIDE_PX = 8
"""Of images that are judged here: reflecting at a border needs pixels to reflect."""


class OnDevice:
    """Masks in numpy come in and go out; what is between stays on the device. Frames must be those of the model."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._to_mask = lru_cache(maxsize=64)(self._make_to_mask)
        self._bits = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=device)

    @torch.inference_mode()
    def fields_to_mask(
        self, fields: FloatArray, box_xyxy: tuple[int, int, int, int], frame: Frame, mask_side: int
    ) -> FloatArray:
        """As Frame.field_to_mask of fields that are 0 outside of a box, inclusive: (F, h, w) float32 of the box ->
        (F, mask_side, mask_side)."""
        x1, y1, x2, y2 = box_xyxy
        (height, width), (input_h, input_w) = frame.size_hw, frame.input_hw
        shrinks_y, shrinks_x = frame.shrinks_hw
        rows = self._to_mask(height, input_h, frame.input_side, mask_side, shrinks_y)[:, y1 : y2 + 1]
        columns = self._to_mask(width, input_w, frame.input_side, mask_side, shrinks_x)[:, x1 : x2 + 1]
        given = torch.from_numpy(np.ascontiguousarray(fields)).to(self._device)
        return _to_numpy(rows @ given @ columns.t())

    @torch.inference_mode()
    def masks(self, logits: FloatArray, frame: Frame) -> list[Mask]:
        """(N, s, s) float32 logits in one frame -> N masks (H, W) uint8 {0, 1}, where they are above 0."""
        given = torch.from_numpy(logits).to(self._device)
        step = _masks_at_once(frame.size_hw, (frame.input_side, frame.input_side))
        return [mask for part in given.split(step) for mask in self._fetched(_image_sized(part, frame) > 0)]

    @torch.inference_mode()
    def judge(
        self, pixels: npt.NDArray[np.uint8], coarse: Sequence[Mask], views: Sequence[Sequence[View]]
    ) -> list[Judged] | None:
        """As refiners/samrefiner.py without a vote of colours, for N masks of one image; None where it is too small.

        pixels: (h, w, 3) uint8 RGB at any size; coarse: N masks (H, W); views: of each mask, the whole image first.
        """
        if min(*pixels.shape[:2], *coarse[0].shape) < SMALLEST_SIDE_PX:
            return None
        image = torch.from_numpy(np.array(pixels)).to(self._device).permute(2, 0, 1).float()
        step = _masks_at_once(coarse[0].shape, pixels.shape[:2])
        judged: list[Judged] = []
        for first in range(0, len(coarse), step):
            some = slice(first, first + step)
            judged += self._judge(image, self._sent(coarse[some]), views[some])
        return judged

    def _judge(self, image: Tensor, coarse: Tensor, views: Sequence[Sequence[View]]) -> list[Judged]:
        """image (3, h, w) float32 0 to 255; coarse (N, H, W) bool."""
        fused, own = self._fuse(views, coarse.shape[1:])
        refined = fused > 0
        around = _around(coarse | refined)
        probability = torch.sigmoid(fused.clamp(-30, 30)) * around
        columns = {
            "expected_iou": _expected_iou(refined, probability),
            "coarse_expected_iou": _expected_iou(coarse, probability),
            "look_iou": _agreement(refined, own, [len(of_one) for of_one in views]),
            "outline_logit": _outline_logit(fused, refined, around, views[0][0].frame),
            "boundary_contrast": _contrast(image, refined),
            "coarse_boundary_contrast": _contrast(image, coarse),
        }
        values = torch.stack(list(columns.values()), 1).cpu().tolist()
        stabilities = self._stability(views)
        found = []
        for mask, of_one, stability, row in zip(self._fetched(refined), views, stabilities, values, strict=True):
            said = float(np.mean([np.clip(view.predicted_iou, 0, 1) for view in of_one]))
            scores = {"predicted_iou": said, "stability": stability, **dict(zip(columns, row, strict=True))}
            found.append(Judged(mask, scores))
        return found

    def _fuse(
        self, views: Sequence[Sequence[View]], size_hw: Sequence[int]
    ) -> tuple[Tensor, list[tuple[list[int], View, Tensor]]]:
        """Mean logits of the views that see a pixel, (N, H, W), and the views' own masks.

        Views that share window and frame are taken together: (their rows, one of them, masks of the window).
        """
        alike: dict[object, list[tuple[int, View]]] = {}
        for row, of_one in enumerate(views):
            for view in of_one:
                alike.setdefault((view.window, view.frame, view.mirrored), []).append((row, view))
        total = torch.zeros(len(views), *size_hw, device=self._device)
        count = torch.zeros_like(total)
        own = []
        for members in alike.values():
            rows, view = [row for row, _ in members], members[0][1]
            logits = torch.from_numpy(np.stack([view.logits for _, view in members])).to(self._device)
            field = _image_sized(logits, view.frame)
            field = field.flip(-1) if view.mirrored else field
            x1, y1, x2, y2 = view.window
            for place, row in enumerate(rows):
                total[row, y1:y2, x1:x2] += field[place]
                count[row, y1:y2, x1:x2] += 1
            own.append((rows, view, field > 0))
        return total / count.clamp_min(1), own

    def _stability(self, views: Sequence[Sequence[View]]) -> list[float]:
        """As quality.stability, the mean over each mask's views."""
        logits = torch.from_numpy(np.stack([view.logits for of_one in views for view in of_one])).to(self._device)
        high = (logits > STABILITY_OFFSET).sum((1, 2))
        low = (logits > -STABILITY_OFFSET).sum((1, 2))
        values = iter((high / low.clamp_min(1)).cpu().tolist())
        return [float(np.mean([next(values) for _ in of_one])) for of_one in views]

    def _make_to_mask(self, size: int, input_size: int, input_side: int, mask_side: int, shrinks: bool) -> Tensor:
        """One axis of Frame.field_to_mask: (mask_side, size)."""
        resize = _overlaps(input_size, size, self._device) if shrinks else _hats(input_size, size, self._device)
        reduce = _overlaps(mask_side, input_side, self._device)[:, :input_size]
        return (reduce @ resize).float()

    def _sent(self, masks: Sequence[Mask]) -> Tensor:
        """Masks of one size -> (N, H, W) bool on the device."""
        return torch.from_numpy(np.stack(masks)).to(self._device) > 0

    def _fetched(self, masks: Tensor) -> list[Mask]:
        """(N, H, W) bool -> uint8 {0, 1} masks; a bit for a pixel goes over the bus."""
        flat = masks.flatten(1)
        flat = F.pad(flat, (0, -flat.shape[1] % 8)).unflatten(1, (-1, 8))
        packed = (flat * self._bits).sum(2, dtype=torch.uint8).cpu().numpy()
        height, width = masks.shape[1:]
        return [np.unpackbits(row, count=height * width).reshape(height, width) for row in packed]


def _masks_at_once(*sizes_hw: Sequence[int]) -> int:
    return max(1, PIXELS_AT_ONCE // max(height * width for height, width in sizes_hw))


def _image_sized(logits: Tensor, frame: Frame) -> Tensor:
    """(N, s, s) -> (N, H, W), as Frame.logits_to_image (segment-anything, Sam.postprocess_masks)."""
    input_h, input_w = frame.input_hw
    if frame.stretched:
        return F.interpolate(logits[:, None], frame.size_hw, mode="bilinear", align_corners=False)[:, 0]
    square = F.interpolate(logits[:, None], (frame.input_side,) * 2, mode="bilinear", align_corners=False)
    cropped = square[..., :input_h, :input_w]
    return F.interpolate(cropped, frame.size_hw, mode="bilinear", align_corners=False)[:, 0]


def _hats(count: int, size: int, device: torch.device) -> Tensor:
    """Bilinear interpolation of `size` pixels at `count` places, as a matrix (count, size) float64."""
    places = (torch.arange(count, device=device, dtype=torch.float64) + 0.5) * (size / count) - 0.5
    pixels = torch.arange(size, device=device)
    return (1 - (places.clamp(0, size - 1)[:, None] - pixels).abs()).clamp_min(0)


def _overlaps(count: int, size: int, device: torch.device) -> Tensor:
    """Means of `size` pixels over `count` equal stretches, as a matrix (count, size) float64."""
    ends = torch.arange(count + 1, device=device, dtype=torch.float64) * (size / count)
    pixels = torch.arange(size, device=device)
    shared = torch.minimum(ends[1:, None], pixels + 1) - torch.maximum(ends[:-1, None], pixels)
    return shared.clamp_min(0) / (size / count)


def _around(masks: Tensor) -> Tensor:
    """As masks.box_around with views.evidence's margin: (N, H, W) bool, true inside of each mask's box."""
    spans = []
    for axis in (2, 1):
        hit = masks.any(axis)
        first = hit.int().argmax(1)
        last = hit.shape[1] - 1 - hit.flip(1).int().argmax(1)
        spans.append((first, last))
    sides = [torch.where(masks.any(2).any(1), last - first + 1, 0) for first, last in spans]
    margin = (AROUND_RATIO * torch.maximum(*sides).double()).round()
    inside = []
    for (first, last), size in zip(spans, masks.shape[1:], strict=True):
        places = torch.arange(size, device=masks.device)
        inside.append((places >= (first - margin)[:, None]) & (places <= (last + margin)[:, None]))
    return inside[0][:, :, None] & inside[1][:, None, :]


def _expected_iou(masks: Tensor, probability: Tensor) -> Tensor:
    """As quality.expected_iou: masks (N, H, W) bool within the region outside of which `probability` is 0 -> (N,)."""
    inside = (probability * masks).sum((1, 2))
    area = masks.sum((1, 2))
    return inside / (probability.sum((1, 2)) - inside + area).clamp_min(1e-12) * (area > 0)


def _agreement(masks: Tensor, own: Sequence[tuple[list[int], View, Tensor]], views: Sequence[int]) -> Tensor:
    """Mean IoU of each mask with its views' own, where they see; 1 where there is a single view: (N,)."""
    total = torch.zeros(len(masks), device=masks.device)
    for rows, view, seen in own:
        x1, y1, x2, y2 = view.window
        part = masks[rows][:, y1:y2, x1:x2]
        union = (part | seen).sum((1, 2))
        both = (part & seen).sum((1, 2))
        total[rows] += torch.where(union > 0, both / union.clamp_min(1), 1.0)
    count = torch.tensor(views, device=masks.device)
    return torch.where(count < 2, 1.0, total / count)


def _outline_logit(fused: Tensor, masks: Tensor, around: Tensor, frame: Frame) -> Tensor:
    """As views.evidence: mean |logit| in the band around each mask's outline, within `around`: (N,)."""
    radius = max(1, round(frame.to_image_px(OUTLINE_PX)))
    wide = _spread(masks & around, radius)
    narrow = ~_spread(~masks & around, radius)  # outside of the box nothing wears the mask down
    band = wide & ~narrow & around
    count = band.sum((1, 2))
    return (fused.abs() * band).sum((1, 2)) / count.clamp_min(1)


def _spread(masks: Tensor, radius: int) -> Tensor:
    """Dilation by a square of 2 * radius + 1 pixels: (N, H, W) bool."""
    size = 2 * radius + 1
    values = masks[:, None].float()
    values = F.max_pool2d(values, (size, 1), 1, (radius, 0))
    return F.max_pool2d(values, (1, size), 1, (0, radius))[:, 0] > 0


def _contrast(image: Tensor, masks: Tensor) -> Tensor:
    """As quality.boundary_contrast: image (3, h, w) float32 0 to 255, masks (N, H, W) bool -> (N,)."""
    size = 2 * CONTRAST_RADIUS_PX + 1
    inside = _nearest(masks, image.shape[1:])
    outline = inside & _spread(F.pad(~inside, (1, 1, 1, 1), value=True), 1)[:, 1:-1, 1:-1]
    weighted = torch.cat([inside[:, None].float(), inside[:, None] * image], 1)
    sums = _window_sums(torch.cat([weighted.flatten(0, 1), image]), size)
    inner, everywhere = sums[:-3].unflatten(0, (-1, 4)), sums[-3:]
    inner_weight, inner_colours = inner[:, :1], inner[:, 1:]
    outer_weight = size * size - inner_weight
    difference = inner_colours / inner_weight.clamp_min(1) - (everywhere - inner_colours) / outer_weight.clamp_min(1)
    counted = outline & (outer_weight[:, 0] > 0)
    distance = difference.square().sum(1).sqrt() * counted
    return distance.sum((1, 2)) / counted.sum((1, 2)).clamp_min(1) / (255 * 3**0.5)


def _window_sums(values: Tensor, size: int) -> Tensor:
    """(N, h, w) -> sums over windows of size x size, reflected at the borders as OpenCV's default."""
    padded = F.pad(values[None], (size // 2,) * 4, mode="reflect")
    return F.avg_pool2d(padded, size, 1, divisor_override=1)[0]


def _nearest(masks: Tensor, size_hw: Sequence[int]) -> Tensor:
    """(N, H, W) -> (N, h, w), as cv2.INTER_NEAREST."""
    if masks.shape[1:] == torch.Size(size_hw):
        return masks
    rows, columns = (
        torch.from_numpy(np.minimum((np.arange(new) * (1 / (new / old))).astype(np.int64), old - 1)).to(masks.device)
        for new, old in zip(size_hw, masks.shape[1:], strict=True)
    )
    return masks[:, rows][:, :, columns]


def _to_numpy(values: Tensor) -> FloatArray:
    return np.asarray(values.cpu().numpy(), np.float32)
