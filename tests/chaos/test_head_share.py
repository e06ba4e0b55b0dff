"""What stays with the command when tasks plan is measured, and is little."""

from pathlib import Path

from pipeline.planning.increment import read_plan
from pipeline.storage import Store
from tests.chaos.head_share import measure

IMAGES = 5000


def test_the_command_has_little_to_do(tmp_path: Path) -> None:
    found = measure(IMAGES, tmp_path)
    assert read_plan(Store(str(tmp_path / "output"))).images == IMAGES
    assert min(found[whose] for whose in ("command", "driver", "tasks")) > 0
    assert found["command_share"] < 0.5, "a few thousand images have the start in it"
