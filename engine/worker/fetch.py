"""The one place that sends a request.

Rules of this file:
1. No other file opens a connection to an endpoint. Keys are revealed here, into one header, for calls to the
   configured origin and to no other; a call elsewhere is refused before anything is sent.
2. Redirects are refused, TLS is verified, there is no cookie jar, and no proxy from the environment unless asked.
3. A body is read through a cap that holds before and after decompression. aiohttp's own decompression is off,
   because it has no bound (aiohttp's threat model leaves that to the user).
4. Every stage has a finite time-out. One sweep over the requests in flight enforces them, not a timer each.
   Nothing is ever sent twice by itself: every sending is counted, charged and visible.
5. Every foreign exception becomes a Failure of one ErrorKind here, and nowhere else.
"""

import asyncio
import errno
import re
import ssl
import zlib
from base64 import b64encode
from collections.abc import Mapping
from typing import Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import hdrs
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from yarl import URL

from engine.config import Limits, Timeouts
from engine.core.errors import ErrorKind
from engine.core.model import Call, Failure, Reply
from engine.credentials import AuthHeader, Secret, all_secrets, redact
from engine.worker.connections import Channel, Connections, Proxy, rehearse
from engine.worker.head import Heads

_NEVER: Final = float("inf")


class Flight:
    """One request slot as the sweep sees it: until when it may go on, and in which task."""

    __slots__ = ("deadline", "expired", "stage", "task")

    def __init__(self) -> None:
        self.deadline = _NEVER
        self.stage = ""
        self.expired = False
        self.task: asyncio.Task[None] | None = None


class Fetcher:
    """Sends calls over kept-alive connections to one origin, and turns whatever happens into a value.

    Guarantees: ``send`` returns a Reply or a Failure and never raises but for cancellation from outside; a reply
    is the whole body, decompressed, of at most ``limits.reply_bytes_max`` bytes; a connection on which anything
    went wrong is closed and never used again.
    """

    def __init__(
        self,
        *,
        origin: str,
        auth: tuple[AuthHeader, ...],
        timeouts: Timeouts,
        limits: Limits,
        ca_file: str = "",
        trust_env: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        rehearse(self._loop)
        self._origin = URL(origin).origin()
        self._secrets: tuple[Secret, ...] = all_secrets(auth)
        self._timeouts = timeouts
        self._bytes_max = limits.reply_bytes_max
        self._error_chars_max = limits.error_chars_max
        proxy = proxy_for(self._origin) if trust_env else None
        self._connections = Connections(
            self._origin, context=ssl.create_default_context(cafile=ca_file or None), proxy=proxy
        )
        always = [(header.name, header.reveal()) for header in auth]
        forwarded = (
            proxy is not None and self._origin.scheme == "http"
        )  # else it is a tunnel, and sees nothing
        if forwarded and proxy is not None:
            always += proxy.headers
        self._heads = Heads(self._origin, always, absolute=forwarded)
        self._last_url = ""
        self._last_target = URL()
        self._flights: set[Flight] = set()

    def register(self, flight: Flight) -> None:
        """Put a slot under the sweep's eyes, for as long as the fetcher lives."""
        self._flights.add(flight)

    def sweep(self, now: float) -> None:
        """Cut off every request whose time is up. To be called a few times a second with the loop's time."""
        for flight in self._flights:
            if flight.deadline <= now and flight.task is not None:
                flight.deadline = _NEVER
                flight.expired = True
                flight.task.cancel()
        self._connections.prune()

    def drop_idle(self) -> None:
        """Close the connections that nothing is sent on."""
        self._connections.drop_idle()

    async def close(self) -> None:
        """Close all connections."""
        await self._connections.close()

    async def send(self, call: Call, key: str, flight: Flight, *, anew: bool = False) -> Reply | Failure:
        """Send ``call`` once, with ``key`` as its Idempotency-Key. Never raises for what the network does.

        ``anew``: on a new connection, be there others or not.
        """
        target = self._last_target
        if call.url is not self._last_url:
            refused = self._aim(call.url)
            if refused is not None:
                return refused
            target = self._last_target
        try:
            request = self._heads.request(call, target, key)
        except ValueError as error:
            return Failure(ErrorKind.BAD_REQUEST, f"the request cannot be sent: {error}")
        start = self._loop.time()
        flight.expired = False
        channel = None if anew else self._connections.take()
        try:
            if channel is None:
                flight.stage = "connection"
                flight.deadline = start + self._timeouts.connect_s
                channel = await self._connections.open()
                start = self._loop.time()
            flight.stage = "first byte"
            flight.deadline = start + self._timeouts.first_byte_s
            channel.send(request, has_body=call.method != "HEAD")
            message, content = await channel.reply()
            result = await self._read(message, content, flight, start)
            if content.at_eof():  # what is left unread may have made the connection stop reading
                self._connections.give_back(channel)
                channel = None
            return result
        except asyncio.CancelledError:
            if not flight.expired:
                raise
            flight.expired = False
            task = flight.task
            if task is not None:
                task.uncancel()
            return Failure(ErrorKind.TIMEOUT, self._timeout_message(flight.stage))
        except _NETWORK_ERRORS as error:
            return self._failure(error, channel)
        finally:
            flight.deadline = _NEVER
            if channel is not None:
                channel.close()

    def _aim(self, url: str) -> Failure | None:
        """Make ``url`` the target, or say why it is refused: keys go to the configured origin only."""
        try:
            target = URL(url, encoded=True)
            allowed = target.origin() == self._origin and target.user is None
        except ValueError:
            return Failure(ErrorKind.BAD_REQUEST, "the request's URL is not valid; nothing was sent")
        if not allowed:
            return Failure(
                ErrorKind.BAD_REQUEST,
                f"the request's URL leads away from {self._origin}; nothing was sent",
            )
        self._last_url, self._last_target = url, target
        return None

    async def _read(
        self, message: RawResponseMessage, content: aiohttp.StreamReader, flight: Flight, start: float
    ) -> Reply | Failure:
        status = message.code
        if 300 <= status < 400:
            return Failure(
                ErrorKind.REDIRECT_REFUSED,
                f"the endpoint answered {status} and tried to send the request elsewhere; give its final address",
                status=status,
            )
        headers = message.headers
        if content.is_eof():
            body = content.read_nowait(-1)
        else:
            declared = headers.get(hdrs.CONTENT_LENGTH, "")
            if declared.isdecimal() and int(declared) > self._bytes_max:
                return self._too_large(status)
            body = await self._read_rest(content, flight, start)
        if len(body) > self._bytes_max:
            return self._too_large(status)
        if hdrs.CONTENT_ENCODING in headers:
            encoding = ", ".join(headers.getall(hdrs.CONTENT_ENCODING)).strip().lower()
            if encoding not in ("", "identity"):
                return self._inflate(status, headers, body, encoding)
        return Reply(status, headers, body)

    async def _read_rest(self, content: aiohttp.StreamReader, flight: Flight, start: float) -> bytes:
        """The body up to its end, or up to the first piece past the cap."""
        latest = start + self._timeouts.total_s
        read_s = self._timeouts.read_s
        parts: list[bytes] = []
        size = 0
        flight.stage = "body"
        while not content.at_eof():
            flight.deadline = min(latest, self._loop.time() + read_s)
            part = await content.readany()
            parts.append(part)
            size += len(part)
            if size > self._bytes_max:
                break
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def _inflate(
        self, status: int, headers: Mapping[str, str], body: bytes, encoding: str
    ) -> Reply | Failure:
        """Decompress gzip and deflate within the cap; other encodings were never asked for."""
        if encoding not in ("gzip", "x-gzip", "deflate"):
            return Failure(
                ErrorKind.PROTOCOL_ERROR,
                f"the reply is compressed as {encoding[:20]!r}, which was not asked for",
                status=status,
            )
        # 32 + 15: zlib or gzip by its own header; a few servers send deflate without any header at all.
        for window_bits in (47, -15) if encoding == "deflate" else (47,):
            machine = zlib.decompressobj(window_bits)
            try:
                plain = machine.decompress(body, self._bytes_max + 1)
            except zlib.error:
                continue
            if len(plain) > self._bytes_max or machine.unconsumed_tail:
                return self._too_large(status)
            # Further members are not unpacked: no server sends them, and thousands of small ones cost more than a bomb.
            if not machine.eof or machine.unused_data:
                break
            return Reply(status, headers, plain)
        return Failure(ErrorKind.PROTOCOL_ERROR, "the reply's compressed body is damaged", status=status)

    def _too_large(self, status: int) -> Failure:
        return Failure(
            ErrorKind.BODY_TOO_LARGE,
            f"the reply is larger than {self._bytes_max // (1024 * 1024)} MB and was cut off",
            status=status,
        )

    def _timeout_message(self, stage: str) -> str:
        if stage == "connection":
            return f"no connection within {self._timeouts.connect_s:g} s; nothing was sent"
        if stage == "first byte":
            return f"no reply within {self._timeouts.first_byte_s:g} s; the call may have been billed"
        return (
            f"the reply's body stalled (over {self._timeouts.read_s:g} s without data, or "
            f"{self._timeouts.total_s:g} s in all); the call may have been billed"
        )

    def _failure(self, error: Exception, channel: Channel | None) -> Failure:
        """The one translation of what aiohttp and the operating system raise. ``channel``: what it was sent on."""
        kind, says = _classify(error, reused=channel is not None and channel.served)
        if channel is not None and kind is ErrorKind.BAD_REQUEST:
            kind, says = (
                ErrorKind.PROTOCOL_ERROR,
                "the reply could not be read; the call may have been billed",
            )
        detail = _detail(error)
        text = redact(f"{says}: {detail}" if detail else says, self._secrets)
        return Failure(kind, " ".join(text.split())[: self._error_chars_max])


_CLASSES: Final[tuple[tuple[type[Exception], ErrorKind, str], ...]] = (
    (aiohttp.ClientConnectorDNSError, ErrorKind.DNS, "the host name does not resolve"),
    (
        aiohttp.ClientConnectorCertificateError,
        ErrorKind.TLS,
        "the server's certificate is not trusted (those of a private authority are given with --ca-file)",
    ),
    (
        aiohttp.ClientConnectorSSLError,
        ErrorKind.TLS,
        "the TLS handshake failed (a server that speaks no TLS is addressed with http://)",
    ),
    (aiohttp.ClientSSLError, ErrorKind.TLS, "TLS failed"),
    (ssl.SSLError, ErrorKind.TLS, "TLS failed"),
    (aiohttp.ConnectionTimeoutError, ErrorKind.TIMEOUT, "no connection in time"),
    (aiohttp.ServerTimeoutError, ErrorKind.TIMEOUT, "the server did not answer in time"),
    (aiohttp.ClientConnectorError, ErrorKind.CONNECT_REFUSED, "no connection to the server"),
    (aiohttp.ClientProxyConnectionError, ErrorKind.CONNECT_REFUSED, "no connection to the proxy"),
    (aiohttp.ClientHttpProxyError, ErrorKind.CONNECT_REFUSED, "the proxy refused"),
    (aiohttp.ServerDisconnectedError, ErrorKind.CONNECTION_RESET, "the server closed the connection"),
    (aiohttp.ClientPayloadError, ErrorKind.PROTOCOL_ERROR, "the reply's body is not whole"),
    (aiohttp.ClientResponseError, ErrorKind.PROTOCOL_ERROR, "the reply broke the rules of HTTP"),
    (aiohttp.InvalidURL, ErrorKind.BAD_REQUEST, "the request's URL is not valid"),
    (
        HttpProcessingError,
        ErrorKind.PROTOCOL_ERROR,
        "the reply broke the rules of HTTP",
    ),
    (ConnectionError, ErrorKind.CONNECTION_RESET, "the connection broke"),
    (TimeoutError, ErrorKind.TIMEOUT, "the server did not answer in time"),
    (OSError, ErrorKind.CONNECTION_RESET, "the connection broke"),
    (aiohttp.ClientError, ErrorKind.PROTOCOL_ERROR, "the exchange failed"),
    (ValueError, ErrorKind.BAD_REQUEST, "the request cannot be sent"),
)
# No free descriptor or port is this machine's trouble and passes: wait like for a server that is not there yet.
_LOCAL_SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS})
# Of OpenSSL's X509_V_ERR_ codes (x509_vfy.h), those that no other authority would mend.
_CERTIFICATE_SAYS: Final = {
    9: "the server's certificate is not valid yet; if it should be, this machine's clock is wrong",
    10: "the server's certificate has expired; its operator has to renew it",
    62: "the server's certificate is for another name; give --base-url the name that it is for",
    64: "the server's certificate is for another name; give --base-url the name that it is for",
}
_NETWORK_ERRORS: Final = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)


def _detail(error: Exception) -> str:
    """What an exception adds to its kind, in fewer words than aiohttp's."""
    if not isinstance(error, aiohttp.ClientConnectorError):
        return _plain(str(error))
    cause = error.os_error
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = cause.verify_message.rstrip(".")
    else:  # asyncio has no words for a connection that ends within the handshake
        why = _plain(cause.strerror or str(cause)) or "it closed the connection"
    return f"{error.host}:{error.port} ({why})"


def _plain(text: str) -> str:
    """Without the line of Python's own source that its TLS errors end with."""
    return re.sub(r" \(_ssl\.c:\d+\)", "", text)


def _classify(error: Exception, *, reused: bool) -> tuple[ErrorKind, str]:
    """The kind and a plain name of a foreign exception."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        code = getattr(error.certificate_error, "verify_code", 0)
        if code in _CERTIFICATE_SAYS:
            return ErrorKind.TLS, _CERTIFICATE_SAYS[code]
    if isinstance(error, OSError) and "ALERT_CERTIFICATE_REQUIRED" in str(error):
        # TLS 1.3 ends the handshake before the server has seen that there is none (RFC 8446, 4.4.2.4).
        return (
            ErrorKind.TLS,
            "the server asks for a certificate of the client, and the engine has none to show",
        )
    if (
        isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)
        and reused
    ):
        return ErrorKind.STALE_KEEPALIVE, "a kept-alive connection was closed by the server"
    if isinstance(error, OSError) and error.errno in _LOCAL_SHORTAGE:
        return ErrorKind.CONNECT_REFUSED, "this machine has no free descriptor or port"
    for cls, kind, says in _CLASSES:
        if isinstance(error, cls):
            return kind, says
    return ErrorKind.PROTOCOL_ERROR, "the exchange failed"


def proxy_for(origin: URL) -> Proxy | None:
    """The proxy that the environment names for an origin (``HTTPS_PROXY`` and so on), if it does not exempt it."""
    if proxy_bypass(origin.host or ""):
        return None
    found = getproxies().get(origin.scheme)
    if not found:
        return None
    url = URL(found)
    if url.user is None:
        return Proxy(url, ())
    token = b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
    return Proxy(url.with_user(None), (("Proxy-Authorization", f"Basic {token}"),))
