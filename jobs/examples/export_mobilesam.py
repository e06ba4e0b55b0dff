"""MobileSAM as `--model exported` takes it: its encoder as ONNX, its prompt encoder and decoder as safetensors.

    pip install mobilesam-mirror timm onnx onnxscript     # or a checkout of MobileSAM, by --package
    python -m jobs.examples.export_mobilesam mobile_sam.pt mobile-sam
    relabel run --model exported --checkpoint mobile-sam ...     # with the extra `onnx`

The checkpoint is read without unpickling code. What was written is compared with what the package computes, and is
removed again where they differ.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

SIDE = 1024
LEAST_CORRELATION = 0.9999
DECODER = ("prompt_encoder.", "mask_decoder.")


def mobile_sam(package: Path | None) -> Any:
    """The network with random weights. package: of a checkout that is not installed. Exits where there is none."""
    if package is not None:
        sys.path.insert(0, str(package))
    try:
        from mobile_sam import sam_model_registry
    except ImportError as error:
        sys.exit(f"MobileSAM's package cannot be imported ({error}): pip install mobilesam-mirror timm, or --package")
    return sam_model_registry["vit_t"]().eval()


def load(model: Any, checkpoint: Path) -> None:
    """The published weights into the network. Exits where the file is not theirs."""
    try:
        model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    except Exception as error:  # torch has one of its own for each way in which a file can be wrong
        sys.exit(f"{checkpoint} is no checkpoint of MobileSAM: {str(error).splitlines()[0]}")


def export(model: Any, folder: Path) -> float:
    """Write the three files. Returns how far the embeddings of both correlate, on noise."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    square = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE), np.float32))
    torch.onnx.export(model.image_encoder, (square,), folder / "encoder.onnx", dynamo=True, external_data=False)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name.startswith(DECODER)}
    save_file(state, folder / "decoder.safetensors")
    mean, std = (values.flatten().tolist() for values in (model.pixel_mean, model.pixel_std))
    described = {"format": "relabel-exported-1", "input_side": SIDE, "view": "padded", "mean": mean, "std": std}
    (folder / "config.json").write_text(json.dumps(described, indent=1))
    return correlation(model, folder / "encoder.onnx", square)


def correlation(model: Any, encoder: Path, square: torch.Tensor) -> float:
    """Of the embeddings that torch and onnxruntime compute. square: (1, 3, S, S) float32."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(encoder), providers=["CPUExecutionProvider"])
    [embedding] = session.run(None, {session.get_inputs()[0].name: square.numpy()})
    with torch.inference_mode():
        wanted = model.image_encoder(square).numpy()
    return float(np.corrcoef(wanted.ravel(), embedding.ravel())[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="mobile_sam.pt, as it is published")
    parser.add_argument("output", type=Path, help="a new folder: encoder.onnx, decoder.safetensors, config.json")
    parser.add_argument("--package", type=Path, help="the checkout that holds the folder mobile_sam")
    given = parser.parse_args()
    if given.output.exists():
        sys.exit(f"{given.output} exists: name a new folder")
    model = mobile_sam(given.package)
    load(model, given.checkpoint)
    found = export(model, given.output)
    if not found >= LEAST_CORRELATION:
        shutil.rmtree(given.output)
        sys.exit(f"the exported encoder computes something else: its embeddings correlate with {found:.6f}")
    sys.stdout.write(f"wrote {given.output}: embeddings of torch and onnxruntime correlate with {found:.6f}\n")


if __name__ == "__main__":
    main()
