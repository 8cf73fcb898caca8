"""Every way a request of a load test can fail has one name."""

import pytest

from engine.core.errors import ErrorKind
from engine.core.load_errors import LoadError, error_of, error_of_status


@pytest.mark.parametrize(
    ("status", "error"),
    [(200, None), (204, None), (301, "http_3xx"), (400, "http_4xx"), (401, "http_4xx"), (429, "http_429"),
     (500, "http_5xx"), (503, "http_5xx"), (599, "http_5xx"), (100, "http_3xx")],
)  # fmt: skip
def test_a_status_is_a_success_or_one_error(status: int, error: str | None) -> None:
    assert error_of_status(status) == error


@pytest.mark.parametrize("kind", ErrorKind)
@pytest.mark.parametrize("status", [0, 200, 429, 503])
def test_every_kind_of_failure_is_one_error(kind: ErrorKind, status: int) -> None:
    assert error_of(kind, status, is_sent=True, has_begun=False) in LoadError


def test_a_timeout_is_named_after_what_was_waited_for() -> None:
    def of(is_sent: bool, has_begun: bool) -> LoadError:
        return error_of(ErrorKind.TIMEOUT, 0, is_sent=is_sent, has_begun=has_begun)

    assert of(False, False) is LoadError.CONNECT_TIMEOUT
    assert of(True, False) is LoadError.TIMEOUT_FIRST_TOKEN
    assert of(True, True) is LoadError.TIMEOUT_TOTAL


def test_a_status_of_408_or_504_is_the_servers_own() -> None:
    assert error_of(ErrorKind.TIMEOUT, 408, is_sent=True, has_begun=False) is LoadError.HTTP_4XX
    assert error_of(ErrorKind.TIMEOUT, 504, is_sent=True, has_begun=False) is LoadError.HTTP_5XX


def test_a_success_without_an_answer_and_a_call_that_was_never_sent_are_told_apart() -> None:
    assert error_of(ErrorKind.BAD_REPLY, 200, is_sent=True, has_begun=True) is LoadError.BAD_JSON
    assert error_of(ErrorKind.BAD_REQUEST, 0, is_sent=False, has_begun=False) is LoadError.CLIENT_INTERNAL
    assert error_of(ErrorKind.BAD_REQUEST, 400, is_sent=True, has_begun=True) is LoadError.HTTP_4XX
