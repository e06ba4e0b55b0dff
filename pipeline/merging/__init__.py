"""Two annotations of the same images made one: `relabel merge FIRST SECOND`, as COCO-ReM makes one of COCO and LVIS.

rule.py       which of the two an image's masks of one class are taken from                          [pure]
reading.py    both sources, image by image, whatever order they are in                               [bounded memory]
classes.py    the classes of the second in the numbers of the first                                  [pure]
writing.py    what was taken, as one COCO file
merge.py      all of it
"""
