"""What labels are worth to training: a small segmenter learns from each kind of them, and the truth says how well.

    objects.py    masks of a result to learn from, and true masks to be tested on, each cut out by a window
    features.py   what frozen networks, trained on other photographs, make of windows            [torch]
    segmenter.py  the network that learns, and how                                               [torch]
    lessons.py    the kinds of labels that are compared: which masks, which labels, which weights
    trials.py     every kind of labels with every seed; those that are done are kept
    figures.py    means, differences and their intervals; as a table, and as JSON

The windows are the same for all kinds of labels, and so are start, order, steps: labels alone differ.
"""
