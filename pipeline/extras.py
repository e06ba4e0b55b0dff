"""Optional dependencies: what needs a missing one is refused in one line that names the command to install it."""

from __future__ import annotations

from importlib.util import find_spec

from pipeline.errors import RefusedError

DISTRIBUTION = "relabel-masks"
"""The name under which this project is installed; `relabel` on the package index is a stranger's."""


def install_command(extra: str) -> str:
    """The command that installs an extra of this project."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def require(module: str, extra: str, what: str) -> None:
    """Raise RefusedError unless `module`, which `extra` installs, can be imported. what: what needs it."""
    if find_spec(module) is None:
        raise RefusedError(f"{what} needs {module}: {install_command(extra)}")
