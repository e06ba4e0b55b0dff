"""A decoder batch's whole way on the device: rounds of prompts and answers, views, scores. One call, one fetch.

    transfer   numpy to tensors and back, without waiting
    canvas     windows of bounded size around masks (`masks/canvas.py`), of all masks at once
    prompts    points, box and Gaussian mask of all masks at once (`masks/prompts.py`)
    rounds     prompt, decode, choose the best, again from that
    verdict    what images and logits say of masks (`masks/views.py`, `masks/scores.py`)

Between a batch's encoding and the fetch of its answers nothing asks the device for a value: no item, no nonzero, no
indexing by masks, no copy that waits (tests/pipeline/models/test_device_waits.py counts them). So shapes are fixed, and
what does not apply to a mask is computed and not used.
"""
