"""`lite` for inference: the function of `models/lite/network.py`, with fused convolutions and constants computed once.

Agreement with the network that was trained is a test (tests/pipeline/models/lite/test_fast.py).
"""

from __future__ import annotations

import copy
from functools import lru_cache, partial
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.masks.frames import PROMPT_SIDE
from pipeline.models.device.transfer import PromptTensors
from pipeline.models.fused import FusedConv
from pipeline.models.lite.backbone import TAPS, InvertedResidual, SameConv
from pipeline.models.lite.network import (
    IOU_FACTS,
    MASKS,
    PICTURE_CHANNELS,
    ImageEncoder,
    ImageFeatures,
    MaskDecoder,
    box_picture,
    fast_outline_band,
    outline_facts,
)
from pipeline.models.two_way import TwoWay, dense_position


class FastEncoder:
    """(B, 3, H, W) normalised RGB, sides multiples of 32 -> ImageFeatures."""

    def __init__(self, encoder: ImageEncoder, dtype: torch.dtype = torch.float32) -> None:
        backbone, fused = encoder.backbone, partial(FusedConv, dtype=dtype)
        self._dtype = dtype
        self._stem = _same(backbone.stem, dtype, relu6=True)
        self._blocks = [_Block(block, dtype) for block in backbone.inverted_residuals()]
        self._from32, self._from16, self._from8 = (fused(c) for c in (encoder.from32, encoder.from16, encoder.from8))
        self._side = {8: fused(encoder.side8), 4: fused(encoder.side4), 2: fused(encoder.side2)}
        self._down = {8: fused(encoder.down8), 4: fused(encoder.down4), 2: fused(encoder.down2)}
        self._merge = {
            8: fused(_conv(encoder.merge8, 2)),
            4: fused(_conv(encoder.merge4, 2)),
            2: fused(_conv(encoder.merge2, 1)),
        }
        self._norm = {8: _cast(encoder.merge8[0], dtype), 4: _cast(encoder.merge4[0], dtype)}
        self._merge16, self._norm16 = fused(_conv(encoder.merge16, 1)), _cast(encoder.merge16[2], dtype)

    def __call__(self, images: Tensor) -> ImageFeatures:
        at2, at4, at8, at16, at32 = self._taps(images.to(self._dtype))
        merged = self._from16(at16, self._from8(at8, _double(self._from32(at32))))
        embedding = self._norm16(self._merge16(F.gelu(merged)))
        skip8 = self._skip(8, at8, embedding)
        skip4 = self._skip(4, at4, skip8)
        return ImageFeatures(embedding, skip8, skip4, self._skip(2, at2, skip4))

    def _taps(self, images: Tensor) -> list[Tensor]:
        x, taps = self._stem(images), []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in TAPS:
                taps.append(x)
        return taps

    def _skip(self, stride: int, side: Tensor, below: Tensor) -> Tensor:
        x = self._side[stride](side, _double(self._down[stride](below)))
        if stride > 2:
            x = self._norm[stride](x)
        return self._merge[stride](x.relu_())


class _Block:
    """InvertedResidual."""

    def __init__(self, block: InvertedResidual, dtype: torch.dtype) -> None:
        self._expand = None if block.expand is None else _same(block.expand, dtype, relu6=True)
        self._depthwise = _same(block.depthwise, dtype, relu6=True)
        self._project, self._adds_input = _same(block.project, dtype), block.adds_input

    def __call__(self, x: Tensor) -> Tensor:
        inner = x if self._expand is None else self._expand(x)
        return self._project(self._depthwise(inner), x if self._adds_input else None)


def _same(conv: SameConv, dtype: torch.dtype, relu6: bool = False) -> FusedConv:
    return FusedConv(conv, "relu6" if relu6 else "none", None if conv.extra is None else conv.extra[0], dtype)


def _cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module itself, or a copy of it in another dtype."""
    return module if dtype == torch.float32 else copy.deepcopy(module).to(dtype)


def _conv(layers: nn.Sequential, index: int) -> nn.Conv2d:
    return cast(nn.Conv2d, layers[index])


class FastDecoder:
    """Prompts on the features of one image, or of one image each -> logits and predicted IoU, as MaskDecoder."""

    def __init__(self, decoder: MaskDecoder, grid: int, dtype: torch.dtype = torch.float32) -> None:
        """grid: tokens on the side of the padded square; the image's may be fewer.

        dtype: of all but prompt tokens, logits and what is made of them, which are float32.
        """
        fused = partial(FusedConv, dtype=dtype)
        self._plain, self._dtype = decoder, dtype
        self._down2 = fused(decoder.down2, "relu")
        self._down4, self._down8, self._down16 = (fused(c) for c in (decoder.down4, decoder.down8, decoder.down16))
        self._merge8, self._merge4 = fused(_conv(decoder.merge8, 2), "relu"), fused(_conv(decoder.merge4, 2), "relu")
        self._merge2 = fused(_conv(decoder.merge2, 1), "relu")
        self._up8, self._up4, self._up2 = (_cast(up, dtype) for up in (decoder.up8, decoder.up4, decoder.up2))
        self._norm8, self._norm4 = _cast(decoder.merge8[0], dtype), _cast(decoder.merge4[0], dtype)
        self._norm_down = {
            4: _cast(decoder.norm_down4, dtype),
            8: _cast(decoder.norm_down8, dtype),
            16: _cast(decoder.norm_down16, dtype),
        }
        self._transformer = _cast(decoder.transformer, dtype)
        self._position = dense_position(decoder.prompt_encoder.pe_layer, grid, grid).detach()
        self._two_way = lru_cache(maxsize=64)(self._make_two_way)

    def _make_two_way(self, height: int, width: int) -> TwoWay:
        position = self._position[:, :height, :width].flatten(1).t().contiguous()
        return TwoWay(self._transformer, position.to(self._dtype))

    def __call__(self, features: ImageFeatures, prompts: PromptTensors) -> tuple[Tensor, Tensor]:
        """Returns (N, MASKS, H, W) and (N, MASKS) for features whose skip2 is (1 or N, DIM2, H, W)."""
        plain, count = self._plain, len(prompts.image_index)
        height, width = features.embedding.shape[-2:]
        embedding, skip8, skip4, skip2 = (tensor.expand(count, -1, -1, -1) for tensor in features)
        picture = prompt_picture(prompts, *features.skip2.shape[-2:])
        at2 = self._down2(picture.to(self._dtype), skip2)
        at4 = self._norm_down[4](self._down4(at2, skip4)).relu_()
        at8 = self._norm_down[8](self._down8(at4, skip8)).relu_()
        image = embedding + self._norm_down[16](self._down16(at8))
        own = plain.tokens.weight[None].expand(count, -1, -1)
        tokens, image_tokens = self._two_way(height, width)(
            image.permute(0, 2, 3, 1).flatten(1, 2),
            torch.cat([own, plain.prompt_tokens(prompts)], 1).to(self._dtype),
        )
        tokens = tokens.float()
        x = image_tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)
        x = self._merge8(self._norm8(self._up8(x).add_(at8)).relu_())
        x = self._merge4(self._norm4(self._up4(x).add_(at4)).relu_())
        x = self._merge2(self._up2(x).add_(at2).relu_())
        weights = torch.stack([weigher(tokens[:, 1 + i]) for i, weigher in enumerate(plain.weighers)], 1)
        logits = torch.baddbmm(
            (plain.base * picture[:, 1:2]).flatten(2).expand(-1, MASKS, -1), weights, x.float().flatten(2)
        ).unflatten(2, x.shape[-2:])
        return logits, self._predict_iou(tokens, logits, prompts.coarse)

    def _predict_iou(self, tokens: Tensor, logits: Tensor, coarse: Tensor | None) -> Tensor:
        own = tokens[:, :1].expand(-1, MASKS, -1)
        facts = (mask_facts(logits, coarse), outline_facts(logits, fast_outline_band(logits)))
        hidden = torch.cat([own, tokens[:, 1 : 1 + MASKS], *facts], 2)
        return torch.sigmoid(self._plain.iou_head(hidden))


def prompt_picture(prompts: PromptTensors, height: int, width: int) -> Tensor:
    """As lite_network.prompt_picture, of the part of the square that the image fills: (N, PICTURE_CHANNELS, h, w)."""
    like = next(t for t in (prompts.coarse, prompts.boxes_xyxy, prompts.points_xy) if t is not None)
    picture = like.new_zeros(len(prompts.image_index), height, width, PICTURE_CHANNELS)
    if prompts.mask_logits is not None:
        most = prompts.mask_logits.abs().amax((1, 2), keepdim=True).clamp_min(1e-6)
        picture[..., 0] = prompts.mask_logits[:, :height, :width] / most
    if prompts.coarse is not None:
        picture[..., 1] = 2 * prompts.coarse[:, :height, :width] - 1
        picture[..., 2] = 1
    if prompts.boxes_xyxy is not None:
        picture[..., 3] = box_picture(prompts.boxes_xyxy, PROMPT_SIDE // 4)[:, :height, :width]
    return picture.permute(0, 3, 1, 2)


def mask_facts(logits: Tensor, coarse: Tensor | None) -> Tensor:
    """As lite_network.mask_facts, in fewer passes over the logits: (N, C, H, W) -> (N, C, IOU_FACTS)."""
    chance, inside = torch.sigmoid(logits), (logits > 0).to(logits.dtype)
    area = inside.sum((2, 3))
    both = torch.einsum("nchw,nchw->nc", chance, inside)
    facts = logits.new_zeros(*logits.shape[:2], IOU_FACTS)
    facts[..., 0] = both / (area + chance.sum((2, 3)) - both).clamp_min(1)  # max(chance, inside), summed
    facts[..., 1] = (logits > 1).sum((2, 3)) / (logits > -1).sum((2, 3)).clamp_min(1)
    if coarse is not None:
        cut = coarse[:, : logits.shape[2], : logits.shape[3]]
        overlap = torch.einsum("nchw,nhw->nc", inside, cut)
        facts[..., 2] = overlap / (area + cut.sum((1, 2))[:, None] - overlap).clamp_min(1)
        facts[..., 3] = facts[..., 2] ** 2
        facts[..., 4] = 1
    facts[..., 5] = torch.log1p(area) / 10
    return facts


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")
