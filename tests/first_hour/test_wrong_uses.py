"""What people type wrong in their first hour, and what is printed: one line that says what to do, and nothing else.

No traceback, no line of Ray's, the exit code 2 of what was refused before any work. To read them all:
`pytest -s tests/first_hour/test_wrong_uses.py`.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import cli
from tests.conftest import DEMO

RUN = "relabel run --images photos --masks coarse.json --output out"
WRONG_USES = {
    # a slip of the fingers
    "relabel rum": "No such command 'rum'. Did you mean 'run'? `relabel --help`",
    f"{RUN} --adress auto": "No such option: --adress (Possible options: --address",
    f"{RUN} --source cocoo": "unknown source 'cocoo'; there are coco, ",
    f"{RUN} --preset fastest": "unknown preset 'fastest'; there are default, fast, balanced, best",
    f"{RUN} --model sam": "unknown model 'sam'; there are lite, vit_b",
    f"{RUN} --retry-failed --retry-reasons ,": "--retry-reasons ',' names no reason; there are image_missing, ",
    f"{RUN} --actors many": "--actors takes N or MIN:MAX, not 'many'",
    f"{RUN} --chunk-images 0": "Invalid value for '--chunk-images'",
    "relabel export out --format cocoo --to x": "unknown export format 'cocoo'; there are coco, ",
    "relabel bench --device tpu": "unknown device 'tpu'; there are cpu, cuda",
    # something was left out
    "relabel run": "Missing option '--masks'",
    "relabel run --masks coarse.json --output out": "--images is missing: masks of the source coco do not say where",
    f"{RUN} --model vit_h": "model vit_h needs --checkpoint: the official one is https://",
    "relabel refine photos/chelsea.jpg": "Missing argument 'MASK'",
    "relabel findings out --with-model": "Option '--with-model' requires an argument. `relabel findings --help`",
    # not there, or not yet
    "relabel run --images photos --masks nowhere.json --output out": "the masks nowhere.json do not exist",
    "relabel run --images nowhere --masks coarse.json --output out": "the image folder nowhere does not exist",
    f"{RUN} --checkpoint sam_vit_h.pth": "the checkpoint sam_vit_h.pth does not exist",
    f"{RUN} --config nowhere.yaml": "the configuration nowhere.yaml does not exist",
    "relabel status nowhere": "nowhere holds no plan; `relabel run --output nowhere ...` makes one",
    "relabel report nowhere": "holds no sealed result: no current.json. `relabel run --output nowhere ...` makes one",
    "relabel refine nowhere.jpg mask.png --output x.png": "cannot read the image nowhere.jpg: there is no such file",
    # something else than meant
    "relabel run --images photos --masks notes.txt --output out": "no mask at all in {here}/notes.txt",
    "relabel run --images photos --masks bad.json --output out": "bad.json is not valid JSON, after about byte 1",
    "relabel run --images photos --masks masks.zip --output out": "a compressed archive cannot be read in place",
    "relabel run --images empty --masks coarse.json --output out": "the image folder empty: the folder is empty",
    "relabel run --images photos --masks empty --output out": "the masks empty: the folder is empty",
    "relabel run --images photos --masks coarse.json --output notes.txt": "notes.txt is a file; name a folder",
    "relabel run --images photos --masks coarse.json --output photos": "is the folder of --images: name a folder",
    "relabel files notes.txt": "notes.txt holds no sealed result: no current.json. `relabel run --output notes.txt",
    "relabel gc notes.txt": "notes.txt holds neither a plan nor a result: nothing of ours to remove",
    "relabel seal notes.txt": "notes.txt holds no sealed result: no current.json. `relabel run` makes one",
    "relabel patch notes.txt --from bad.json": "{here}/notes.txt is a file; name a folder",
    "relabel demo --output notes.txt": "notes.txt is a file; name a folder",
    f"{RUN} --config bad.yaml": "bad.yaml: not valid YAML: ",
    f"{RUN} --config relabel.yaml": "relabel.yaml: operation.chunk_images: Input should be a valid integer",
    f"{RUN} --address nowhere:6379": "no Ray cluster at nowhere:6379",
    "relabel run --images s3://me:pw@b/a --masks coarse.json --output out": "contains credentials",
    # one image
    "relabel refine photos/chelsea.jpg small.png --output x.png": "small.png has (height, width) (30, 30), its image",
    "relabel refine photos/chelsea.jpg black.png --output x.png": "black.png has no pixel that is not zero",
    "relabel refine photos/chelsea.jpg notes.txt --output x.png": "mask_unreadable: notes.txt: ",
    "relabel refine photos/a.jpg photos/b.jpg mask.png --output x.png": "Quote a pattern, so that the shell leaves it",
    "relabel refine photos/chelsea.jpg mask.png --output mask.png": "mask.png would be written over an input",
    "relabel refine photos/chelsea.jpg mask.png --output x.png --device gpu": "unknown device 'gpu'; there are cpu,",
}
FIRST = ("plan: reading the input",)
"""What may be said before: these are refused by what planning reads."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as somebody has it who tries things."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(DEMO / "images", folder / "photos")
    shutil.copy(DEMO / "coarse.json", folder)
    (folder / "empty").mkdir()
    for name, text in (
        ("notes.txt", "remember the milk"),
        ("bad.json", "{no json"),
        ("masks.zip", "PK"),
        ("bad.yaml", "method: ["),
        ("relabel.yaml", "operation: {chunk_images: many}"),
    ):
        (folder / name).write_text(text)
    mask = np.zeros((300, 451), np.uint8)
    Image.fromarray(mask).save(folder / "black.png")
    Image.fromarray(mask[:30, :30] + 255).save(folder / "small.png")
    mask[90:150, 135:208] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """The command sets handlers; they are those of the tests again."""
    kept = {number: signal.getsignal(number) for number in cli.ENDED_BY}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("line", WRONG_USES)
def test_one_line_says_what_to_do(
    line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr()
    with capfd.disabled():
        sys.stdout.write(f"\n$ {line}\n{said.err}")
    assert ended.value.code == 2
    assert said.out == ""
    lines = [one for one in said.err.splitlines() if one not in FIRST]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("relabel: ")
    assert WRONG_USES[line].format(here=place) in lines[0]
    assert not {path.name for path in place.iterdir()} & {"x", "x.png"}


def test_without_arguments_the_help_is_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["relabel"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "Start with: relabel demo" in "".join(capfd.readouterr())
