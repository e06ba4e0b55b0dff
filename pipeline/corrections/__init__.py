"""The way back: masks that people corrected in CVAT or Label Studio become an overlay of the result.

    returned.py   a file -> the masks that came back, image by image
    compare.py    what came back against what was sent: replaced, added, removed, kept             [pure]
    bring.py      both, and the overlay is stored (`pipeline/dataset/overlays.py`)

It is laid over the result at the next seal (`pipeline/output/corrected.py`).
"""
