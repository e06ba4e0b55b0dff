"""`relabel config`: every key of a configuration, and what a command would run with."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from rich.table import Table

from jobs import console
from jobs.options import ConfigUri, Iterations, ModelNames, PresetName, RefinerName, together
from pipeline.configuration import read_config
from pipeline.errors import RefusedError
from pipeline.storage import Access
from schemas.config import PARTS, Config, to_yaml

CONSEQUENCES = {
    "method": "what is computed; a change refines anew, into a folder of its own",
    "gate": "which mask is kept; a change needs `relabel seal`, not the model",
    "operation": "how the work is carried out; never changes a result",
}


def config(
    show: Annotated[bool, typer.Option("--show", help="The YAML that `relabel run` would work with.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="A JSON schema of the YAML, for editors.")] = False,
    config: ConfigUri = None,
    preset: PresetName = "default",
    model: ModelNames = None,
    refiner: RefinerName = None,
    iterations: Iterations = None,
) -> None:
    """Every key of a configuration file, with its type, default and meaning.

    With --config, --preset or another option of the method: check them, and show the YAML that they come to.

    Example: relabel config --preset fast --model vit_h > fast.yaml
    """
    if show and schema:
        raise RefusedError("--show and --schema are two questions: ask one at a time")
    if schema:
        typer.echo(json.dumps(_schema(), indent=2))
        return
    method = {"model": together(model), "refiner": refiner, "iterations": iterations}
    if show or config or preset != "default" or any(method.values()):
        typer.echo(to_yaml(read_config(config, preset, {"method": method}, Access())), nl=False)
        return
    for part, fields in PARTS.items():
        console.out.show(_table(part, fields.model_fields))


def _schema() -> dict[str, Any]:
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **Config.model_json_schema(), "title": "Configuration of relabel"}


def _table(part: str, fields: dict[str, FieldInfo]) -> Table:
    table = Table(title=f"{part}: {CONSEQUENCES[part]}", title_justify="left", show_edge=False)
    table.add_column("key", no_wrap=True)
    table.add_column("default", no_wrap=True)
    table.add_column("type", overflow="fold")
    table.add_column("meaning", overflow="fold")
    properties = PARTS[part].model_json_schema()["properties"]
    for name, field in fields.items():
        table.add_row(name, json.dumps(field.default), type_of(properties[name]), field.description or "")
    return table


def type_of(schema: dict[str, Any]) -> str:
    """A property of a JSON schema -> its type and range, as few words as can be: "number, 0 to 1"."""
    if "anyOf" in schema:
        return " or ".join(type_of(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(schema["enum"])
    if schema["type"] == "array":
        return f"list of {type_of(schema['items'])}"
    return schema["type"] + _range(schema)


def _range(schema: dict[str, Any]) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f", {low:g} to {high:g}"
    limits = (("≥", low), (">", above), ("≤", high), ("<", below))
    return "".join(f", {sign} {limit:g}" for sign, limit in limits if limit is not None)
