"""How `--help` shows parameters and paragraphs: a value as what it stands for, in capitals; nothing behind a flag."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from typer.core import TyperCommand

KINDS: dict[Any, str] = {bool: "", int: "N", float: "X", Path: "PATH"}
TEXTS = {
    "address": "ADDRESS",
    "device": "DEVICE",
    "dtype": "DTYPE",
    "endpoint_url": "URL",
    "json_out": "FILE",
    "key": "KEY",
    "kind": "KIND",
    "model": "NAME",
    "picture_format": "FORMAT",
    "refiner": "NAME",
}
"""Of the options whose value is text; what is not listed names a file or a folder, in most commands by any URI."""


class PlainCommand(TyperCommand):
    """A command that shows `OUTPUT` for typer's `{output}`, `N` for `<int range>`, nothing for `<bool>`."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [plain(parameter, ctx.command.callback) for parameter in super().get_params(ctx)]

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [re.sub(r"\{(.+?)\}", r"\1", piece) for piece in super().collect_usage_pieces(ctx)]


def plain(parameter: Any, function: Callable[..., Any] | None) -> Any:
    """The parameter, with what its value is called unless its declaration says so. function: the command."""
    if parameter.param_type_name == "argument":
        parameter.metavar = parameter.name.upper()
        parameter.__dict__["display_type_rich"] = lambda **_: None  # its name says it
    elif parameter.metavar is None:
        hint = get_type_hints(function).get(parameter.name, bool) if function else bool  # --help and its like
        parameter.metavar = value_of(parameter.name, hint)
    return parameter


def value_of(name: str, hint: Any) -> str:
    """What a value of that type is called: of `X | None` and `list[X]` as of X."""
    inner = [part for part in get_args(hint) if part is not NoneType]
    return value_of(name, inner[0]) if inner else KINDS.get(hint, TEXTS.get(name, "URI"))


def reflowed(text: str) -> str:
    """A docstring whose paragraphs are one line each, to be wrapped by the screen; examples keep lines of their own."""
    return re.sub(r"(?<!\n)\n(?!\n|Example|\s)", " ", inspect.cleandoc(text))
