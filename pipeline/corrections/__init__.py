"""The way back: masks that people corrected in CVAT or Label Studio become an overlay of the result.

    returned.py   a file -> the masks that came back, image by image
    compare.py    what came back against what was sent: replaced, added, removed, kept             [pure]
    bring.py      both, and the overlay is stored (`pipeline/dataset/overlays.py`)
    patch_file.py a file of patches: remove, add, split, crowd, class; with what people said of each
    patch.py      patches -> an overlay, by way of the masks that there are

It is laid over the result at the next seal (`pipeline/output/corrected.py`).
"""
