"""Commands whose modules are imported when they are called: none waits for what only others need."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from jobs.plain_help import PlainCommand, plain, reflowed


class Place(NamedTuple):
    """Where a command stands in the help, and which function of which module of `jobs` it is."""

    panel: str
    module: str
    function: str

    def load(self) -> Any:
        """The command with its options, as typer makes it of the function."""
        function = getattr(import_module(f"jobs.{self.module}"), self.function)
        alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
        told = reflowed(function.__doc__ or "")
        alone.command(cls=PlainCommand, help=told, rich_help_panel=self.panel)(function)
        return get_command(alone)

    def outline(self, name: str) -> TyperCommand:
        """Its name and help without its module: the docstring as it stands in the source."""
        tree = ast.parse((Path(__file__).parent / f"{self.module}.py").read_text(encoding="utf-8"))
        [function] = [one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == self.function]
        return TyperCommand(name, help=ast.get_docstring(function), rich_help_panel=self.panel)


class LazyCommands(MutableMapping[str, Any]):
    """Commands by name, each loaded when it is first asked for."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = dict(places)
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._places[name].load()
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        self._loaded.pop(name, None)
        del self._places[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._places, *self._loaded]))

    def __len__(self) -> int:
        return len({*self._places, *self._loaded})

    def __contains__(self, name: object) -> bool:
        return name in self._places or name in self._loaded

    def outlines(self) -> dict[str, Any]:
        """What the list of commands shows of them."""
        return {name: place.outline(name) for name, place in self._places.items()}


def group_of(places: Mapping[str, Place]) -> type[TyperGroup]:
    """The class of a typer app that has these commands."""

    class Commands(TyperGroup):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.commands = LazyCommands(places)

        def get_params(self, ctx: Any) -> list[Any]:
            return [plain(parameter, None) for parameter in super().get_params(ctx)]

        def format_help(self, ctx: Any, formatter: Any) -> None:
            lazy, self.commands = self.commands, LazyCommands(places).outlines()
            try:
                super().format_help(ctx, formatter)
            finally:
                self.commands = lazy

    return Commands
