"""Given detections against several annotations of the same images: does another annotation rank detectors anew?

annotations.py   what came in, the labels and the truth, each as all annotations of some images; detections
precision.py     mask AP and boundary AP of detections against one of them, as COCO and LVIS count
compare.py       every file of detections against every annotation; the figures as a tree and as a table
"""
