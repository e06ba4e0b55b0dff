"""Label Studio review tasks: `tasks.json` to import, `label_config.xml` for the project.

https://labelstud.io/guide/tasks and its converter's `brush.py`. Each mask is a brush region of a prediction, whose
score is the lowest quality in the image, so that sorting by score shows the doubtful ones first. Masks keep every
pixel. An image's address is the image root and its path; a local folder's is `/data/local-files/?d=...`.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import numpy as np

from pipeline.dataset.by_image import Group, Row
from pipeline.exports import fragments
from pipeline.exports.text import xml_attribute, xml_text
from pipeline.exports.types import Export, ExportImage, Job, Piece, named
from pipeline.masks import binary

CROWD = "crowd"
WORD_BITS = 8
RUN_BITS = (3, 4, 8, 16)


def write(job: Job, group: Group, index: int) -> Piece:
    """The group's tasks, as lines."""
    piece = Piece()
    with fragments.Fragments(job, index, piece) as lines:
        for image in job.read(group, piece):
            lines.add("tasks", image.split, task(image, job, piece))
            piece.count(image)
    return piece


def finish(job: Job, pieces: Sequence[Piece]) -> Piece:  # noqa: ARG001 - others need the pieces
    """One file of tasks a split, and the project's configuration."""
    piece = Piece(files=["label_config.xml"])
    for split in job.splits:
        path = named("tasks", split, ".json")
        with job.target.writer(path) as sink:
            fragments.write_list(sink, fragments.lines(job, "tasks", split))
        piece.files.append(path)
    job.target.put("label_config.xml", label_config(job.survey.labels, piece).encode())
    return piece


def task(image: ExportImage, job: Job, piece: Piece) -> Row:
    """One image with its masks as a prediction."""
    qualities = [mask["quality"] for mask in image.masks if mask["quality"] is not None]
    prediction = {
        "model_version": job.result.manifest.fingerprint,
        "score": min(qualities, default=0.0),
        "result": [
            result
            for mask in image.masks
            for result in results(mask, image, xml_text(job.survey.categories[mask["class_id"]], piece))
        ],
    }
    data = {"image": address(job.images.uri, image.uri), "image_uri": image.uri, "image_id": image.source_id}
    return {"data": data, "predictions": [prediction]}


def results(mask: Row, image: ExportImage, label: str) -> list[Row]:
    """One brush region, and that it is a crowd."""
    region = {
        "id": mask["mask_id"],
        "to_name": "image",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
    }
    brush = {
        **region,
        "type": "brushlabels",
        "from_name": "label",
        "score": mask["quality"] or 0.0,
        "meta": {"decision": [mask["decision"]]},
        "value": {"format": "rle", "rle": brush_rle(binary.decode(mask["mask_rle"])), "brushlabels": [label]},
    }
    crowd = {**region, "type": "choices", "from_name": CROWD, "value": {"choices": [CROWD]}}
    return [brush, crowd] if mask["crowd"] else [brush]


def brush_rle(mask: binary.Mask) -> list[int]:
    """(H, W) {0, 1} -> bytes of Label Studio's run-length code of the mask as RGBA, row by row, 255 inside.

    32 bits number of values, 5 bits word size - 1, four times 4 bits run size - 1; then for each run: 1, two bits that
    choose the run size, length - 1, value.
    """
    flat = mask.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]), len(flat) - 1)
    lengths = np.diff(ends, prepend=-1) * 4  # R, G, B, A
    bits = [f"{4 * len(flat):032b}", f"{WORD_BITS - 1:05b}", *(f"{size - 1:04b}" for size in RUN_BITS)]
    for length, value in zip(lengths.tolist(), flat[ends].tolist(), strict=True):
        bits += _run(length, 255 * value)
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[at : at + 8], 2) for at in range(0, len(text), 8)]


def _run(length: int, value: int) -> list[str]:
    longest = 1 << RUN_BITS[-1]
    found = []
    while length > 0:
        part = min(length, longest)
        choice = next(index for index, size in enumerate(RUN_BITS) if part <= 1 << size)
        found.append(f"1{choice:02b}{part - 1:0{RUN_BITS[choice]}b}{value:08b}")
        length -= part
    return found


def label_config(names: Sequence[str], piece: Piece) -> str:
    """The labeling interface: the image, a brush for each category, and for each region whether it is a crowd."""
    labels = "\n".join(f"    <Label value={xml_attribute(name, piece)}/>" for name in names)
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="label" toName="image">\n{labels}\n  </BrushLabels>\n'
        f'  <Choices name="{CROWD}" toName="image" perRegion="true" choice="multiple">\n'
        f'    <Choice value="{CROWD}"/>\n  </Choices>\n</View>\n'
    )


def address(root: str, uri: str) -> str:
    """Where Label Studio finds the image."""
    whole = f"{root.rstrip('/')}/{uri}"
    return whole if "://" in root else f"/data/local-files/?d={quote(whole.lstrip('/'))}"


EXPORT = Export(write, finish, names_images=True)
