"""Mask files and the images they belong to, for any name."""

from pipeline.sources.pairs import MaskFile, pairs
from pipeline.storage import StoredFile


def test_a_file_belongs_to_the_image_of_its_name_or_of_its_folder() -> None:
    images = ["b.png", "a/x.jpg", "a/x/y.jpg", "\udcff.png", "lone.png"]
    names = ["orphan/1.png", "b/2.png", "b/1.png", "a/x/y.png", "a/x/z.png", "a/x.png", "\udcff.png", "deep/b/1.png"]
    files = [StoredFile(name, size, None) for size, name in enumerate(names)]
    with pairs(iter(images), iter(files)) as found:
        assert {path: [file.path for file in own] for path, own in found.images()} == {
            "a/x.jpg": ["a/x.png", "a/x/z.png"],
            "a/x/y.jpg": ["a/x/y.png"],
            "b.png": ["b/1.png", "b/2.png"],
            "lone.png": [],
            "\udcff.png": ["\udcff.png"],
        }
        assert list(found.orphans()) == [
            ("deep/b/1", [MaskFile("deep/b/1.png", 7)]),
            ("orphan/1", [MaskFile("orphan/1.png", 0)]),
        ]


def test_images_that_differ_in_their_suffix_alone_are_all_there_and_one_has_the_files() -> None:
    files = [StoredFile("a.png", 1, None), StoredFile("b.png", 2, None)]
    images = ["a.png", "a.jpg", "a.webp", "b.png"]
    for given in (images, images[::-1]):
        with pairs(given, files) as found:
            assert list(found.images()) == [
                ("a.jpg", [MaskFile("a.png", 1)]),
                ("a.webp", []),
                ("a.png", []),
                ("b.png", [MaskFile("b.png", 2)]),
            ]
            assert not list(found.orphans())
