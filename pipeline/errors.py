"""What can go wrong, and how it is said.

    RelabelError
    ├── RefusedError       wrong configuration, missing input, bad credentials or checkpoint: exit code 2, before work
    ├── JobError           the job cannot go on (storage or model fails for everything): exit code 1
    │   ├── StorageError       the store failed, or gave no answer within the tries
    │   └── ClusterLostError   the Ray cluster is gone
    └── RowError           one image or mask cannot be done: a row `failed` with a reason code; the job goes on
        ├── ImageError
        └── MaskError

A job failure is an exception; a row failure is data. REASONS lists every code that may stand in a `reason` column.
"""

from __future__ import annotations

from schemas.secrets import redacted


class RelabelError(Exception):
    """Base of all errors that this project raises on purpose; its text is written for the user, and has no secret."""

    def __init__(self, *told: object) -> None:
        super().__init__(*(redacted(one) if isinstance(one, str) else one for one in told))


class RefusedError(RelabelError):
    """The job was refused before any work: the text says what is wrong, where, and what to do."""


class JobError(RelabelError):
    """The job started and cannot go on."""


class StorageError(JobError):
    """The store failed, or gave no answer within the tries."""


class ClusterLostError(JobError):
    """The Ray cluster is gone, in the middle of work."""


class RowError(RelabelError):
    """One image or mask failed; `reason` is a key of REASONS."""

    def __init__(self, reason: str, detail: str = "") -> None:
        if reason not in REASONS:
            raise ValueError(f"unknown reason code {reason!r}")
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = redacted(detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class ImageError(RowError):
    """The image failed, and with it all of its masks."""


class MaskError(RowError):
    """One mask failed; its image and its other masks go on."""


REASONS: dict[str, str] = {
    # images
    "image_missing": "the image is not in the image root",
    "image_outside_root": "the image's path leaves the image root",
    "image_unreadable": "the file is not an image that can be decoded",
    "image_truncated": "the image file ends too early",
    "image_too_large": "the image has more pixels than `max_image_pixels`",
    "storage": "the object store did not answer within the retries",
    "killed_worker": "the image, alone, crashed its worker three times (memory, crash) while another one did not",
    "model_failed": "the image, alone, led the model or the refiner to an error three times while another one did not",
    # images that an export copies
    "image_changed": "the image has another size than when it was refined",
    # masks
    "mask_unreadable": "the mask's RLE, polygon or file cannot be decoded",
    "mask_missing": "the mask's file is gone",
    "mask_size_mismatch": "the mask has another size than its image",
    "mask_empty": "the mask has no pixel",
    # why a mask is kept as it came
    "crowd": "a region of many objects (iscrowd): kept as it came, neither refined nor judged",
    "kept_by_method": "the method keeps this category as it came (`method.per_category`): neither refined nor judged",
    # what people sent back (`relabel review --from`)
    "corrected": "a person replaced the mask, its category or whether it is a crowd",
    "added": "a person added the mask",
    # gate: why the coarse mask was kept
    "refined_empty": "the refined mask has no pixel",
    "refined_shattered": "much of the refined mask is in components that the coarse one does not have",
    "refined_ran_away": "the refined mask has little to do with the coarse one, or a very different size",
    "refined_unstable": "without a calibration: the model's answers for the refined mask do not hold together",
    "refined_less_certain": "the refined mask's scores are below the gate's threshold",
    "both_uncertain": "neither mask is estimated to be good: a person should look",
    # gate: why the refined mask was taken
    "improved": "the refined mask was taken",
    "unchanged": "the refined mask equals the coarse one",
}
