"""A mask as a row of the formats that hold one: WebDataset's JSON and Hugging Face's Parquet."""

from __future__ import annotations

from pipeline.dataset.by_image import Row
from pipeline.exports.coco import provenance
from pipeline.exports.types import Job


def mask_row(mask: Row, job: Job) -> Row:
    """Category, RLE, box and where the mask comes from."""
    return {
        "category_id": mask["class_id"],
        "category": job.survey.categories[mask["class_id"]],
        "segmentation": mask["mask_rle"],
        "bbox": mask["bbox_xywh"],
        "area": mask["area"],
        "iscrowd": int(mask["crowd"] or 0),
        **provenance(mask),
    }
