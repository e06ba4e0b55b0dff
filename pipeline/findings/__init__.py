"""What is wrong with masks besides their outlines: `relabel findings OUTPUT`.

    kinds.py     what can be found, and what would cure it
    pairs.py     masks of one image against each other: duplicates, one inside another, overlaps        [pure]
    shapes.py    one mask alone: several objects in it; half of one, by what the model says               [pure]
    proposals.py objects that a model sees where there is no mask
    classes.py   masks that look like another class, told by embeddings                                    [pure]
    by_model.py  a model over the images of a result: both of these
    boxes.py     boxes of an annotation file against the masks
    find.py      all of it over a result, image by image, and the table that is kept
    show.py      the table for a terminal, and as a file of patches to edit

Findings are kept beside the result (`dataset/findings.py`) and change nothing. People accept or reject them in a file
of patches (`corrections/patch_file.py`).
"""
