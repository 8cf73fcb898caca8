"""TLS is verified, always: who cannot prove its name gets no byte of a request, and no key."""

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
import trustme

from engine.config import Limits, Timeouts
from engine.core.errors import POLICY, ErrorKind, Retry
from engine.core.model import Call, Failure, Reply
from engine.credentials import AuthHeader, Secret
from engine.worker.fetch import Fetcher, Flight

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class SecureServer:
    """Answers every request; ``seen`` is what arrived, decrypted."""

    def __init__(self, certificate: trustme.LeafCert | None) -> None:
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(self._context)
        self.seen = b""

    async def __aenter__(self) -> "SecureServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                self.seen += data
                writer.write(REPLY)
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def ask(
    certificate: trustme.LeafCert | None, *, ca_file: str = "", host: str = "localhost"
) -> tuple[Reply | Failure, bytes]:
    """One call with a key in it to a server with this certificate (None: no TLS at all)."""

    async def run() -> tuple[Reply | Failure, bytes]:
        async with SecureServer(certificate) as server:
            origin = f"https://{host}:{server.port}"
            fetcher = Fetcher(
                origin=origin,
                auth=(AuthHeader("Authorization", ("Bearer ", Secret("sk-canary"))),),
                timeouts=Timeouts(connect_s=5, first_byte_s=5, read_s=5, total_s=5),
                limits=Limits(),
                ca_file=ca_file,
            )
            flight = Flight()
            flight.task = asyncio.current_task()  # type: ignore[assignment]
            fetcher.register(flight)
            result = await fetcher.send(
                Call("POST", f"{origin}/v1/x", (), b'{"secret": "row"}'), "key", flight
            )
            await fetcher.close()
            await asyncio.sleep(0.02)
            return result, server.seen

    return asyncio.run(run())


def test_a_certificate_of_the_given_authority_is_trusted(authority: trustme.CA, ca_file: str) -> None:
    result, seen = ask(authority.issue_cert("localhost"), ca_file=ca_file)
    assert isinstance(result, Reply)
    assert b"Bearer sk-canary" in seen


def assert_refused(result: Reply | Failure, seen: bytes) -> None:
    assert isinstance(result, Failure)
    assert result.kind is ErrorKind.TLS, result
    assert b"canary" not in seen
    assert b"secret" not in seen
    assert "canary" not in result.message


def test_an_unknown_authority_is_refused_and_no_key_is_sent(authority: trustme.CA) -> None:
    result, seen = ask(authority.issue_cert("localhost"))
    assert_refused(result, seen)
    assert isinstance(result, Failure) and "--ca-file" in result.message


def test_another_authority_than_the_given_one_is_refused(ca_file: str) -> None:
    assert_refused(*ask(trustme.CA().issue_cert("localhost"), ca_file=ca_file))


def test_a_certificate_for_another_name_is_refused(authority: trustme.CA, ca_file: str) -> None:
    assert_refused(*ask(authority.issue_cert("other.example"), ca_file=ca_file))


def test_a_certificate_that_has_run_out_is_refused(authority: trustme.CA, ca_file: str) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    old = authority.issue_cert("localhost", not_before=past, not_after=past + datetime.timedelta(days=1))
    assert_refused(*ask(old, ca_file=ca_file))


def test_a_server_that_speaks_no_tls_is_refused(ca_file: str) -> None:
    assert_refused(*ask(None, ca_file=ca_file))


def test_certificates_named_by_the_systems_variable_are_trusted(
    authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    result, _ = ask(authority.issue_cert("localhost"))
    assert isinstance(result, Reply)


def test_a_certificate_that_is_not_trusted_is_not_tried_for_ever() -> None:
    assert POLICY[ErrorKind.TLS].retry is Retry.NEVER
