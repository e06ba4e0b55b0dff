"""Registries: wherever a name on the command line chooses code, a table holds one object for it, and all else derives.

    MODELS     models/registry.py     ModelSpec   --model
    REFINERS   refiners/registry.py   Refiner     --refiner
    SOURCES    sources/registry.py    Source      --source
    EXPORTS    exports/registry.py    Export      --format

One more of a kind is one file, one line in its table, one test. The docstring of each table's module says what the
file holds.

From another package it is the same line, run before the table is used:

    from my_package import my_refiner
    from pipeline.refiners import REFINERS, Refiner

    REFINERS["mine"] = Refiner(my_refiner.refine, model="none")

    from jobs import cli  # after it: --help and the options list what is registered by now

    cli.main()  # the `relabel` command, with one refiner more

Only the process that runs this line has it in its table. Workers need no table: a job carries the objects that its
method names, and they are pickled. So whatever such an object holds (functions, classes, values) must be found by name
in a module that every worker can import: an installed package, or a file on PYTHONPATH. A function of `__main__` or of
a notebook's cell is no such thing. The same holds for an export with several workers. Sources run where the command
does, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pipeline.errors import RefusedError

T = TypeVar("T")


def look_up(table: Mapping[str, T], name: str, what: str) -> T:
    """The object of that name. Raises RefusedError, which lists the names that there are; `what` they are names of."""
    if name not in table:
        raise RefusedError(f"unknown {what} {name!r}; there are {', '.join(table)}")
    return table[name]
