"""An encoder that is always given as many images: compiled for them, or recorded as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from pipeline.models.sam_encoder import FastEncoder

WARM_UP = 3  # calls, before a graph is recorded


class FixedBatch:
    """An encoder that is always given `batch` images: fewer are filled up with zeros, more are taken in turns."""

    def __init__(self, encoder: Callable[[Tensor], Tensor], batch: int) -> None:
        self._run, self._batch = encoder, batch

    def __call__(self, images: Tensor) -> Tensor:
        """As FastEncoder."""
        parts = images.split(self._batch)
        filled = F.pad(parts[-1], (0, 0) * 3 + (0, self._batch - len(parts[-1])))
        encoded = [self._run(part) for part in (*parts[:-1], filled)]
        return torch.cat(encoded)[: len(images)]


class CompiledEncoder(FixedBatch):
    """A FastEncoder whose blocks go through torch.compile: two kinds, with windows and without, for all of them.

    What was compiled is kept on disk (`TORCHINDUCTOR_CACHE_DIR`), so that the next process starts warm.
    """

    def __init__(self, encoder: FastEncoder, batch: int) -> None:
        options = {}
        if "deterministic" in torch._inductor.list_options():  # the same kernels in every process, not a race's winners
            options["deterministic"] = True
        for block in encoder.blocks:
            block.compile(fullgraph=True, dynamic=False, options=options)
        super().__init__(encoder, batch)


class GraphedEncoder(FixedBatch):
    """An encoder whose kernels are started all at once, as a CUDA graph: on GPUs alone.

    What it returns is a copy: the graph writes every time to the same memory.
    """

    def __init__(self, encoder: FastEncoder, batch: int, side: int) -> None:
        """side: of the images, in pixels."""
        self._images = torch.zeros(batch, 3, side, side, device=encoder.device)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), torch.inference_mode():  # what is set up at the first call is not for the graph
            for _ in range(WARM_UP):
                encoder(self._images)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph), torch.inference_mode():
            self._encoded = encoder(self._images)
        super().__init__(self._replayed, batch)

    def _replayed(self, images: Tensor) -> Tensor:
        self._images.copy_(images)
        self._graph.replay()
        return self._encoded.clone()
