"""MODELS: all that is known of a model before its weights are loaded. No torch here.

A new model is one file with its network and a function `load` of type `Load`, one line in MODELS, one test. The line
says which protocol it follows (promptable: MaskModel, else PixelModel; `models/protocol.py`), how images and masks
lie before it, what file its weights are, and what a method on it starts from. The file may import torch: MODELS names
its `load` by `Imported`, so that commands which make no model do without. A family of models whose checkpoints say
what they are has `read` as well: `resolve` asks it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.masks.frames import ORIGINAL_SIZE, PROMPT_SIDE
from pipeline.models.ensemble import TOGETHER, composed
from pipeline.models.folders import PRETRAINED
from pipeline.models.protocol import Model, NoModel
from pipeline.registry import look_up
from pipeline.storage import Access
from schemas.presets import PRESETS


class Normalisation(NamedTuple):
    """Of RGB values in [0, 255]: a channel's value becomes (value - mean) / std. The default leaves them alone."""

    mean: tuple[float, float, float] = (0, 0, 0)
    std: tuple[float, float, float] = (1, 1, 1)


class Checkpoint(NamedTuple):
    """The file of a model's weights, or their folder.

    wanted: what a user who gives none is asked for. packaged: URI of the one that is taken then, where there is one.
    file_name, sha256: of a published file; a file of that name must have that content, others are taken as they are.
    folder: names and patterns of the files that count (models/folders.py); (): it is one file.
    """

    wanted: str
    packaged: str = ""
    file_name: str = ""
    sha256: str = ""
    folder: tuple[str, ...] = ()


class Runtime(NamedTuple):
    """How a model is to run. device: "cpu" or "cuda"; dtype, encode_batch: Method's; compiled: Operation.compile.

    encode_batch: images that a compiled encoder is compiled for.
    """

    device: str = "cpu"
    dtype: str = "float32"
    compiled: bool = False
    encode_batch: int = 8


Load = Callable[["ModelSpec", Path, str, Runtime], Model]
"""(spec, the weights' file, their SHA-256, how to run) -> the model. Of a model without weights Path() and "".

Raises RefusedError for a file that does not hold this model."""


@dataclass(frozen=True)
class ModelSpec:
    """One model.

    load             makes it
    promptable       whether it is a MaskModel, and so one for every refiner that prompts
    input_side       long side, in pixels, of the images that it takes; ORIGINAL_SIZE: any
    view             how an image fills the model's square: its long side does and the rest is padding, or both sides
                     are stretched to it
    normalisation    of pixels, on their way into the network
    mask_side        side, in pixels, of mask prompts and of the masks that come out
    candidates       masks that it answers to each prompt; 1: it has no multimask output
    similarity_cut   cosine above which two embeddings are "the same object" (elastic box)
    checkpoint       its weights; None: it has none
    read             (checkpoint's URI, access) -> the spec of what lies there, for a family of models
    architecture     of a family, where the name stands for one of its architectures
    choose_by        what a candidate is chosen by: the IoU that the model predicts, or, where that is not to be
                     trusted, how stable the candidate is; it then stands in place of the predicted IoU
    extra            the extra of this package that it needs, and the module by which it is known to be installed
    defaults         of Method, where neither preset nor user say otherwise
    presets          what a preset stands for on this model, beyond what PRESETS says; the least of all settings
    encoder_tflop    of one image at the input size, two operations for each multiplication and addition; None: it
                     is counted when it is measured
    adaptable        whether it is an adapter.AdaptableModel
    compilable       whether torch.compile may be asked for, on GPUs
    members          of several models that refine together, each one's
    gpu_actors       how many actors share a GPU, where nothing else is asked for and there are CPUs for them
    """

    name: str
    load: Load
    promptable: bool = False
    input_side: int = ORIGINAL_SIZE
    view: Literal["padded", "stretched"] = "padded"
    normalisation: Normalisation = Normalisation()  # noqa: RUF009 - a tuple
    mask_side: int = 256
    candidates: int = 3
    similarity_cut: float = 0.5
    checkpoint: Checkpoint | None = None
    read: Callable[[str, Access], ModelSpec] | None = None
    architecture: str = ""
    choose_by: Literal["predicted_iou", "stability"] = "predicted_iou"
    extra: tuple[str, str] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    encoder_tflop: float | None = None
    adaptable: bool = False
    compilable: bool = False
    members: tuple[ModelSpec, ...] = ()
    gpu_actors: int = 1

    @property
    def stretched(self) -> bool:
        """Whether both sides of an image are stretched to the model's square."""
        return self.view == "stretched"


@dataclass(frozen=True)
class Imported:
    """A function of a module that is imported when the function is first called. first: its first arguments."""

    module: str
    name: str
    first: tuple[str, ...] = ()

    def __call__(self, *arguments: Any) -> Any:
        return getattr(import_module(self.module), self.name)(*self.first, *arguments)


def _no_model(*_: object) -> NoModel:
    return NoModel()


PACKAGED = "package:lite.safetensors"
"""Stands for the weights inside this package, wherever a node has it installed."""
OFFICIAL_FOLDER = "https://dl.fbaipublicfiles.com/segment_anything/"

LITE = ModelSpec(
    "lite",
    Imported("pipeline.models.lite.model", "load"),
    promptable=True,
    input_side=512,
    normalisation=Normalisation((127, 127, 127), (128, 128, 128)),  # of EfficientNet-Lite
    similarity_cut=0.5,  # best balanced accuracy of object against surroundings, on validation images
    checkpoint=Checkpoint("its weights", packaged=PACKAGED),
    defaults={"iterations": 1},  # trained to correct a mask in one pass; each further one drifts away from the mask
    presets={"default": PRESETS["balanced"]},
    encoder_tflop=0.0054,
    adaptable=True,
    gpu_actors=4,
)


def _official(name: str, file_name: str, sha256: str, encoder_tflop: float, gpu_actors: int) -> ModelSpec:
    """A published Segment Anything. Its encoder keeps close to float32 in bfloat16; the batches are for GPUs, and
    `models/sam.py` takes smaller ones where a device wants them: a method is the same on every device.
    """
    return ModelSpec(
        name,
        Imported("pipeline.models.sam", "load"),
        promptable=True,
        input_side=PROMPT_SIDE,
        normalisation=Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        checkpoint=Checkpoint(f"the official one is {OFFICIAL_FOLDER}{file_name}", "", file_name, sha256),
        defaults={"dtype": "bfloat16", "encode_batch": 8, "decode_batch": 64},
        encoder_tflop=encoder_tflop,
        adaptable=True,
        compilable=True,
        gpu_actors=gpu_actors,
    )


VIT_B = _official(
    "vit_b", "sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", 0.97, 4
)
VIT_L = _official(
    "vit_l", "sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", 2.99, 2
)
VIT_H = _official(
    "vit_h", "sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", 5.96, 2
)
TORCHSCRIPT = ModelSpec(
    "torchscript",
    Imported("pipeline.models.pixel", "load_torchscript"),
    checkpoint=Checkpoint("the path or URI of an exported model (torch.jit.save, or .pt2 by torch.export.save)"),
)
CASCADEPSP = ModelSpec(
    "cascadepsp",
    Imported("pipeline.models.pixel", "load_cascadepsp"),
    checkpoint=Checkpoint("the path or URI of the file `model` of CascadePSP's release v1.0"),
)


def _pretrained(name: str, architecture: str = "", repository: str = "") -> ModelSpec:
    """A model of transformers'; what it is stands in its folder (`models/hf_config.py`). Starts from what vit_* do."""
    wanted = "a folder as save_pretrained writes it: path, s3://, gs:// or hf://owner/name"
    return ModelSpec(
        name,
        Imported("pipeline.models.hf", "load"),
        promptable=True,
        input_side=PROMPT_SIDE,
        checkpoint=Checkpoint(wanted, packaged=f"hf://{repository}" if repository else "", folder=PRETRAINED),
        read=Imported("pipeline.models.hf_config", "read", (name,)),
        architecture=architecture,
        extra=("hf", "transformers"),
        defaults=VIT_H.defaults,
        adaptable=True,
    )


EXPORTED = ModelSpec(
    "exported",
    Imported("pipeline.models.exported", "load"),
    promptable=True,
    input_side=PROMPT_SIDE,
    checkpoint=Checkpoint(
        "a folder with config.json, encoder.onnx and decoder.safetensors (models/exported.py has what they hold)",
        folder=("config.json", "encoder.onnx", "decoder.safetensors"),
    ),
    read=Imported("pipeline.models.exported", "read"),
    architecture="vit_b",  # whose decoder is that of all
    extra=("onnx", "onnxruntime"),
    defaults={**VIT_H.defaults, "dtype": "float32"},  # the file's own
    adaptable=True,
)

REPOSITORIES = {
    "sam2.1-tiny": ("sam2", "facebook/sam2.1-hiera-tiny"),
    "sam2.1-small": ("sam2", "facebook/sam2.1-hiera-small"),
    "sam2.1-base-plus": ("sam2", "facebook/sam2.1-hiera-base-plus"),
    "sam2.1-large": ("sam2", "facebook/sam2.1-hiera-large"),
    "sam3": ("sam3_tracker", "facebook/sam3"),
    "sam-hq-b": ("sam_hq", "syscv-community/sam-hq-vit-base"),
    "sam-hq-l": ("sam_hq", "syscv-community/sam-hq-vit-large"),
    "sam-hq-h": ("sam_hq", "syscv-community/sam-hq-vit-huge"),
    "edgetam": ("edgetam", "yonigozlan/EdgeTAM-hf"),
}
"""Names for usual repositories of a hub: each one's architecture and where it is. `hf` takes any."""

MODELS: dict[str, ModelSpec] = {
    "lite": LITE,
    "vit_b": VIT_B,
    "vit_l": VIT_L,
    "vit_h": VIT_H,
    "none": ModelSpec("none", _no_model),
    "torchscript": TORCHSCRIPT,
    "cascadepsp": CASCADEPSP,
    "exported": EXPORTED,
    "hf": _pretrained("hf"),
    **{name: _pretrained(name, *where) for name, where in REPOSITORIES.items()},
}


def find(name: str) -> ModelSpec:
    """The registered model, or several whose names have a + between them. Raises RefusedError for an unknown one."""
    return composed([look_up(MODELS, one, "model") for one in name.split(TOGETHER)])


def resolve(name: str, checkpoint: str | Sequence[str] | None, access: Access) -> ModelSpec:
    """What the weights at `checkpoint` (None or empty: the model's own) are, before they are loaded.

    The registered spec; of a family of models, what the checkpoint itself says. Of models together: theirs, in that
    order. Raises RefusedError.
    """
    names = name.split(TOGETHER)
    if len(names) > 1:
        each = checkpoint if checkpoint and not isinstance(checkpoint, str) else [None] * len(names)
        return composed([resolve(one, uri, access) for one, uri in zip(names, each, strict=True)])
    spec = find(name)
    uri = _only(checkpoint) or (spec.checkpoint.packaged if spec.checkpoint else "")
    return spec.read(uri, access) if spec.read and uri else spec


def _only(checkpoint: str | Sequence[str] | None) -> str | None:
    return checkpoint if checkpoint is None or isinstance(checkpoint, str) else next(iter(checkpoint), None)


def names_where(which: Callable[[ModelSpec], object]) -> str:
    """The registered models of which something holds, for messages: `a, b, c`."""
    return ", ".join(name for name, spec in MODELS.items() if which(spec))
