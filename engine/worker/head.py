"""A call as the bytes of an HTTP/1.1 request.

Rules of this file:
1. No I/O. What would break the framing (line ends in a header, white space in the address) raises ValueError: what
   rows put into headers and addresses is never trusted to be clean.
2. Host, Content-Length and Connection are written here and nowhere else (RFC 9112, 3.2 and 6).
"""

import re
from typing import Final

from yarl import URL

from engine.core.model import Call

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_TARGET: Final = re.compile(r"[\x21-\x7e]+")
_BREAKS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110, 5.5: no control characters but the tab
_OURS: Final = frozenset(
    {"content-length", "transfer-encoding", "connection", "expect", "upgrade", "te", "trailer"}
)
_DEFAULTS: Final = {
    # Compressed replies are not asked for: they cost more CPU than they save on the way here. One that comes all the
    # same is understood.
    "accept-encoding": ("Accept-Encoding", "identity"),
    "accept": ("Accept", "*/*"),
    "user-agent": ("User-Agent", "throughput-engine"),
}
_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


class Heads:
    """Writes requests to one origin. ``always``: headers that win over a call's own, keys among them."""

    def __init__(
        self, origin: URL, always: list[tuple[str, str]], *, absolute: bool = False, keyed: bool = True
    ) -> None:
        """``absolute``: write the whole address, as a proxy for plain HTTP needs it (RFC 9112, 3.2.2).

        ``keyed``: whether requests have an Idempotency-Key at all.
        """
        host = origin.host_port_subcomponent
        assert host is not None
        self._host = host
        self._before = f"{origin.scheme}://{host}" if absolute else ""
        self._always = always
        self._keyed = keyed
        self._method = ""
        self._target: URL | None = None
        self._headers: tuple[tuple[str, str], ...] | None = None
        self._head = b""

    def request(self, call: Call, target: URL, key: str) -> bytes:
        """The whole request, with ``key`` as its Idempotency-Key; "" where it is to have none. Raises ValueError.

        ``target``: the call's URL. The same object and the same headers as last time cost nothing anew.
        """
        if target is not self._target or call.headers is not self._headers or call.method is not self._method:
            self._head = self._written(call.method, target, call.headers)
            self._method, self._target, self._headers = call.method, target, call.headers
        body = call.body
        if body is None:
            length = b"" if call.method in _BODILESS else b"\r\nContent-Length: 0"
            return b"%b%b%b\r\n\r\n" % (self._head, key.encode("ascii"), length)
        return b"%b%b\r\nContent-Length: %d\r\n\r\n%b" % (self._head, key.encode("ascii"), len(body), body)

    def _written(self, method: str, target: URL, headers: tuple[tuple[str, str], ...]) -> bytes:
        """Request line and headers, up to the value of the key."""
        path = target.raw_path_qs
        if not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(path):
            raise ValueError("the method or the address has a character that HTTP does not allow there")
        fields: dict[str, list[tuple[str, str]]] = {"host": [("Host", self._host)]}
        own: dict[str, list[tuple[str, str]]] = {}
        for name, value in headers:
            own.setdefault(name.lower(), []).append((name, value))
        fields.update(own)  # a Host of the user's own names a virtual host
        for low, pair in _DEFAULTS.items():
            fields.setdefault(low, [pair])
        for name, value in self._always:
            fields[name.lower()] = [(name, value)]
        fields.pop("idempotency-key", None)
        lines = [f"{method} {self._before}{path} HTTP/1.1"]
        for low, pairs in fields.items():
            for name, value in pairs:
                if low in _OURS:
                    raise ValueError(f"the header {name} is for the engine to write")
                if not _TOKEN.fullmatch(name) or _BREAKS.search(value):
                    raise ValueError(
                        f"the header {name[:60]!r} has a character that HTTP does not allow there"
                    )
                lines.append(f"{name}: {value}")
        if self._keyed:
            lines.append("Idempotency-Key: ")
        return "\r\n".join(lines).encode()
