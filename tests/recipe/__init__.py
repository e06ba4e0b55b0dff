"""COCO-ReM's job from end to end on a pair of annotations made to measure: `make recipe`.

pair.py       a COCO-like and an LVIS-like annotation of photographs with known masks, with faults planted   [seeded]
reviewer.py   the person who judges findings, played by what is known of the faults
figures.py    what was found of the faults, and what the dataset is worth before and after
__main__.py   the commands, in the order in which a user gives them
with_model.py what `relabel findings --with-model` finds of masks left out and of classes swapped; a command of its own
"""
