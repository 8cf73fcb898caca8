"""Exact counts from a vocabulary on disk, and never a download."""

import hashlib
import socket
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.core.errors import UsageError
from engine.core.model import Ask, Target
from engine.providers import make_provider
from engine.vocabulary import exact_measure

public = pytest.importorskip("tiktoken_ext.openai_public")
ADDRESS = "https://nowhere.invalid/o200k_base.tiktoken"
WORDS = [bytes([number]) for number in range(256)] + [b"he", b"ll", b"hell", b"hello", b" w", b" wo"]
FILE = b"".join(b64encode(word) + b" %d\n" % rank for rank, word in enumerate(WORDS))


@pytest.fixture(autouse=True)
def small_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """tiktoken's table with a vocabulary of a few words, and no network at all."""

    def o200k_base() -> dict[str, object]:
        ranks = public.load_tiktoken_bpe(ADDRESS, expected_hash=hashlib.sha256(FILE).hexdigest())
        return {"name": "o200k_base", "pat_str": r"\s?\w+|.", "mergeable_ranks": ranks, "special_tokens": {}}

    def no_network(*arguments: object) -> None:
        raise AssertionError("nothing may be downloaded")

    monkeypatch.setitem(public.ENCODING_CONSTRUCTORS, "o200k_base", o200k_base)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / hashlib.sha1(ADDRESS.encode()).hexdigest()).write_bytes(FILE)
    return str(tmp_path)


def test_texts_are_counted_by_the_models_own_vocabulary(folder: str) -> None:
    measure = exact_measure("gpt-4o-mini", (folder,))
    assert [measure(text) for text in ("", "hello", "hello wo", "x")] == [0, 4, 8, 4]


def test_the_first_folder_that_has_it_is_taken(folder: str) -> None:
    assert exact_measure("gpt-4o-mini", ("/no/such/folder", folder))("hello") == 4


@pytest.mark.parametrize(
    ("model", "spoil", "says"),
    [
        ("gpt-4o-mini", lambda path: path.unlink(), "not on this machine"),
        ("gpt-4o-mini", lambda path: path.write_bytes(FILE + b"x"), "not the vocabulary"),
        ("my-own-model", lambda path: None, "knows no vocabulary"),
    ],
)
def test_what_is_missing_or_wrong_is_said_before_anything_is_sent(
    folder: str, model: str, spoil: Callable[[Path], None], says: str
) -> None:
    spoil(next(Path(folder).iterdir()))
    with pytest.raises(UsageError, match=says):
        exact_measure(model, (folder,))


def test_calls_are_charged_by_the_exact_count(folder: str) -> None:
    provider = make_provider(Target(provider="openai", base_url="http://127.0.0.1:9/v1", model="gpt-4o-mini"))
    estimated = provider.build(Ask(prompt="hello wo")).charge
    provider.measure = exact_measure("gpt-4o-mini", (folder,))
    exact = provider.build(Ask(prompt="hello wo")).charge
    both = provider.build(Ask(prompt="hello", system="hello")).charge
    messages = provider.build(Ask(messages=[{"role": "user", "content": "hello wo"}])).charge
    assert (estimated.tokens_in, exact.tokens_in, both.tokens_in, messages.tokens_in) == (2, 2, 2, 2)
    assert provider.build(Ask(prompt="xxxxxxxx")).charge.tokens_in == 8
