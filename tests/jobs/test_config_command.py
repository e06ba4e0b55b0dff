"""`relabel config`: what it shows is what `relabel run` takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.config import type_of
from pipeline.configuration import resolve
from schemas.config import PARTS, Config, ConfigError, parse_config


def config(*options: str) -> Result:
    return CliRunner().invoke(app, ["config", *options], env={"COLUMNS": "160"})


def test_every_key_is_there_with_its_default_and_meaning() -> None:
    told = config().stdout
    for part in PARTS.values():
        for name, field in part.model_fields.items():
            assert field.description, name
            assert name in told
            assert json.dumps(field.default) in told


def test_what_is_shown_can_be_run() -> None:
    shown = config("--preset", "fast", "--iterations", "2").stdout
    assert parse_config(shown) == resolve("fast", overrides={"method": {"iterations": 2}})


def test_a_file_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("operation: {chunk_images: 7}\n")
    assert yaml.safe_load(config("--config", str(path)).stdout)["operation"]["chunk_images"] == 7


def test_all_errors_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("method: {iteration: 3, gaussian_gamma: -1}\noperation: {shard_mb: x}\n")
    error = config("--config", str(path)).exception
    assert isinstance(error, ConfigError)
    first, *lines = str(error).splitlines()
    assert first == f"{path}: 3 errors in the configuration"
    assert [line.split()[0 if "unknown" not in line else 2] for line in lines] == [
        "method.gaussian_gamma:",
        "'method.iteration';",
        "operation.shard_mb:",
    ]
    assert "did you mean iterations?" in lines[1]


def test_one_error_stays_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^unknown key 'gates'; did you mean gate\? there are method, gate, opera"):
        parse_config("gates: {}")


def test_the_schema_is_that_of_the_configuration() -> None:
    schema = json.loads(config("--schema").stdout)
    assert set(schema["properties"]) == set(PARTS)
    gate = schema["$defs"]["Gate"]["properties"]["min_coarse_iou"]
    for value in (gate["minimum"] - 0.1, gate["maximum"] + 0.1):
        with pytest.raises(ValidationError):
            Config.model_validate({"gate": {"min_coarse_iou": value}})


def test_types_are_told_in_few_words() -> None:
    operation = PARTS["operation"].model_json_schema()["properties"]
    assert type_of(operation["actors_min"]) == "integer, ≥ 1 or null"
    assert type_of(operation["storage_timeout_s"]) == "number, > 0"
    assert type_of(operation["ignore"]) == "list of string"
    assert type_of(operation["log_format"]) == "text, json"
