"""How good are the labels? Predictions against ground truth, for one mask, for a data set, and for the scores.

    inputs.py      reads predictions (an output of `relabel run`, or COCO JSON) and ground truth   [the only I/O]
    pairing.py     joins them, and accounts for every annotation that has no usable prediction
    measures.py    the pixels: IoU, boundary IoU and boundary accuracy of each mask
    bootstrap.py   intervals: images are resampled, masks stay with their image
    precision.py   mask AP and boundary AP, through pycocotools
    detections/    AP of given detections against what came in, the labels and the truth
    scores.py      does a score know the IoU? rank correlation, AUROC, calibration, risk and coverage
    summary.py     all of it for one group of masks, as a tree of numbers
    report.py      all groups: everything, each source, the mean of the sources
    show.py        the tree as tables;  plots.py  as pictures

Not here: fitting anything (calibration, gate). What stands here only measures.
"""
