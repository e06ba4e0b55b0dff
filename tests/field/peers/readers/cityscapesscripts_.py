"""cityscapesScripts: its evaluation of label ids takes the class maps for predictions, and finds every pixel right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling
from cityscapesscripts.helpers.labels import id2label
from decoded import Decoded, main
from PIL import Image

evaluation = evalPixelLevelSemanticLabeling


def read(folder: str, truth: str) -> Iterator[Decoded]:
    pairs = json.loads(Path(truth).read_text())  # map -> the truth as label ids
    predictions, wanted = [str(Path(folder, path)) for path in pairs], list(pairs.values())
    evaluation.args.JSONOutput = False
    evaluation.args.quiet = True
    evaluation.evaluateImgLists(predictions, wanted, evaluation.args)
    matrix, instances = evaluation.generateMatrix(evaluation.args), evaluation.generateInstanceStats(evaluation.args)
    for predicted, true in zip(predictions, wanted, strict=True):
        evaluation.evaluatePair(predicted, true, matrix, instances, {}, evaluation.args)
    assert np.array_equal(matrix, np.diag(np.diag(matrix))), "off the diagonal"
    for path in pairs:
        labels = np.asarray(Image.open(Path(folder, path)))
        for label in set(np.unique(labels)) - {0}:
            yield path, id2label[int(label)].name, labels == label


if __name__ == "__main__":
    main(read)
