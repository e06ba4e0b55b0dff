"""A look at a dataset before anything is paid for: what planning would read of it, and pictures of its masks. No Ray.

    look.py       the planning pass, with nothing written and within bounds
    spread.py     a few images that show the most of it                                          [pure, bounded]
    sample.py     those images, loaded as a run would load them
    oddities.py   what is odd about them: frames, overlaps, turned photographs, ...              [pure]
    views.py      an image with its masks as a picture: outlines, colours                        [pure]
    sheet.py      views -> one PNG                                                               [pure]
    page.py       all of it -> one HTML file with zoom, nothing loaded from anywhere
    words.py      all of it -> lines for people, and JSON                                        [pure]

Not here: accounting for files and names (`pipeline.planning.coverage`), which is the same as that of `relabel plan`.
"""
