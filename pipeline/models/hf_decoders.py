"""How the classes of transformers are asked: what is computed once an image, and what once a prompt.

Each class is asked for one prompt an image, the image's maps gathered by prompt: its own way shares a mask prompt among
all prompts of an image. Two things are ours, since transformers 5.24 computes something else than the originals do
(tests/pipeline/models/test_hf_parity.py): SAM-HQ's decoder, whose masks it takes from the image's tokens as they were
before attention, and the maps of SAM 3, where it adds the embedding of "no memory" to one that is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

Maps = list[Tensor]
"""What an image's encoding is made of, each (B, C, h, w) float32; the last is the embedding itself."""


class Prompted(NamedTuple):
    """N prompts of one token count: their tokens (N, 1, T, C), their dense prompt and the positions (N, C, h, w)."""

    sparse: Tensor
    dense: Tensor
    position: Tensor


class Family(NamedTuple):
    """encode: (network, pixels (B, 3, S, S)) -> maps, in the method's dtype. finish: what is kept of them, in float32.
    decode: (network, maps by prompt, prompts) -> logits (N, 3, m, m) and predicted IoU (N, 3).
    """

    encode: Callable[[Any, Tensor], Maps]
    finish: Callable[[Any, Maps], Maps]
    decode: Callable[[Any, Maps, Prompted], tuple[Tensor, Tensor]]


def _as_they_are(_network: Any, maps: Maps) -> Maps:
    return maps


def _encode_sam(network: Any, pixels: Tensor) -> Maps:
    return [network.vision_encoder(pixels).last_hidden_state]


def _decode_sam(network: Any, maps: Maps, prompted: Prompted) -> tuple[Tensor, Tensor]:
    masks, iou = network.mask_decoder(
        image_embeddings=maps[-1],
        image_positional_embeddings=prompted.position,
        sparse_prompt_embeddings=prompted.sparse,
        dense_prompt_embeddings=prompted.dense,
        multimask_output=True,
    )[:2]
    return masks[:, 0], iou[:, 0]


def _encode_sam2(network: Any, pixels: Tensor) -> Maps:
    return list(network.get_image_embeddings(pixels))


def _decode_sam2(network: Any, maps: Maps, prompted: Prompted) -> tuple[Tensor, Tensor]:
    masks, iou = network.mask_decoder(
        image_embeddings=maps[-1],
        image_positional_embeddings=prompted.position,
        sparse_prompt_embeddings=prompted.sparse,
        dense_prompt_embeddings=prompted.dense,
        multimask_output=True,
        high_resolution_features=maps[:-1],
    )[:2]
    return masks[:, 0], iou[:, 0]


def _encode_sam3(network: Any, pixels: Tensor) -> Maps:
    """The three finer ones of its four maps, as SAM 2's."""
    fine, middle, image = network.vision_encoder(pixels).fpn_hidden_states[:3]
    decoder = network.mask_decoder
    return [decoder.conv_s0(fine), decoder.conv_s1(middle), image + network.no_memory_embedding.view(1, -1, 1, 1)]


def _encode_hq(network: Any, pixels: Tensor) -> Maps:
    """The first of the layers that attend to the whole image, and the embedding."""
    found = network.vision_encoder(pixels)
    return [found.intermediate_embeddings[0].permute(0, 3, 1, 2), found.last_hidden_state]


def _hq_features(network: Any, maps: Maps) -> Maps:
    """The features of SAM-HQ, (B, 32, 4 h, 4 w), and the embedding: once an image."""
    decoder, (early, image) = network.mask_decoder, maps
    late = decoder.encoder_conv2(decoder.activation(decoder.encoder_norm(decoder.encoder_conv1(image))))
    compressed = decoder.activation(decoder.compress_vit_norm(decoder.compress_vit_conv1(early.contiguous())))
    return [late + decoder.compress_vit_conv2(compressed), image]


def _decode_hq(network: Any, maps: Maps, prompted: Prompted) -> tuple[Tensor, Tensor]:
    """As segment_anything_hq's MaskDecoderHQ with several masks, of which it returns the best; here all three come."""
    decoder, (features, image) = network.mask_decoder, maps
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight, decoder.hq_token.weight])
    tokens = torch.cat([own.expand(len(image), 1, -1, -1), prompted.sparse], dim=2)
    hidden, attended = decoder.transformer(
        point_embeddings=tokens,
        image_embeddings=image + prompted.dense,
        image_positional_embeddings=prompted.position,
        attention_similarity=None,
    )
    hidden, source = hidden[:, 0], attended[:, 0].transpose(1, 2).reshape(image.shape)
    upscaled = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(source)))
    upscaled = decoder.activation(decoder.upscale_conv2(upscaled))
    sharp = decoder.mask_conv2(decoder.activation(decoder.mask_norm(decoder.mask_conv1(upscaled)))) + features
    heads = decoder.output_hypernetworks_mlps
    weights = torch.stack([head(hidden[:, 1 + i]) for i, head in enumerate(heads) if i > 0], dim=1)
    masks = torch.einsum("nkc,nchw->nkhw", weights, upscaled)
    masks += torch.einsum("nc,nchw->nhw", decoder.hq_mask_mlp(hidden[:, 1 + len(heads)]), sharp)[:, None]
    return masks, decoder.iou_prediction_head(hidden[:, 0])[:, 1:]


FAMILIES: dict[str, Family] = {
    "sam": Family(_encode_sam, _as_they_are, _decode_sam),
    "sam_hq": Family(_encode_hq, _hq_features, _decode_hq),
    "sam2": Family(_encode_sam2, _as_they_are, _decode_sam2),
    "edgetam": Family(_encode_sam2, _as_they_are, _decode_sam2),
    "sam3_tracker": Family(_encode_sam3, _as_they_are, _decode_sam2),
}
"""By the architecture's name (`models/hf_config.py`)."""
