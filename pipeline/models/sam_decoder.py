"""Segment Anything's prompt encoder and mask decoder for inference: all prompts of all images of a batch in one pass.

What segment_anything/modeling computes, with its weights, but

- a prompt without its negative point shares the pass of those with one: nothing attends to the token that is absent;
- the two-way transformer is `two_way.py`, in `dtype`; tokens become masks and scores in float32;
- upsampling works on tokens, channels last: each transposed convolution is a matrix product, and only the masks are
  laid out as pictures.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.models.device.transfer import PromptTensors
from pipeline.models.two_way import TwoWay, dense_position, point_tokens


class SamDecoder:
    """Prompts on embeddings (B, 256, 64, 64) -> logits (N, 3, 256, 256) and predicted IoU (N, 3), float32."""

    def __init__(self, prompt_encoder: Any, mask_decoder: Any, dtype: torch.dtype = torch.float32) -> None:
        """Both on their device already."""
        self._prompts, self._decoder, self._dtype = prompt_encoder, mask_decoder, dtype
        self._grid = height, width = prompt_encoder.image_embedding_size
        position = dense_position(prompt_encoder.pe_layer, height, width).flatten(1).t().contiguous()
        self._two_way = TwoWay(mask_decoder.transformer, position, dtype)
        first, norm, _, second, _ = mask_decoder.output_upscaling
        self._up, self._norm = [_Doubling(layer) for layer in (first, second)], norm
        self._own = torch.cat([mask_decoder.iou_token.weight, mask_decoder.mask_tokens.weight]).detach()

    def __call__(self, embedding: Tensor, prompts: PromptTensors) -> tuple[Tensor, Tensor]:
        """As MaskDecoder.predict_masks, with an image for each prompt in place of one image for all."""
        decoder, count = self._decoder, len(prompts.image_index)
        tokens, present = self._tokens(prompts)
        image = embedding[prompts.image_index] + self._dense(prompts)
        hidden, source = self._two_way(
            image.flatten(2).transpose(1, 2).to(self._dtype),
            torch.cat([self._own.expand(count, -1, -1), tokens], 1).to(self._dtype),
            present,
        )
        hidden, upscaled = hidden.float(), self._upscaled(source.float())
        # Token 0 is the IoU's; mask token 0 is the single-mask output, which multimask selection leaves out.
        heads = decoder.output_hypernetworks_mlps
        weights = torch.stack([head(hidden[:, 1 + i]) for i, head in enumerate(heads) if i > 0], 1)
        masks = weights @ upscaled.flatten(1, 3).transpose(1, 2)  # (N, 3, a cell's 4 by 4 pixels, as they were doubled)
        masks = masks.unflatten(2, (*self._grid, 2, 2, 2, 2)).permute(0, 1, 2, 4, 6, 3, 5, 7)
        logits = masks.reshape(count, len(heads) - 1, 4 * self._grid[0], 4 * self._grid[1])
        return logits, decoder.iou_prediction_head(hidden[:, 0])[:, 1:]

    def _tokens(self, prompts: PromptTensors) -> tuple[Tensor, Tensor | None]:
        """Of points and boxes: (N, T, 256); and, with points, which of all tokens are there, (N, all) bool."""
        encoder, parts, present = self._prompts, [], None
        count = len(prompts.image_index)
        if prompts.points_xy is not None and prompts.point_labels is not None:
            parts.append(point_tokens(encoder, prompts.points_xy, prompts.point_labels, prompts.boxes_xyxy is None))
            there, added = prompts.point_labels >= 0, parts[0].shape[1] - prompts.points_xy.shape[1]
            more = 2 if prompts.boxes_xyxy is not None else added
            present = F.pad(F.pad(there, (len(self._own), 0), value=True), (0, more), value=True)
        if prompts.boxes_xyxy is not None:
            parts.append(encoder._embed_boxes(prompts.boxes_xyxy))
        empty = self._own.new_zeros(count, 0, self._own.shape[1])
        return torch.cat(parts, 1) if parts else empty, present

    def _dense(self, prompts: PromptTensors) -> Tensor:
        if prompts.mask_logits is not None:
            return self._prompts._embed_masks(prompts.mask_logits[:, None])
        return self._prompts.no_mask_embed.weight.view(1, -1, 1, 1)

    def _upscaled(self, source: Tensor) -> Tensor:
        """(N, L, 256) -> (N, L, 4, 4, 32): each token's 2 by 2 pixels, and each of those's, in rows of two."""
        first, second = self._up
        return F.gelu(second(F.gelu(self._normed(first(source)))))

    def _normed(self, x: Tensor) -> Tensor:
        """segment_anything's LayerNorm2d, over the last axis."""
        return F.layer_norm(x, x.shape[-1:], self._norm.weight, self._norm.bias, self._norm.eps)


class _Doubling:
    """A transposed convolution of kernel 2 and stride 2, on pixels by themselves: (..., in) -> (..., 4, out)."""

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        self._out = layer.out_channels
        self._weight = layer.weight.detach().permute(2, 3, 1, 0).reshape(-1, layer.in_channels).contiguous()
        self._bias = None if layer.bias is None else layer.bias.detach().repeat(4)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias).unflatten(-1, (4, self._out))
