"""One line less on stderr, and nothing else."""

import subprocess
import sys

from tests.conftest import ROOT

WRITES = """
import os, sys
from pipeline.cluster.stderr_filter import without_lines
sys.stderr.write("before\\n")
try:
    with without_lines(b"boast"):
        os.write(2, b"a boast of C\\nsaid by C\\n")
        print("said by Python", file=sys.stderr)
        raise ValueError
except ValueError:
    print("after", file=sys.stderr)
"""


def test_only_the_named_line_is_kept_off() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITES], cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60, check=True
    )
    assert done.stderr.splitlines() == ["before", "said by C", "said by Python", "after"]
