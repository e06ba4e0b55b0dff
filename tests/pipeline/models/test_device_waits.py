"""Between a batch's encoding and the fetch of its answers nothing waits for the device: counted, on one that is none.

Tensors of torch's FakeTensorMode have a device, `cuda`, and a shape, and no values: whatever asks for one is an error,
and a dispatch mode sees every operator, with the copies between the devices among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import sam_model_registry
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.masks import binary
from pipeline.masks.frames import Frame
from pipeline.models.device import prompts, rounds
from pipeline.models.lite.model import LiteModel
from pipeline.models.registry import VIT_B
from pipeline.models.sam import SamModel
from pipeline.refiners import REFINERS, RefineImage, samrefiner
from schemas.config import Method
from tests.no_device import no_device
from tests.pipeline.models_fixture import tiny_sam

pytestmark = pytest.mark.skipif(
    torch.__version__ < (2, 10),
    reason="torch before 2.10 asks for a driver when a fake tensor goes to a GPU",
)

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "item")


class Counting(TorchDispatchMode):
    """Names of operators that wait for the device, and of copies between devices that do or do not."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.copies: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if any(word in name for word in WAITING):
            self.waits.append(name)
        if name in ("index", "index_put", "index_put_") and any(_is_mask(of) for of in args[1]):
            self.waits.append(f"{name} by a mask")
        found, kwargs = func(*args, **(kwargs or {})), kwargs or {}
        given = dict(zip((one.name for one in func._schema.arguments), args, strict=False)) | kwargs
        if name in ("_to_copy", "to"):
            self._copied(name, given["self"].device, found.device, bool(given.get("non_blocking")))
        if name == "copy_":
            self._copied(name, given["src"].device, given["self"].device, bool(given.get("non_blocking")))
        return found

    def _copied(self, name: str, before: torch.device, after: torch.device, goes_on: bool) -> None:
        if before.type != after.type:
            self.copies.append(f"{before.type} to {after.type}")
            self.waits += [] if goes_on else [f"{name}, {self.copies[-1]}"]


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


@pytest.fixture(autouse=True)
def small_canvases(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same operators, and fewer of them: distances take some for each column."""
    monkeypatch.setattr(prompts, "PROMPTED_SIDE", 12)


@pytest.fixture
def checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setitem(sam_model_registry, "vit_b", tiny_sam)
    torch.save(tiny_sam().state_dict(), tmp_path / "custom.pth")
    return tmp_path / "custom.pth"


@contextmanager
def on_no_device(make: Callable[[], Any]) -> Iterator[Any]:
    """A model whose tensors are on a `cuda` that is none."""
    with no_device():
        yield make()


def images() -> list[RefineImage]:
    found = []
    for size_hw in ((768, 1024), (1024, 600)):
        rows, columns = np.ogrid[: size_hw[0], : size_hw[1]]
        coarse = [binary.encode((rows - 300) ** 2 + (columns - x) ** 2 < 100**2) for x in (200, 300)]
        found.append(RefineImage(np.zeros((*size_hw, 3), np.uint8), Frame(size_hw, 1024), coarse))
    return found


def ask(model: Any, method: Method) -> Any:
    """Encode two images and look at their masks, as samrefiner does."""
    batch = samrefiner._Batch(model, images(), method)
    [prompted] = samrefiner._decoder_batches(batch.images, 64)
    return samrefiner._looked_at(batch, samrefiner._instances(batch, prompted))


def test_nothing_waits_between_encoding_and_the_answers(checkpoint: Path) -> None:
    method = Method(iterations=2, mirror=True)
    with on_no_device(lambda: SamModel(VIT_B, checkpoint, "", "cuda", torch.bfloat16)) as model, Counting() as counted:
        ask(model, method)
    assert counted.waits == []
    assert {"cpu to cuda", "cuda to cpu"} == set(counted.copies)
    assert (
        counted.copies.count("cuda to cpu") == 6
    )  # logits, predicted IoU, soundness, scores; two more of later rounds
    assert counted.copies.count("cpu to cuda") <= 25  # of any number of masks


@pytest.mark.parametrize(
    "waiting",
    [
        lambda logits: logits[logits > 0],
        lambda logits: logits.cpu(),
        lambda logits: torch.zeros(3).to(logits.device),
        lambda logits: logits.sum().item(),
        lambda logits: (logits > 0).nonzero(),
    ],
    ids=["mask", "fetch", "upload", "item", "nonzero"],
)
def test_one_that_is_added_is_counted(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, waiting: Callable[[torch.Tensor], Any]
) -> None:
    plain = rounds._first

    def added(logits: torch.Tensor, predicted_iou: torch.Tensor) -> Any:
        with suppress(DataDependentOutputException, DynamicOutputShapeException):  # there is no value to be had
            waiting(logits)
        return plain(logits, predicted_iou)

    monkeypatch.setattr(rounds, "_first", added)
    with on_no_device(lambda: SamModel(VIT_B, checkpoint, "", "cuda")) as model, Counting() as counted:
        ask(model, Method(iterations=1))
    assert len(counted.waits) >= 1


def test_lite_waits_for_nothing_either() -> None:
    with on_no_device(lambda: LiteModel(None, "cuda")) as model, Counting() as counted:
        small = [i._replace(pixels=np.zeros((*Frame(i.frame.size_hw, 512).input_hw, 3), np.uint8)) for i in images()]
        batch = samrefiner._Batch(model, [i._replace(frame=Frame(i.frame.size_hw, 512)) for i in small], Method())
        [prompted] = samrefiner._decoder_batches(batch.images, 64)
        samrefiner._looked_at(batch, samrefiner._instances(batch, prompted))
    assert counted.waits == []


def test_the_refiner_takes_this_way(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, where the model is told to."""
    model = SamModel(VIT_B, checkpoint, "")
    image = images()[0]
    image = image._replace(coarse=image.coarse[:1])
    [[plain]] = REFINERS["samrefiner"].run(model, [image], Method(iterations=1))
    monkeypatch.setattr(model, "looks", True)
    [[other]] = REFINERS["samrefiner"].run(model, [image], Method(iterations=1))
    assert binary.iou(binary.decode(plain.rle), binary.decode(other.rle)) > 0.999
    assert other.scores == pytest.approx(plain.scores, abs=2e-3)
