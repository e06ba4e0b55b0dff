"""Segment Anything's two-way transformer for inference: what depends on the position alone is computed once.

Prompt tokens and image tokens attend to one another (segment_anything/modeling/transformer.py, whose weights these
are). A projection of `keys + position` is one of `keys` plus a constant, so the three projections of the image's tokens
in a layer are one matrix product. Agrees with the original up to the order of sums.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.models.sam_layers import TwoWayTransformer


def dense_position(layer: Any, height: int, width: int) -> Tensor:
    """(C, height, width): as layer((height, width)) of segment_anything's PositionEmbeddingRandom, to the bit.

    Without its cumulative sums, which are not deterministic on every GPU, and which torch then refuses.
    """
    device = layer.positional_encoding_gaussian_matrix.device
    y, x = ((torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side for side in (height, width))
    return layer._pe_encoding(torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1)).permute(2, 0, 1)


def point_tokens(encoder: Any, points_xy: Tensor, labels: Tensor, pad: bool) -> Tensor:
    """As _embed_points of segment_anything's PromptEncoder, to the bit: (N, P, 2), (N, P) -> (N, P or P + 1, C).

    Without indexing by masks, each of which waits for the device on GPUs.
    """
    points = points_xy + 0.5
    if pad:
        points, labels = F.pad(points, (0, 0, 0, 1)), F.pad(labels, (0, 1), value=-1)
    embedded = encoder.pe_layer.forward_with_coords(points, encoder.input_image_size)
    kinds = [encoder.not_a_point_embed, *encoder.point_embeddings[:2]]  # of labels -1, 0, 1
    absent, negative, positive = (kind.weight for kind in kinds)
    label = labels[..., None]
    embedded = torch.where(label == -1, torch.zeros_like(embedded) + absent, embedded)
    return torch.where(label == 0, embedded + negative, torch.where(label == 1, embedded + positive, embedded))


class TwoWay:
    """(image tokens, prompt tokens) -> both, attended to. Made for one grid of positions."""

    def __init__(self, transformer: TwoWayTransformer, position: Tensor, dtype: torch.dtype | None = None) -> None:
        """position: (L, C) of each image token; dtype: of a copy of the transformer that is used, None: as it is."""
        if dtype is not None and dtype != position.dtype:
            transformer, position = copy.deepcopy(transformer).to(dtype), position.to(dtype)
        self._transformer = transformer
        self._layers = [
            _Projection(
                [layer.cross_attn_token_to_image.k_proj, layer.cross_attn_image_to_token.q_proj],
                layer.cross_attn_token_to_image.v_proj,
                position,
            )
            for layer in transformer.layers
        ]
        final = transformer.final_attn_token_to_image
        self._final = _Projection([final.k_proj], final.v_proj, position)

    def __call__(self, image: Tensor, prompts: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """image: (N, L, C); prompts: (N, T, C). Returns prompts (N, T, C) and image (N, L, C).

        present: (N, T) bool, the prompts' tokens that are there; nothing attends to others. None: all are.
        """
        queries, keys = prompts, image
        mask = None if present is None else present[:, None, None]
        for layer, projection in zip(self._transformer.layers, self._layers, strict=True):
            queries, keys = _block(layer, projection, queries, keys, prompts, mask)
        final = self._transformer.final_attn_token_to_image
        key, value = self._final(keys)
        attended = _attend(final, final.q_proj(queries + prompts), key, value)
        return self._transformer.norm_final_attn(queries + attended), keys


class _Projection:
    """Several linear maps of the image's tokens in one: first those of keys + position, last that of keys alone."""

    def __init__(self, positioned: list[Any], plain: Any, position: Tensor) -> None:
        weights = [linear.weight.detach() for linear in (*positioned, plain)]
        self._sizes = [len(weight) for weight in weights]
        self._weight = torch.cat(weights)
        offsets = [F.linear(position, linear.weight, linear.bias).detach() for linear in positioned]
        self._offset = torch.cat([*offsets, plain.bias.detach().expand(len(position), -1)], dim=1)

    def __call__(self, keys: Tensor) -> tuple[Tensor, ...]:
        if len(keys) == 1:
            projected = torch.addmm(self._offset, keys[0], self._weight.t())[None]
        else:
            projected = F.linear(keys, self._weight).add_(self._offset)
        return projected.split(self._sizes, dim=2)


def _block(
    layer: Any, projection: _Projection, queries: Tensor, keys: Tensor, pe: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    own = layer.self_attn
    if layer.skip_first_layer_pe:
        queries = _attend(own, own.q_proj(queries), own.k_proj(queries), own.v_proj(queries), mask)
    else:
        with_pe = queries + pe
        queries = queries + _attend(own, own.q_proj(with_pe), own.k_proj(with_pe), own.v_proj(queries), mask)
    queries = layer.norm1(queries)
    to_image, to_token = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
    key, image_query, value = projection(keys)
    queries = layer.norm2(queries + _attend(to_image, to_image.q_proj(queries + pe), key, value))
    queries = layer.norm3(queries + layer.mlp(queries))
    attended = _attend(to_token, image_query, to_token.k_proj(queries + pe), to_token.v_proj(queries), mask)
    return queries, layer.norm4(keys + attended)


def _attend(attention: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention of projected tokens, (N, tokens, channels). mask: (N, 1, 1, keys) bool, those that count."""
    heads = attention.num_heads

    def apart(x: Tensor) -> Tensor:
        return x.unflatten(2, (heads, -1)).transpose(1, 2)

    out = F.scaled_dot_product_attention(apart(query), apart(key), apart(value), attn_mask=mask)
    return attention.out_proj(out.transpose(1, 2).flatten(2))
