"""What differs between two results: `relabel diff A B`.

sides.py     what is compared: a result, one of its generations, or the masks that came into it
join.py      both sides, image by image, whatever order they are in                           [bounded memory]
measure.py   two masks of one id -> how they differ; counts by category, size and decision     [pure]
compare.py   all of it: the figures, and which masks show them best
show.py      the figures as tables for a terminal, and as JSON
page.py      the figures and examples as one HTML file
"""
