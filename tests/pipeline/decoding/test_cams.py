"""Class scores: what is read, what is refused, and which class wins."""

import gc
import io
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.decoding import cams
from pipeline.decoding.cams import CamRule
from pipeline.errors import MaskError

ALPHA = CamRule("chw", 1.0, None)


def npy(array: np.ndarray, **options: object) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, **options)
    return sink.getvalue()


def npz(compressed: bool = True, **content: np.ndarray) -> bytes:
    sink = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(sink, **content)
    return sink.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(0, 1, width=16),
    ),
    st.booleans(),
)
def test_both_layouts_and_both_files_hold_the_same(scores: np.ndarray, packed: bool) -> None:
    last = np.moveaxis(scores, 0, -1)
    write = (lambda array: npz(cam=array)) if packed else npy
    for data, layout in ((write(scores), "chw"), (write(last), "hwc"), (write(np.asfortranarray(scores)), "chw")):
        found = cams.read(data, layout)
        assert np.array_equal(found.scores, scores)
        assert found.categories == list(range(1, len(scores) + 1))


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (3, 4, 5), elements=st.floats(0, 1, width=32)), st.floats(0.5, 8), st.booleans())
def test_the_winner_is_the_argmax_with_the_background_first(scores: np.ndarray, number: float, power: bool) -> None:
    rule = CamRule("chw", number, None) if power else CamRule("chw", None, number / 8)
    exponent = np.float32(number)
    background = (1 - scores.max(axis=0)) ** exponent if power else np.full((4, 5), number / 8, np.float32)
    assert np.array_equal(cams.class_map(scores, rule), np.concatenate([background[None], scores]).argmax(axis=0))


def test_scores_are_enlarged_before_they_are_compared() -> None:
    scores = np.zeros((2, 4, 8), np.float32)
    scores[0, :, :4], scores[1, :, 4:] = 0.9, 0.8
    labels = cams.class_map(scores, ALPHA, (40, 80))
    assert labels.shape == (40, 80)
    assert set(np.unique(labels[:, :36])) == {1}
    assert set(np.unique(labels[:, 44:])) == {2}
    with pytest.raises(MaskError, match="another aspect"):
        cams.class_map(scores, ALPHA, (80, 40))


def test_keys_name_the_categories() -> None:
    found = cams.read(npz(cam=np.ones((2, 3, 3)), keys=np.array([15, 2])), "chw")
    assert found.categories == [15, 2]


def bomb() -> bytes:
    """A small zip that says it holds, and does hold, a very large array."""
    sink = io.BytesIO()
    with (
        zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("cam.npy", "w", force_zip64=True) as file,
    ):
        for _ in range(9):
            file.write(bytes(1 << 26))
    return sink.getvalue()


def header_only(shape: tuple[int, ...]) -> bytes:
    """A header that promises an array which is not there."""
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return sink.getvalue()


class Evil:
    """Would run when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (npy(np.array([Evil()]), allow_pickle=True), "object"),
        (npz(cam=np.ones((1, 2, 2)), keys=np.array(["cat"])), "not of numbers"),
        (npz(cam=np.ones((1, 2, 2)), keys=np.array([0])), "distinct"),
        (npz(cam=np.ones((2, 2, 2)), keys=np.array([3, 3])), "distinct"),
        (npz(a=np.ones((1, 2, 2)), b=np.ones((1, 2, 2)), c=np.ones(1)), "more than"),
        (npz(a=np.ones((1, 2, 2)), b=np.ones((1, 2, 2))), "no array `cam`"),
        (npy(np.ones((2, 2))), "three axes"),
        (npy(np.ones((0, 2, 2))), "0 classes"),
        (npy(np.full((1, 2, 2), np.nan)), "not within"),
        (npy(np.full((1, 2, 2), 7.0)), "not within"),
        (npy(np.full((1, 2, 2), -1.0)), "not within"),
        (header_only((1, 1 << 20, 1 << 20)), "bytes for an array"),
        (header_only((1 << 62, 1 << 62, 4)), "bytes for an array"),
        (header_only((-1, 2, 2)), "bytes for an array"),
        (npy(np.ones((1, 2, 2)))[:-1], "bytes for an array"),
        (b"\x93NUMPY\x09\x00", "Error"),
        (b"PK\x03\x04 not a zip", "BadZipFile"),
        (b"", "BadZipFile"),
    ],
)
def test_what_is_not_scores_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(MaskError, match=why) as refused:
        cams.read(data, "chw")
    assert refused.value.reason == "mask_unreadable"


def test_a_zip_bomb_is_not_unpacked() -> None:
    data = bomb()
    assert len(data) < 1 << 20
    with pytest.raises(MaskError, match="too large"):
        cams.read(data, "chw")


def test_headers_are_read_by_several_threads_while_garbage_is_collected() -> None:
    """Python's parser fails at random then, and a sound file would be none: see `python_parser.py`."""
    file = io.BytesIO()
    np.savez(file, cam=np.zeros((2, 4, 4), np.float32), keys=np.array([1, 2]))
    before = gc.get_threshold(), sys.getswitchinterval()
    gc.callbacks.append(_busy)
    gc.set_threshold(5, 5, 5)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: cams.read(file.getvalue(), "chw").categories, range(600)))
    finally:
        gc.callbacks.remove(_busy)
        gc.set_threshold(*before[0])
        sys.setswitchinterval(before[1])
    assert found == [[1, 2]] * 600


def _busy(_phase: str, _info: dict[str, int]) -> None:
    sum(range(200))
