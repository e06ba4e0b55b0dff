"""`pipeline.open`: a result with what can be asked of it from Python, figures against the truth included."""

from __future__ import annotations

from typing import Any

from pipeline.dataset.result import Result, open_result
from pipeline.evaluation import report
from pipeline.evaluation.paired import paired
from pipeline.storage import Access


class OpenResult(Result):
    """The current result of an output: `.masks(where)`, `.head()`, `.show(mask_id)`, `.evaluate(truth)`."""

    def evaluate(
        self, ground_truth: str, *, images: str | None = None, replicates: int = 1000, access: Access | None = None
    ) -> dict[str, Any]:
        """The result against ground truth, as `pipeline.evaluate` has it."""
        return evaluate(self.store.uri, ground_truth, images=images, replicates=replicates, access=access)


def open(output: str, access: Access | None = None) -> OpenResult:  # noqa: A001 - pipeline.open is its public name
    """The current result of an output URI. Raises RefusedError when there is none, or its manifest was altered."""
    found = open_result(output, access)
    return OpenResult(found.store, found.manifest)


def evaluate(
    predictions: str,
    ground_truth: str,
    *,
    coarse: str | None = None,
    images: str | None = None,
    replicates: int = 1000,
    access: Access | None = None,
) -> dict[str, Any]:
    """Labels against ground truth: every figure that `relabel evaluate --json` writes, in its tree.

    predictions: an output's URI, or COCO JSON with the truth's ids; coarse: the masks it was made from, then. images: a
    list of those to measure. replicates: bootstrap draws behind each 95 % interval. Raises RefusedError.
    """
    pairs = paired(predictions, ground_truth, coarse, images, access or Access())
    return dict(report.to_json(report.evaluate(pairs, replicates)[0]))
