"""Runs through servers that people really put in front of models: nginx and a TLS proxy."""

from pathlib import Path

import pytest
import trustme
from runs import Run, ask_flags, read_rows, write_rows
from servers import free_port, nginx, stunnel

from engine.config import WIRES
from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess

pytestmark = [pytest.mark.slow, pytest.mark.needs_server]


@pytest.fixture(params=WIRES, autouse=True)
def wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What carries the requests of every run here."""
    monkeypatch.setenv("ENGINE_WIRE", request.param)


def port_of(mock: MockProcess) -> int:
    return int(mock.base_url.split(":")[2].split("/")[0])


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}/v1"


def test_connections_that_nginx_closes_under_us_cost_no_row_and_no_call_unseen(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 2000), tmp_path / "out.jsonl"
    with (
        MockProcess(MockSettings(latency="5ms")) as mock,
        nginx(tmp_path, port_of(mock), extra="keepalive_requests 50; keepalive_timeout 1s;") as server,
    ):
        summary = Run(
            *ask_flags(url(server.port), source, output, "--in-flight", "40", "--procs", "2")
        ).summary()
        stats = mock.stats()
    assert (summary["ok"], summary["failed"]) == (2000, 0)
    assert stats["rows"] == 2000
    # A call on a connection that nginx closed at that moment was never passed on; each sending is counted.
    assert 2000 <= stats["requests"] <= summary["requests"]
    assert [record["id"] for record in read_rows(output)] == list(range(2000))


def test_replies_that_nginx_compresses_although_nobody_asked_are_read(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 50), tmp_path / "out.jsonl"
    extra = "gzip on; gzip_min_length 1; gzip_types *; gzip_proxied any;"
    with MockProcess() as mock, nginx(tmp_path, port_of(mock), extra=extra) as server:
        assert Run(*ask_flags(url(server.port), source, output)).summary()["ok"] == 50


@pytest.mark.parametrize("status", [429, 503])
def test_refusals_as_html_pages_are_waited_out(tmp_path: Path, status: int) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 30), tmp_path / "out.jsonl"
    inside = f"limit_req zone=all burst=5 nodelay; limit_req_status {status};"
    with MockProcess() as mock, nginx(tmp_path, port_of(mock), inside=inside) as server:
        flags = ask_flags(url(server.port), source, output, "--in-flight", "12", "--retries", "20")
        summary = Run(*flags).summary()
        stats = mock.stats()
    assert (summary["ok"], summary["failures"]) == (30, {})
    assert summary["requests"] > stats["requests"] == 30


def test_a_gateway_without_its_server_fails_rows_with_its_own_words(tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", 3), tmp_path / "out.jsonl"
    with nginx(tmp_path, free_port()) as server:
        flags = ask_flags(url(server.port), source, output, "--retries", "1")
        summary = Run(*flags).summary()
    assert summary["failures"] == {"server_error": 3}
    error = read_rows(output)[0]["_error"]
    assert "502 Bad Gateway" in error
    assert "<html" not in error


def test_a_body_that_is_too_large_for_the_gateway_fails_its_row_alone_and_at_once(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "small"}\n{"text": "%s"}\n{"text": "small too"}\n' % ("x" * 300_000))
    with MockProcess() as mock, nginx(tmp_path, port_of(mock), extra="client_max_body_size 10k;") as server:
        summary = Run(*ask_flags(url(server.port), source, output)).summary()
        assert mock.stats()["requests"] == 2
    assert (summary["ok"], summary["failures"], summary["retries"]) == (2, {"request_too_large": 1}, 0)


def test_a_private_authority_is_trusted_where_its_certificates_are_given_and_nowhere_else(
    tmp_path: Path,
) -> None:
    source = write_rows(tmp_path / "in.jsonl", 200)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    with (
        MockProcess(MockSettings(api_key="sk-canary")) as mock,
        stunnel(tmp_path, port_of(mock), certificate) as server,
    ):
        address = f"https://localhost:{server.port}/v1"
        key = {"OPENAI_API_KEY": "sk-canary"}
        good = tmp_path / "good.jsonl"
        trusted = Run(
            *ask_flags(address, source, good, "--ca-file", str(tmp_path / "ca.pem")), environment=key
        ).summary()
        assert (trusted["ok"], mock.stats()["requests"]) == (200, 200)
        untrusted = Run(*ask_flags(address, source, tmp_path / "bad.jsonl"), environment=key).summary()
        assert untrusted["failures"] == {"tls": 200}
        assert mock.stats()["requests"] == 200
    assert "--ca-file" in read_rows(tmp_path / "bad.jsonl")[0]["_error"]
