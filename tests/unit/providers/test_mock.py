"""The mock provider's address and manners."""

import json

import pytest

from engine.core.model import Ask, Target
from engine.providers.mock import Mock


@pytest.mark.parametrize("base_url", ["", "mock:", "mock:latency=200ms&rpm=6000"])
def test_before_the_embedded_mock_listens_a_job_can_be_checked(base_url: str) -> None:
    assert Mock(Target("mock", base_url=base_url)).origin == "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://127.0.0.1:4321/v1", "http://127.0.0.1:4321/v1/chat/completions"),
        ("http://127.0.0.1:4321", "http://127.0.0.1:4321/v1/chat/completions"),
        ("http://127.0.0.1:4321/", "http://127.0.0.1:4321/v1/chat/completions"),
        ("http://127.0.0.1:4321/v1beta/openai", "http://127.0.0.1:4321/v1beta/openai/chat/completions"),
    ],
)
def test_a_mock_elsewhere_is_asked_under_v1_unless_it_says_otherwise(base_url: str, url: str) -> None:
    assert Mock(Target("mock", base_url=base_url)).build(Ask(prompt="Q")).url == url


def test_it_needs_neither_a_key_nor_a_model() -> None:
    provider = Mock(Target("mock"))
    assert provider.auth is None
    assert json.loads(provider.build(Ask(prompt="Q")).body or b"")["model"] == "mock-model"
    named = Mock(Target("mock", model="m"))
    assert json.loads(named.build(Ask(prompt="Q")).body or b"")["model"] == "m"
