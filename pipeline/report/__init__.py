"""The audit page: one HTML file that shows what a result holds and lets a person judge a sample of it.

    survey.py    one pass over the score columns: counts, histograms, categories, and which masks to show   [bounded]
    gallery.py   those masks as pictures: a crop of the image, both outlines as SVG paths
    risk.py      how bad the labels are on average when only the surest are kept: by truth, verdicts or estimate
    suspects.py  what `relabel findings` found, as pictures
    charts.py    numbers -> inline SVG                                                                      [pure]
    page.py      all of it -> HTML: every string escaped, nothing loaded from anywhere
    assets/      the page's style and script, put into it
    verdicts.py  what people said, read back and kept beside the result

The same result and options give the same bytes. Not here: measuring against truth (`pipeline.evaluation`).
"""
