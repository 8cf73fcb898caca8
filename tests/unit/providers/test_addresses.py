"""Base URLs."""

import pytest

from engine.core.errors import UsageError
from engine.providers.addresses import read_address


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com", "/v1"),
        ("https://api.openai.com/v1/", "https://api.openai.com", "/v1"),
        ("HTTP://LocalHost:8000", "http://localhost:8000", ""),
        ("https://host:443/x", "https://host", "/x"),
        ("http://host:80", "http://host", ""),
        ("http://[::1]:11434/v1", "http://[::1]:11434", "/v1"),
        (
            "https://generativelanguage.googleapis.com/v1beta/openai/",
            "https://generativelanguage.googleapis.com",
            "/v1beta/openai",
        ),
    ],
)
def test_a_base_url_is_an_origin_and_a_path(url: str, origin: str, path: str) -> None:
    address = read_address(url)
    assert (address.origin, address.path) == (origin, path)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://host/v1",
        "http://",
        "http:///v1",
        "http://host:99999",
        "http://host:0",
        "http://ho st/v1",
        "http://host/v1\r\nx: y",
        "http://host\\@evil/v1",
        "http://höst/v1",
        "http://host/v1?key=1",
        "http://host/v1?",
        "http://host/v1#x",
        "http://host/a/../v1",
        "http://[::1/v1",
        "http://host/{{ id }}",
        "https://host/v1/chat/completions",
    ],
)
def test_what_is_no_base_url_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        read_address(url)


def test_a_password_in_a_base_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as raised:
        read_address("https://me:hunter2@host/v1")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", "/openai", "/openai/v1", "/openai/v1/"])
def test_accepted_endings_are_cut_once(ending: str) -> None:
    assert read_address(f"https://host/gate{ending}", cut=("/openai/v1", "/openai", "/v1")).path == "/gate"
