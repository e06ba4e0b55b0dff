"""Credentials in URIs: which are known, and that honest addresses stay as they are."""

import pytest

from schemas.config import Config, ConfigError, merged, parse_config, to_yaml, validated
from schemas.secrets import redacted, refusal

SECRET = "hUnter2-and/more+of=it"
WITH = [
    f"http://bob:{SECRET}@127.0.0.1:8123/images",
    f"https://{'ghp_' + 'hUnter2'}@host.example/x.json",
    f"s3://AKIA0:{SECRET}@bucket/photos",
    "https://h.example/a.json?X-Amz-Algorithm=AWS4&X-Amz-Signature=hUnter2&x=1",
    "https://h.example/a.json?x=1&amp;sig=hUnter2",
    "https://h.example/a.json?sv=2024&sig=hUnter2%2Fmore",
    "https://h.example/a?token=hUnter2#part",
    "https://h.example/a?GoogleAccessId=me&X-Goog-Signature=hUnter2",
    "https://h.example/a?access_token=hUnter2",
    "zip://a.jpg::https://bob:hUnter2@h.example/a.zip",
    'cannot read "https://h.example/a?Expires=1&Signature=hUnter2": 403',
]
WITHOUT = [
    "s3://bucket/prefix/a@2x.jpg",
    "http://127.0.0.1:9000/bucket/a@b/c",
    "abfs://container@account.dfs.core.windows.net/photos",
    "zip://a.jpg::s3://bucket/x@1.zip",
    "hf://datasets/owner/name@main/a.json",
    "/data/photos: 100%/x=1@home",
    "https://h.example/a.json?version=3&tokens=5",
    "labels: a=b; c@d.org",
    "file:///home/me@work/a.json",
]


@pytest.mark.parametrize("text", WITH)
def test_a_secret_goes_and_the_rest_stays(text: str) -> None:
    clean = redacted(text)
    assert "hUnter2" not in clean
    assert "***" in clean
    assert redacted(clean) == clean
    why = refusal(text)
    assert why is not None
    assert "hUnter2" not in why
    assert "AWS_ACCESS_KEY_ID" in why
    assert "\n" not in why


@pytest.mark.parametrize("text", WITHOUT)
def test_an_honest_address_is_as_it_was(text: str) -> None:
    assert redacted(text) == text
    assert refusal(text) is None


@pytest.mark.parametrize("part", ["operation: {endpoint_url: '%s'}", "gate: {calibration: '%s'}", "method: {x: '%s'}"])
def test_a_configuration_with_a_secret_is_refused_unsaid(part: str) -> None:
    with pytest.raises(ConfigError) as refused:
        validated(merged(text=part % "https://bob:hUnter2@h.example"))
    assert "hUnter2" not in str(refused.value)
    assert "credentials" in str(refused.value)


def test_a_configuration_of_aliases_or_of_great_depth_is_one_line() -> None:
    bomb = "a0: &a0 [x,x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1},*a{n - 1}]\n" for n in range(1, 60))
    for text in (bomb, "method: " + "[" * 3000 + "]" * 3000, "method: {model: " + "9" * 5000 + "}"):
        with pytest.raises(ConfigError):
            parse_config(text)
    assert parse_config(to_yaml(Config())) == Config()
