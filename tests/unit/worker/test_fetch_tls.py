"""TLS is verified, always: who cannot prove its name gets no byte of a request, and no key."""

import asyncio
import datetime
import ssl
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
import trustme
import uvloop

from engine.config import Limits, Timeouts
from engine.core.errors import POLICY, ErrorKind, Retry
from engine.core.model import Call, Failure, Reply
from engine.credentials import AuthHeader, Secret
from engine.worker.fetch import Fetcher, Flight

pytestmark = pytest.mark.usefixtures("each_wire")

REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class SecureServer:
    """Answers every request; ``seen`` is what arrived, decrypted. ``greeting`` is all that one without TLS says."""

    def __init__(self, certificate: trustme.LeafCert | None, greeting: bytes | None = None) -> None:
        self._greeting = greeting
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
                if self._greeting is not None:
                    writer.write(self._greeting)
                    return
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


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"], autouse=True)
def loop_runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run on uvloop, whose TLS is its own; ``engine doctor`` runs on the standard loop."""
    monkeypatch.setitem(globals(), "run_on_loop", request.param)


run_on_loop: Callable[..., tuple[Reply | Failure, bytes]] = asyncio.run


def ask(
    certificate: trustme.LeafCert | None,
    *,
    ca_file: str = "",
    host: str = "localhost",
    greeting: bytes | None = None,
) -> tuple[Reply | Failure, bytes]:
    """One call with a key in it to a server with this certificate (None: no TLS at all)."""

    async def run() -> tuple[Reply | Failure, bytes]:
        async with SecureServer(certificate, greeting) as server:
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

    return run_on_loop(run())


def test_a_certificate_of_the_given_authority_is_trusted(authority: trustme.CA, ca_file: str) -> None:
    result, seen = ask(authority.issue_cert("localhost"), ca_file=ca_file)
    assert isinstance(result, Reply)
    assert b"Bearer sk-canary" in seen


def test_a_certificate_for_an_address_without_a_name_is_trusted(authority: trustme.CA, ca_file: str) -> None:
    result, _ = ask(authority.issue_cert("127.0.0.1"), ca_file=ca_file, host="127.0.0.1")
    assert isinstance(result, Reply)


def assert_refused(result: Reply | Failure, seen: bytes, *says: str, kind: ErrorKind = ErrorKind.TLS) -> None:
    """Nothing of the request arrived, and the message holds each of ``says``."""
    assert isinstance(result, Failure)
    assert result.kind is kind, result
    assert b"canary" not in seen
    assert b"secret" not in seen
    assert "canary" not in result.message
    assert all(word in result.message for word in says), result.message
    assert "_ssl.c" not in result.message
    assert "()" not in result.message


def test_an_unknown_authority_is_refused_and_no_key_is_sent(authority: trustme.CA) -> None:
    assert_refused(*ask(authority.issue_cert("localhost")), "not trusted", "--ca-file", "localhost:")


def test_another_authority_than_the_given_one_is_refused(ca_file: str) -> None:
    assert_refused(*ask(trustme.CA().issue_cert("localhost"), ca_file=ca_file), "not trusted", "--ca-file")


@pytest.mark.parametrize(("host", "name"), [("localhost", "other.example"), ("127.0.0.1", "localhost")])
def test_a_certificate_for_another_name_is_refused_and_the_address_is_to_be_mended(
    authority: trustme.CA, ca_file: str, host: str, name: str
) -> None:
    result, seen = ask(authority.issue_cert(name), ca_file=ca_file, host=host)
    assert_refused(result, seen, "another name", "--base-url", f"'{host}'")
    assert isinstance(result, Failure) and "--ca-file" not in result.message


@pytest.mark.parametrize(
    ("start_in_days", "says"), [(-10, "has expired; its operator has to renew it"), (10, "machine's clock")]
)
def test_a_certificate_out_of_its_time_is_refused_and_another_authority_is_no_advice(
    authority: trustme.CA, ca_file: str, start_in_days: int, says: str
) -> None:
    start = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=start_in_days)
    end = start + datetime.timedelta(days=1)
    result, seen = ask(authority.issue_cert("localhost", not_before=start, not_after=end), ca_file=ca_file)
    assert_refused(result, seen, says)
    assert isinstance(result, Failure) and "--ca-file" not in result.message


@pytest.mark.parametrize(
    "greeting", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail.example ESMTP\r\n"]
)
def test_a_server_that_speaks_no_tls_is_refused_and_http_is_the_advice(
    ca_file: str, greeting: bytes | None
) -> None:
    assert_refused(*ask(None, ca_file=ca_file, greeting=greeting), "TLS handshake failed", "http://")


def test_a_server_that_goes_away_during_the_handshake_may_come_back(ca_file: str) -> None:
    result, seen = ask(None, ca_file=ca_file, greeting=b"")
    assert_refused(result, seen, "no connection to the server: localhost:", kind=ErrorKind.CONNECT_REFUSED)
    assert POLICY[ErrorKind.CONNECT_REFUSED].retry is Retry.SLOW


def test_a_handshake_that_hangs_ends_at_the_connect_time_out_however_long_the_others_are() -> None:
    async def run() -> tuple[Reply | Failure, bytes]:
        async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal seen
            try:
                while data := await reader.read(65_536):
                    seen += data
            finally:
                writer.close()

        async def sweeps() -> None:
            while True:
                await asyncio.sleep(0.01)
                fetcher.sweep(asyncio.get_running_loop().time())

        seen = b""
        server = await asyncio.start_server(silence, "127.0.0.1", 0)
        origin = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        auth = (AuthHeader("Authorization", ("Bearer ", Secret("sk-canary"))),)
        timeouts = Timeouts(connect_s=0.1, first_byte_s=60, read_s=60, total_s=60)
        fetcher = Fetcher(origin=origin, auth=auth, timeouts=timeouts, limits=Limits())
        sweeper = asyncio.ensure_future(sweeps())
        flight = Flight()
        flight.task = asyncio.current_task()  # type: ignore[assignment]
        fetcher.register(flight)
        try:
            return await fetcher.send(Call("POST", f"{origin}/v1/x", (), b"secret"), "key", flight), seen
        finally:
            sweeper.cancel()
            await fetcher.close()
            server.close()

    started = monotonic()
    assert_refused(
        *run_on_loop(run()), "no connection within 0.1 s", "nothing was sent", kind=ErrorKind.TIMEOUT
    )
    assert 0.1 <= monotonic() - started < 3.0


def test_certificates_named_by_the_systems_variable_are_trusted(
    authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    result, _ = ask(authority.issue_cert("localhost"))
    assert isinstance(result, Reply)


def test_where_an_authority_is_given_no_other_is_trusted(
    authority: trustme.CA, ca_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    assert_refused(*ask(authority.issue_cert("localhost"), ca_file=str(other)), "not trusted")


def test_a_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    assert POLICY[ErrorKind.TLS].retry is Retry.NEVER
