"""Exports: what was refined comes out in other formats, pixel for pixel."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.dataset import Result, open_result
from pipeline.errors import RefusedError
from pipeline.exports import class_maps, layers
from pipeline.masks import binary
from pipeline.masks.frames import ORIGINAL_SIZE
from pipeline.models import NoModel
from pipeline.output.seal import SealRequest, seal
from pipeline.planning.increment import ChunkLimits, plan, read_chunk, read_plan
from pipeline.refining import chunk as chunk_work
from pipeline.refining.chunk import Inputs, Task
from pipeline.sources import SourceInput, scan
from pipeline.storage import Access, Store
from pipeline.storage.documents import run_store
from schemas.config import Gate, Method
from tests.conftest import Cli
from tests.pipeline.exports.results import write

SIZE = (60, 80)


def voc_map(seed: int) -> np.ndarray:
    """Background, three classes, one of them in two pieces, and void around one of them."""
    labels = np.zeros(SIZE, np.uint8)
    labels[5:30, 5 + seed : 30] = 15
    labels[40:55, 50:70] = 15
    labels[8:34, 45:75] = 255
    labels[10:32, 47:73] = 2
    labels[35:58, 4:40] = 20
    return labels


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three photographs, of which two have a class map, in the folders of Pascal VOC."""
    for folder in ("JPEGImages", "SegmentationClass"):
        (tmp_path / folder).mkdir()
    rng = np.random.default_rng(0)
    for seed, name in enumerate(("2007_000032", "2007_000039", "2007_999999")):
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        if seed < 2:
            image = Image.fromarray(voc_map(seed))
            image.putpalette([i for index in range(256) for i in (index, 0, 255 - index)])
            image.save(tmp_path / "SegmentationClass" / f"{name}.png")
    return tmp_path


def run(dataset: Path, masks_folder: str, source: str) -> Result:
    """Plan, refine with `none` and seal, in this process."""
    output, images = Store(str(dataset / "out")), Store(str(dataset / "JPEGImages"))
    listed = {file.path: file for file in images.list()}
    given = SourceInput(str(dataset / masks_folder), Access(), listed)
    plan(output, scan(source, given), listed, ChunkLimits(1, 1 << 30))
    method = Method(refiner="none", split_regions=True, exclusive=True)
    store = run_store(output, "feedc0ffee00")
    for chunk in read_plan(output).chunks:
        loaded = chunk_work.load(
            read_chunk(output, chunk), Inputs(images, Store(given.masks_uri)), method, ORIGINAL_SIZE, 2
        )
        chunk_work.write(chunk_work.refine(loaded, NoModel(), method), Task(chunk, chunk.images), store, "test")
    request = SealRequest(
        output=output,
        fingerprint="feedc0ffee00",
        gate=Gate(),
        calibration=None,
        shard_bytes=1,
        images_root=images.uri,
    )
    seal(request)
    return open_result(output.uri)


def maps_in(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}


def test_class_maps_come_out_as_they_went_in(relabel: Cli, dataset: Path) -> None:
    result = run(dataset, "SegmentationClass", "class-maps")
    assert len(result.files("masks")) == 2  # several shards
    report = write(result, dataset / "maps", "class-maps").report
    assert report["counts"] == {"images": 2, "masks": 6}  # the third photograph has no map
    assert report["lost"] == {}
    voids = dataset / "SegmentationClass"
    command = ("export", dataset / "out", "--format", "class-maps", "--to", dataset / "void", "--void", voids)
    done = relabel(*command)
    assert done.returncode == 0, done.stderr
    without, with_void = maps_in(dataset / "maps"), maps_in(dataset / "void")
    assert set(with_void) == set(without) == {"2007_000032", "2007_000039"}
    for seed, name in enumerate(sorted(with_void)):
        labels = voc_map(seed)
        assert np.array_equal(with_void[name], labels)
        assert np.array_equal(without[name], np.where(labels == 255, 0, labels))
    assert Image.open(dataset / "maps" / "2007_000032.png").mode == "P"


def test_soft_maps_come_out_as_class_maps(dataset: Path) -> None:
    (dataset / "cams").mkdir()
    scores = np.zeros((*SIZE, 2), np.float32)
    scores[10:30, 10:40, 0], scores[20:50, 30:70, 1] = 0.6, 0.8
    np.savez(dataset / "cams" / "2007_000032.npz", cam=scores, keys=np.array([7, 12]))
    (dataset / "cams" / "2007_000039.npy").write_bytes(b"broken")
    result = run(dataset, "cams", "cam:layout=hwc,threshold=0.3")
    counts = write(result, dataset / "maps", "class-maps").report["counts"]
    assert counts["masks"] == 2
    assert counts["left out: failed masks"] == counts["left out: images of which no mask is selected"] == 1
    expected = np.zeros(SIZE, np.uint8)
    expected[10:30, 10:40] = 7
    expected[20:50, 30:70] = 12
    assert np.array_equal(maps_in(dataset / "maps")["2007_000032"], expected)


def test_what_cannot_be_exported_is_refused(dataset: Path) -> None:
    result = run(dataset, "SegmentationClass", "class-maps")
    with pytest.raises(RefusedError, match="class-maps"):
        write(result, dataset / "maps", "jpeg")


def row(mask: np.ndarray, category: int, quality: float | None, name: str = "a") -> dict[str, object]:
    rle = binary.encode(mask)
    return {
        "image_id": "x.jpg",
        "mask_id": name,
        "category_id": category,
        "mask_rle": rle,
        "quality": quality,
        "area": binary.area(rle),
    }


def test_the_smaller_mask_is_on_top_and_among_equals_the_better() -> None:
    large, small = np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    small[1:3, 1:3] = 1
    for first, second in ((0.9, 0.5), (0.5, 0.9), (None, None)):
        for masks in ([row(large, 1, first), row(small, 2, second)], [row(small, 2, second), row(large, 1, first)]):
            pixels = class_maps.values(masks)[layers.paint(masks, (4, 4))]
            assert (pixels[1, 1], pixels[0, 0]) == (2, 1)
    for first, second, on_top in ((0.9, 0.5, 1), (0.5, 0.9, 2), (0.1, None, 1)):
        assert layers.paint([row(small, 1, first), row(small, 2, second)], (4, 4))[1, 1] == on_top
    crowd = {**row(small, 1, 0.9), "crowd": True}
    assert layers.paint([crowd, row(large, 2, 0.5)], (4, 4))[1, 1] == 2


@pytest.mark.parametrize("category", [-1, 0, 255, 1203])
def test_categories_that_do_not_fit_are_refused(category: int) -> None:
    with pytest.raises(RefusedError, match="a class map holds"):
        class_maps.values([row(np.ones((2, 2), np.uint8), category, 0.5)])


def test_the_palette_has_a_colour_of_its_own_for_each_class() -> None:
    image = Image.open(io.BytesIO(class_maps.to_png(np.arange(256, dtype=np.uint8).reshape(16, 16))))
    colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) == 256
    assert np.array_equal(np.asarray(image).ravel(), np.arange(256))
