"""Base URLs: checked once, cut into an origin and a path.

Rules of this file:
1. A URL is refused with a sentence that does not repeat it where it may hold a password.
2. The origin is what keys are tied to: lower case, without a default port.
"""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from engine.core.errors import UsageError

_DEFAULT_PORT = {"http": 80, "https": 443}
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+(?:%[a-z0-9]+)?")
_ENDPOINTS = ("/chat/completions", "/completions", "/responses", "/embeddings", "/messages")


class Address(NamedTuple):
    """Where a provider is: ``origin`` is ``scheme://host[:port]``, ``path`` is "" or ``/a/b``."""

    origin: str
    host: str
    path: str


def read_origin(url: str) -> tuple[str, str]:
    """Origin and host of a URL. Raises ValueError for one that has none, or that names a user."""
    parts = urlsplit(url)
    scheme, host, port = parts.scheme.lower(), (parts.hostname or "").lower(), parts.port
    if scheme not in _DEFAULT_PORT:
        raise ValueError("it must begin with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("it must not hold a user name or password; keys come from the environment")
    if _HOST.fullmatch(host) is None:
        raise ValueError(
            "its host is missing or not written in plain ASCII letters, digits, dots and hyphens"
        )
    if port == 0:
        raise ValueError("port 0 is no port")
    shown = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORT[scheme]:
        shown = f"{shown}:{port}"
    return f"{scheme}://{shown}", host


def read_address(base_url: str, *, cut: tuple[str, ...] = ()) -> Address:
    """The address behind a base URL, without its trailing slashes and without the first ending in ``cut``.

    Raises UsageError for anything that is not a plain http or https URL.
    """
    try:
        if any(ord(letter) < 0x21 or letter in "\\\x7f" for letter in base_url):
            raise ValueError("it holds white space, a backslash or a control character")
        origin, host = read_origin(base_url)
        parts = urlsplit(base_url)
        if parts.query or parts.fragment or "?" in base_url:
            raise ValueError("it must not have a query; for Azure give --api-version instead")
        path = parts.path.rstrip("/")
        if _PATH.fullmatch(path) is None or any(part in (".", "..") for part in path.split("/")):
            raise ValueError("its path holds characters or parts that a URL must not hold")
        if path.endswith(_ENDPOINTS):
            raise ValueError(
                "it names an endpoint; give what comes before it, and --endpoint to choose another"
            )
    except ValueError as error:
        shown = "" if "@" in base_url else f" {base_url[:200]!r}"
        raise UsageError(
            f"The base URL{shown} cannot be used: {error}. An example: http://127.0.0.1:8000/v1"
        ) from None
    for ending in cut:
        if path.endswith(ending):
            path = path.removesuffix(ending).rstrip("/")
            break
    return Address(origin, host, path)
