"""What aiohttp, a parser and the operating system raise, as kinds of failure and plain names.

Rules of this file:
1. The one translation of foreign exceptions: whatever a wire meets is looked up here.
2. The first line of the table that fits counts, so what is special stands before what is general.
"""

import errno
import re
import ssl
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from engine.core.errors import ErrorKind


class BrokenReply(Exception):
    """A reply that breaks the rules of HTTP."""


class RefusedAddress(ValueError):
    """A name that a row gave stands for an address that is off limits."""


_CLASSES: Final[tuple[tuple[type[Exception], ErrorKind, str], ...]] = (
    (RefusedAddress, ErrorKind.BAD_REQUEST, "no row's request goes there, nothing was sent"),
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
    (HttpProcessingError, ErrorKind.PROTOCOL_ERROR, "the reply broke the rules of HTTP"),
    (BrokenReply, ErrorKind.PROTOCOL_ERROR, "the reply broke the rules of HTTP"),
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
SHORTAGE: Final = "this machine has no free descriptor or port"
NETWORK_ERRORS: Final = (aiohttp.ClientError, HttpProcessingError, BrokenReply, OSError, ValueError)


def detail(error: Exception) -> str:
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


def classify(error: Exception, *, reused: bool) -> tuple[ErrorKind, str]:
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
        return ErrorKind.CONNECT_REFUSED, SHORTAGE
    for cls, kind, says in _CLASSES:
        if isinstance(error, cls):
            return kind, says
    return ErrorKind.PROTOCOL_ERROR, "the exchange failed"
