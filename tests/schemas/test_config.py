"""Configuration: what is hashed, what is refused, and in which words."""

import pytest

from pipeline.configuration import resolve
from schemas import config
from schemas.config import ConfigError, Method, Operation, fingerprint


def test_options_win_over_yaml_and_yaml_over_the_preset() -> None:
    text = "method: {iterations: 3, gaussian_gamma: 2.0}\noperation: {chunk_images: 8}"
    resolved = resolve("published-paper", text, {"method": {"iterations": 2, "model": None}})
    assert resolved.method.iterations == 2
    assert resolved.method.gaussian_gamma == 2.0
    assert resolved.method.gaussian_strength == 15
    assert resolved.method.model == "lite"
    assert resolved.operation.chunk_images == 8


def test_iterations_follow_the_model_unless_given() -> None:
    assert resolve().method.iterations == 1
    assert resolve("default", None, {"method": {"model": "vit_h"}}).method.iterations == 5
    assert resolve("published-code").method.iterations == 5
    assert resolve("default", "method: {iterations: 3}").method.iterations == 3


def test_the_written_configuration_is_one_that_can_be_given() -> None:
    resolved = resolve("published-code", "gate: {min_coarse_iou: 0.1}")
    text = config.to_yaml(resolved)
    assert resolve("default", text) == resolved
    assert config.is_whole(text)
    assert not any(config.is_whole(damaged) for damaged in (text[:-1], text[:200], text.replace("8", "9", 1), ""))


def test_the_fingerprint_is_of_the_method_alone() -> None:
    base = resolve()
    other_operation = resolve("default", "operation: {chunk_images: 3}\ngate: {enabled: false}")
    assert fingerprint(base.method) == fingerprint(other_operation.method)
    assert fingerprint(base.method) != fingerprint(Method(iterations=base.method.iterations + 1))
    assert len(fingerprint(base.method)) == 12


def test_the_fingerprint_depends_on_the_method_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(Method())
    monkeypatch.setattr(config, "METHOD_VERSION", config.METHOD_VERSION + 1)
    assert fingerprint(Method()) != before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: {iteratoins: 3}", "unknown key 'method.iteratoins'; did you mean iterations"),
        ("methods: {}", "unknown part 'methods'; a configuration has method, gate, operation"),
        ("method: {iterations: 0}", "method.iterations: .*given: 0"),
        ("method: {use_points: false, use_box: false, use_mask: false}", "at least one of"),
        ("gate: [1]", "gate: expected keys and values, found list"),
        ("method: {", "not valid YAML"),
        ("- 1", "expected the keys"),
        ("gate: {min_coarse_iou: .nan}", "gate.min_coarse_iou"),
        ("method: {model: !!python/object/apply:os.system ['true']}", "not valid YAML"),
    ],
)
def test_refusals_name_the_key(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        resolve("default", text)
    assert "\n" not in str(raised.value)


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(ConfigError, match="published-code"):
        resolve("fastest")


def test_actor_bounds_are_in_order() -> None:
    with pytest.raises(ValueError, match="above the maximum"):
        Operation(actors_min=3, actors_max=2)


def test_a_base_yields_to_everything() -> None:
    base = {"split_regions": True, "exclusive": True, "iterations": 7}
    method = resolve("published-code", "method: {exclusive: false}", None, base).method
    assert (method.split_regions, method.exclusive, method.iterations) == (True, False, 5)
