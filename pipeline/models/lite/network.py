"""The network of `lite`: Segment Anything's prompt encoder, two-way transformer and mask tokens on a small encoder.

Prompts become tokens, as in SAM, and also a picture (Gaussian, coarse mask, box) that runs down and up a small U-Net
beside the image's high-resolution features; the transformer sits at its bottom (stride 16). What the network adds is a
correction: the coarse mask itself is the starting point of the logits.

Sides: images S x S, embedding S/16, masks S/2; prompt coordinates 0-1024 whatever S is. All tensors are (N, C, H, W).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load
from torch import Tensor, nn

from pipeline.masks.frames import PROMPT_SIDE
from pipeline.models.device.transfer import PromptTensors
from pipeline.models.lite.backbone import TAPS, Lite0Backbone
from pipeline.models.lite.layers import ChannelNorm, PictureConv
from pipeline.models.sam_layers import MLP, PromptEncoder, TwoWayTransformer
from pipeline.models.two_way import dense_position, point_tokens

DIM, DIM8, DIM4, DIM2 = 128, 48, 32, 16  # channels at strides 16, 8, 4, 2
MASKS = 3
PICTURE_CHANNELS = 4  # Gaussian, coarse mask, "a mask is given", box
IOU_FACTS, OUTLINE_FACTS = 6, 4
OUTLINE_PX, CAPPED_LOGIT = 3, 6.0
AROUND = np.ones((2 * OUTLINE_PX + 1, 2 * OUTLINE_PX + 1), np.uint8)
CORRECTION_WIDTH = 16
BASE_LOGIT = 2.0
CORRECTION = "iou_head.correction."


class ImageFeatures(NamedTuple):
    """Of B images: `embedding` (B, DIM, S/16, S/16) and skips at strides 8, 4, 2."""

    embedding: Tensor
    skip8: Tensor
    skip4: Tensor
    skip2: Tensor


class ImageEncoder(nn.Module):
    """Backbone and a top-down path. (B, 3, S, S) normalised RGB -> ImageFeatures."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Lite0Backbone()
        at2, at4, at8, at16, at32 = TAPS.values()
        self.from32, self.from16 = nn.Conv2d(at32, DIM, 1), nn.Conv2d(at16, DIM, 1)
        self.from8 = nn.Conv2d(at8, DIM, 3, 2, 1)
        self.merge16 = nn.Sequential(nn.GELU(), nn.Conv2d(DIM, DIM, 3, padding=1), ChannelNorm(DIM))
        self.side8, self.down8 = nn.Conv2d(at8, DIM8, 1), nn.Conv2d(DIM, DIM8, 1)
        self.side4, self.down4 = nn.Conv2d(at4, DIM4, 1), nn.Conv2d(DIM8, DIM4, 1)
        self.side2, self.down2 = nn.Conv2d(at2, DIM2, 1), nn.Conv2d(DIM4, DIM2, 1)
        self.merge8 = nn.Sequential(ChannelNorm(DIM8), nn.ReLU(inplace=True), nn.Conv2d(DIM8, DIM8, 3, padding=1))
        self.merge4 = nn.Sequential(ChannelNorm(DIM4), nn.ReLU(inplace=True), nn.Conv2d(DIM4, DIM4, 3, padding=1))
        self.merge2 = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(DIM2, DIM2, 3, padding=1))

    def forward(self, images: Tensor) -> ImageFeatures:
        at2, at4, at8, at16, at32 = self.backbone(images)
        embedding = self.merge16(self.from16(at16) + self.from8(at8) + _double(self.from32(at32)))
        skip8 = self.merge8(self.side8(at8) + _double(self.down8(embedding)))
        skip4 = self.merge4(self.side4(at4) + _double(self.down4(skip8)))
        skip2 = self.merge2(self.side2(at2) + _double(self.down2(skip4)))
        return ImageFeatures(embedding, skip8, skip4, skip2)


class IouHead(MLP):
    """SAM's IoU head, and a correction of its answer by facts about the mask.

    The head is trained with the network, on photographs that the network knows by then: it is too sure of others. The
    correction is fitted afterwards to photographs that neither saw (lite/training/iou_fit.py); until then it is zero.
    """

    def __init__(self) -> None:
        super().__init__(2 * DIM + IOU_FACTS, DIM, 1, 3)
        first, last = nn.Linear(1 + IOU_FACTS + OUTLINE_FACTS, CORRECTION_WIDTH), nn.Linear(CORRECTION_WIDTH, 1)
        self.correction = nn.Sequential(first, nn.ReLU(), last).requires_grad_(False)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (N, MASKS, 2 * DIM + IOU_FACTS + OUTLINE_FACTS): tokens and facts -> logits (N, MASKS)."""
        return self.correct(self.raw(hidden), hidden)

    def raw(self, hidden: Tensor) -> Tensor:
        """The layers' answer, (..., 1) logits, without the correction."""
        return super().forward(hidden[..., :-OUTLINE_FACTS])

    def correct(self, logit: Tensor, hidden: Tensor) -> Tensor:
        """The layers' answer (N, MASKS, 1) -> logits (N, MASKS)."""
        facts = hidden[..., 2 * DIM :]
        return (logit + self.correction(torch.cat([logit, facts], -1))).squeeze(-1)


class MaskDecoder(nn.Module):
    """N prompts on ImageFeatures -> logits (N, MASKS, S/2, S/2) and predicted IoU (N, MASKS) in 0-1."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt_encoder = PromptEncoder(DIM, (32, 32), (PROMPT_SIDE, PROMPT_SIDE), mask_in_chans=16)
        self.prompt_encoder.mask_downscaling = nn.Identity()  # its place is taken by the U-Net
        self.prompt_encoder.no_mask_embed = nn.Identity()
        self.transformer = TwoWayTransformer(depth=2, embedding_dim=DIM, mlp_dim=512, num_heads=4)
        self.tokens = nn.Embedding(1 + MASKS, DIM)  # IoU, then one for each mask
        self.down2 = PictureConv(PICTURE_CHANNELS, DIM2, 3, padding=1)
        self.down4, self.norm_down4 = nn.Conv2d(DIM2, DIM4, 3, 2, 1), ChannelNorm(DIM4)
        self.down8, self.norm_down8 = nn.Conv2d(DIM4, DIM8, 3, 2, 1), ChannelNorm(DIM8)
        self.down16, self.norm_down16 = nn.Conv2d(DIM8, DIM, 3, 2, 1), ChannelNorm(DIM)
        self.up8, self.up4, self.up2 = _up(DIM, DIM8), _up(DIM8, DIM4), _up(DIM4, DIM2)
        self.merge8 = _merge(DIM8)
        self.merge4 = _merge(DIM4)
        self.merge2 = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(DIM2, DIM2, 3, padding=1), nn.ReLU(inplace=True))
        self.weighers = nn.ModuleList([_weigher() for _ in range(MASKS)])
        self.base = nn.Parameter(torch.tensor(BASE_LOGIT))
        self.iou_head = IouHead()

    def forward(self, features: ImageFeatures, prompts: PromptTensors) -> tuple[Tensor, Tensor]:
        index, count = prompts.image_index, len(prompts.image_index)
        side = features.skip2.shape[-1]
        picture = prompt_picture(prompts, side)
        at2 = (self.down2(picture) + _rows(features.skip2, index)).relu_()
        at4 = (self.norm_down4(self.down4(at2) + _rows(features.skip4, index))).relu_()
        at8 = (self.norm_down8(self.down8(at4) + _rows(features.skip8, index))).relu_()
        image = _rows(features.embedding, index) + self.norm_down16(self.down16(at8))

        positions = dense_position(self.prompt_encoder.pe_layer, *image.shape[-2:])[None].expand(count, -1, -1, -1)
        own = self.tokens.weight[None].expand(count, -1, -1)
        tokens, image_tokens = self.transformer(image, positions, torch.cat([own, self.prompt_tokens(prompts)], 1))
        x = image_tokens.transpose(1, 2).reshape(image.shape)

        x = self.merge8(self.up8(x) + at8)
        x = self.merge4(self.up4(x) + at4)
        x = self.merge2(self.up2(x) + at2)
        weights = torch.stack([weigher(tokens[:, 1 + i]) for i, weigher in enumerate(self.weighers)], 1)
        logits = (weights @ x.flatten(2)).unflatten(2, x.shape[-2:]) + self.base * picture[:, 1:2]
        return logits.float(), self.predict_iou(tokens, logits, prompts)

    def prompt_tokens(self, prompts: PromptTensors) -> Tensor:
        """(N, T, DIM): points (a missing one is SAM's not-a-point token) and two box corners."""
        encoder, parts = self.prompt_encoder, []
        if prompts.points_xy is not None and prompts.point_labels is not None:
            parts.append(point_tokens(encoder, prompts.points_xy, prompts.point_labels, prompts.boxes_xyxy is None))
        if prompts.boxes_xyxy is not None:
            parts.append(encoder._embed_boxes(prompts.boxes_xyxy))
        if not parts:
            parts.append(self.tokens.weight.new_zeros(len(prompts.image_index), 0, DIM))
        return torch.cat(parts, 1)

    def predict_iou(self, tokens: Tensor, logits: Tensor, prompts: PromptTensors) -> Tensor:
        """(N, MASKS) from the tokens and from facts about each mask, which are constants to the gradient."""
        masks = logits.detach().float()
        facts = torch.cat([mask_facts(masks, prompts.coarse), outline_facts(masks, fast_outline_band(masks))], 2)
        own = tokens[:, :1].expand(-1, MASKS, -1)
        hidden = torch.cat([own, tokens[:, 1 : 1 + MASKS], facts.to(tokens.dtype)], 2)
        return torch.sigmoid(self.iou_head(hidden).float())


class LiteNetwork(nn.Module):
    """Encoder and decoder; `decoder(encoder(images), prompts)`."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = ImageEncoder(), MaskDecoder()


def load_weights(network: LiteNetwork, content: bytes) -> None:
    """Fill the network from the content of a safetensors file; without a correction of the IoU it is zero."""
    given = {name: tensor.float() for name, tensor in load(content).items()}
    untouched = {name: tensor for name, tensor in network.state_dict().items() if CORRECTION in name}
    network.load_state_dict(untouched | given)


def prompt_picture(prompts: PromptTensors, side: int) -> Tensor:
    """(N, PICTURE_CHANNELS, side, side) in -1..1; a channel is 0 everywhere when its prompt is not given."""
    count = len(prompts.image_index)
    like = next(t for t in (prompts.coarse, prompts.boxes_xyxy, prompts.points_xy) if t is not None)
    absent = gaussian = coarse = given = box = like.new_zeros(count, side, side)
    if prompts.mask_logits is not None:
        gaussian = prompts.mask_logits / prompts.mask_logits.abs().amax((1, 2), keepdim=True).clamp_min(1e-6)
    if prompts.coarse is not None:
        coarse, given = 2 * prompts.coarse - 1, absent + 1
    if prompts.boxes_xyxy is not None:
        box = box_picture(prompts.boxes_xyxy, side)
    return torch.stack([gaussian, coarse, given, box], 1).contiguous(memory_format=torch.channels_last)


def box_picture(boxes_xyxy: Tensor, side: int) -> Tensor:
    """(N, 4) in the prompt frame -> (N, side, side): 1 inside, -1 outside, in between on pixels that an edge cuts."""
    scale = side / PROMPT_SIDE
    x1, y1, x2, y2 = (boxes_xyxy * scale).unbind(1)
    low = torch.arange(side, device=boxes_xyxy.device, dtype=boxes_xyxy.dtype)[None]

    def covered(start: Tensor, stop: Tensor) -> Tensor:
        stop = stop + scale  # the box's maxima are inclusive
        return (torch.minimum(low + 1, stop[:, None]) - torch.maximum(low, start[:, None])).clamp(0, 1)

    return 2 * covered(y1, y2)[:, :, None] * covered(x1, x2)[:, None, :] - 1


def mask_facts(logits: Tensor, coarse: Tensor | None) -> Tensor:
    """(N, C, H, W) logits, (N, H, W) coarse or None -> (N, C, IOU_FACTS), what tells a good mask from a bad one.

    Expected IoU if the probabilities are right; stability under a shifted threshold; IoU with the coarse mask, its
    square, and 1 where there is a coarse mask; log of the area.
    """
    chance, inside = torch.sigmoid(logits), (logits > 0).float()
    area = inside.sum((2, 3))
    expected = (chance * inside).sum((2, 3)) / torch.maximum(chance, inside).sum((2, 3)).clamp_min(1)
    stability = (logits > 1).sum((2, 3)) / (logits > -1).sum((2, 3)).clamp_min(1)
    agreement = given = torch.zeros_like(expected)
    if coarse is not None:
        given = given + 1
        overlap = (inside * coarse[:, None]).sum((2, 3))
        agreement = overlap / (area + coarse.sum((1, 2))[:, None] - overlap).clamp_min(1)
    return torch.stack([expected, stability, agreement, agreement**2, given, torch.log1p(area) / 10], 2)


def outline_band(logits: Tensor) -> Tensor:
    """(N, C, H, W) logits -> the same shape and dtype: 1 within OUTLINE_PX of each mask's outline, else 0."""
    inside, side = (logits > 0).to(logits.dtype), 2 * OUTLINE_PX + 1
    share = F.avg_pool2d(inside, (side, 1), 1, (OUTLINE_PX, 0), count_include_pad=False)
    share = F.avg_pool2d(share, (1, side), 1, (0, OUTLINE_PX), count_include_pad=False)
    least = 0.5 / side**2  # less than one pixel's share
    return ((share > least) & (share < 1 - least)).to(logits.dtype)


def fast_outline_band(logits: Tensor) -> Tensor:
    """As outline_band; on a CPU by OpenCV, which takes a twentieth of the time."""
    if logits.device.type != "cpu":
        return outline_band(logits)
    inside = (logits > 0).numpy().view(np.uint8)
    band = np.empty_like(inside)
    for index in np.ndindex(*inside.shape[:2]):
        band[index] = cv2.dilate(inside[index], AROUND) - cv2.erode(inside[index], AROUND)
    return torch.from_numpy(band).to(logits.dtype)


def outline_facts(logits: Tensor, band: Tensor) -> Tensor:
    """Logits and their outline_band, (N, C, H, W) -> (N, C, OUTLINE_FACTS): how sure the model is of each outline.

    Within the band: mean |logit|, the same capped at CAPPED_LOGIT (both over that cap), share of |logit| < 1; and the
    log of the mask's area over the band's.
    """
    pixels, sure = band.sum((2, 3)), logits.abs()
    parts = torch.stack([sure / CAPPED_LOGIT, sure.clamp(max=CAPPED_LOGIT) / CAPPED_LOGIT, (sure < 1).to(band.dtype)])
    means = torch.einsum("fnchw,nchw->ncf", parts, band) / pixels.clamp_min(1)[..., None]
    area = torch.log1p((logits > 0).to(band.dtype).sum((2, 3)) / pixels.clamp_min(1))
    return torch.cat([means, area[..., None]], 2)


def _weigher() -> MLP:
    """A mask token -> weights of the last channels; near 0 at first, so that training starts from the coarse mask."""
    mlp = MLP(DIM, DIM, DIM2, 3)
    nn.init.normal_(mlp.layers[-1].weight, std=0.01)
    nn.init.normal_(mlp.layers[-1].bias, std=0.05)
    return mlp


def _rows(features: Tensor, index: Tensor) -> Tensor:
    """The image's features for every prompt; a single image is left to broadcasting, which saves copies."""
    return features if features.shape[0] == 1 else features.index_select(0, index)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")


def _merge(channels: int) -> nn.Sequential:
    return nn.Sequential(
        ChannelNorm(channels), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)
    )


def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 2, 2)
