"""Azure's URLs, limit names and charges."""

import json
from typing import Any

import pytest

from engine.core.errors import RowError, UsageError
from engine.core.model import Ask, Charge, Target
from engine.providers.azure import Azure

ORIGIN = "https://me.openai.azure.com"


def made(**fields: Any) -> Azure:
    return Azure(Target("azure", **{"base_url": ORIGIN, "model": "dep", **fields}))


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/openai", "/openai/v1", "/openai/v1/"])
@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("", "/openai/v1/chat/completions"),
        ("2024-10-21", "/openai/deployments/dep/chat/completions?api-version=2024-10-21"),
    ],
)
def test_the_origin_and_its_usual_endings_lead_to_the_same_url(ending: str, version: str, path: str) -> None:
    provider = made(base_url=ORIGIN + ending, api_version=version)
    assert provider.build(Ask(prompt="Q")).url == ORIGIN + path
    assert provider.origin == ORIGIN


def test_responses_have_no_deployment_in_their_url() -> None:
    provider = made(endpoint="responses", api_version="2025-04-01-preview")
    assert provider.build(Ask(prompt="Q")).url == f"{ORIGIN}/openai/responses?api-version=2025-04-01-preview"


def test_names_in_a_url_are_escaped() -> None:
    call = made(model="a/b c", api_version="1&x=2").build(Ask(prompt="Q"))
    assert call.url == f"{ORIGIN}/openai/deployments/a%2Fb%20c/chat/completions?api-version=1%26x%3D2"


def test_a_lines_own_deployment_has_its_url_once() -> None:
    provider = made(api_version="2024-10-21")
    ask = Ask(body={"model": "other", "messages": []}, path="/v1/chat/completions")
    first, second = provider.build(ask), provider.build(ask)
    assert first.url == f"{ORIGIN}/openai/deployments/other/chat/completions?api-version=2024-10-21"
    assert first.url is second.url


def test_remembered_urls_are_bounded() -> None:
    provider = made(api_version="2024-10-21")
    for number in range(600):
        call = provider.build(Ask(body={"model": f"d{number}", "messages": []}, path="/v1/chat/completions"))
        assert f"/d{number}/" in call.url
    assert len(provider._urls) <= 256


def test_dots_are_no_name_of_a_deployment() -> None:
    with pytest.raises(UsageError, match="deployment"):
        made(model="..")
    with pytest.raises(RowError, match="deployment"):
        made(api_version="2024-10-21").build(Ask(body={"model": ".."}, path="/v1/chat/completions"))


@pytest.mark.parametrize(
    ("model", "version", "field"),
    [
        ("gpt-5", "2024-02-01", "max_completion_tokens"),
        ("my-o3-mini", "", "max_completion_tokens"),
        ("gpt-4o", "", "max_tokens"),
        ("gpt-35-turbo", "2024-12-01-preview", "max_tokens"),
        ("dep", "", "max_completion_tokens"),
        ("dep", "2024-12-01-preview", "max_completion_tokens"),
        ("dep", "2024-02-01", "max_tokens"),
    ],
)
def test_the_limits_name_follows_the_deployment_or_the_version(model: str, version: str, field: str) -> None:
    call = made(model=model, api_version=version, max_tokens=7).build(Ask(prompt="Q"))
    body = json.loads(call.body or b"")
    assert body[field] == 7
    assert ("max_tokens" in body) != ("max_completion_tokens" in body)


def test_a_call_costs_the_prompt_and_the_limit_of_all_answers() -> None:
    assert made(max_tokens=50).build(Ask(prompt="x" * 40)).charge == Charge(10, 50, 60)
    assert made(max_tokens=50, params={"n": 3}).build(Ask(prompt="x" * 40)).charge == Charge(10, 150, 160)
    assert made(endpoint="completions").build(Ask(prompt="x" * 40)).charge == Charge(10, 16, 26)


def test_a_base_url_is_required() -> None:
    with pytest.raises(UsageError, match="--base-url"):
        made(base_url="")


def test_a_prompt_without_a_deployment_fails_its_row() -> None:
    with pytest.raises(RowError, match="--model"):
        made(model="", api_version="2024-10-21").build(Ask(prompt="Q"))
