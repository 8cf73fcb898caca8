"""URLs that rows bring along whole: checked, and written the one way in which they are sent. Pure functions.

Rules of this file:
1. One reading. What browsers, resolvers and servers take in different ways (a backslash, a user name, a percent sign in the
   host, an IPv6 zone, a tab) is refused and not repaired; what is left means the same to all of them.
2. An address in figures is written out, so that the one that is looked at is the one that is used.
3. Addresses of the link, and those at which clouds hand out a machine's credentials, are nobody's page.
"""

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import quote

from yarl import URL

URL_CHARS_MAX: Final = 64 * 1024
HOST_CHARS_MAX: Final = 253  # RFC 1035, 2.3.4; a label 63
_WHOLE: Final = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE)
_BROKEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HOST_AND_PORT: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{0,5}))?")
_NAME: Final = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
_FIGURE: Final = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_LITERAL: Final = "%/:?@!$&'()*+,;=-._~[]|"  # of a path or query as it stands; "%41" stays "%41"
_DEFAULT_PORT: Final = {"http": 80, "https": 443}
_CREDENTIALS: Final = (  # what the clouds' documentations name besides 169.254.169.254
    IPv6Network("fd00:ec2::/32"),  # AWS: instance metadata, pod identities
    IPv6Network("fd20:ce::254/128"),  # Google
)
_CREDENTIALS_4: Final = frozenset(
    map(IPv4Address, ("100.100.100.200", "192.0.0.192", "168.63.129.16"))
)  # Alibaba, Oracle, Azure
# IPv6 addresses that hold an IPv4 one, and how many bits stand behind it.
_HOLDS_IPV4: Final = (
    (IPv6Network("::/96"), 0),  # compatible
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # translated (RFC 2765)
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("64:ff9b:1::/48"), 0),
    (IPv6Network("2002::/16"), 80),  # 6to4
)


def is_off_limits(address: str) -> bool:
    """Whether an address in figures (with a zone or without) is one that no row's request goes to.

    True for link-local addresses, for metadata services of clouds, for both within IPv6 addresses, and for what is no
    address in figures.
    """
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(found, IPv6Address):
        if found.is_link_local or any(found in network for network in _CREDENTIALS):
            return True
        return any(
            found in network and _is_off_limits_4(IPv4Address(int(found) >> bits & 0xFFFFFFFF))
            for network, bits in _HOLDS_IPV4
        )
    return _is_off_limits_4(found)


def _is_off_limits_4(address: IPv4Address) -> bool:
    return address.is_link_local or address in _CREDENTIALS_4


def read_row_url(text: str) -> str:
    """An absolute http or https URL in the one way it is sent: ASCII, lower-case host, no default port, no fragment.

    Raises ValueError with half a sentence that quotes nothing of it. Bounds: URL_CHARS_MAX.
    """
    text = text.strip(" \t\r\n")
    if not text:
        raise ValueError("it is empty")
    if len(text) > URL_CHARS_MAX:
        raise ValueError(f"it is longer than {URL_CHARS_MAX:,} characters")
    if _BROKEN.search(text) or "\\" in text:
        raise ValueError("it holds a line break, a backslash or another character that no URL has")
    found = _WHOLE.fullmatch(text)
    if found is None:
        raise ValueError("it must begin with http:// or https://")
    scheme, authority, path, query = found.groups()
    scheme = scheme.lower()
    if "@" in authority:
        raise ValueError("it must not hold a user name or password")
    parts = _HOST_AND_PORT.fullmatch(authority)
    if parts is None:
        raise ValueError("its host and port are not written like host:80")
    host, digits = _host(parts[1]), parts[2]
    if digits and not 0 < int(digits) < 65536:
        raise ValueError("its port is not between 1 and 65535")
    port = f":{int(digits)}" if digits and int(digits) != _DEFAULT_PORT[scheme] else ""
    url = f"{scheme}://{host}{port}{_without_dots(quote(path, safe=_LITERAL))}{quote(query or '', safe=_LITERAL)}"
    if len(url) > URL_CHARS_MAX:
        raise ValueError(f"it is longer than {URL_CHARS_MAX:,} characters once it is percent-encoded")
    return url


def _host(written: str) -> str:
    """The host as it is sent: a name in ASCII, an address in figures in its usual form."""
    if written.startswith("["):
        try:
            host = str(IPv6Address(written[1:-1]))
        except ValueError:
            raise ValueError("its IPv6 address is none, or names a zone of this machine") from None
        if "%" in host:
            raise ValueError("its IPv6 address names a zone of this machine")
        _refuse_off_limits(host)
        return f"[{host}]"
    name = written if written.isascii() else _ascii_name(written)
    name = name.lower()
    if len(name) > HOST_CHARS_MAX or _NAME.fullmatch(name) is None:
        raise ValueError("its host is missing, or is no name that a host can have")
    if _FIGURE.fullmatch(name.rstrip(".").rpartition(".")[2]):  # as in the URL standard: then it is no name
        name = str(_ipv4(name.rstrip(".")))
        _refuse_off_limits(name)
    return name


def _refuse_off_limits(address: str) -> None:
    if is_off_limits(address):
        raise ValueError(
            "it names a link-local address or a cloud's metadata service, where no row's request goes"
        )


def _ascii_name(written: str) -> str:
    """A name in other letters as IDNA writes it."""
    try:
        return URL.build(scheme="http", host=written).raw_host or ""
    except (ValueError, UnicodeError):
        raise ValueError("its host is no name that a host can have") from None


def _ipv4(written: str) -> IPv4Address:
    """An IPv4 address in any form that resolvers take (inet_aton): one to four parts, decimal, octal or hexadecimal."""
    parts = written.split(".")
    if len(parts) > 4 or not all(map(_FIGURE.fullmatch, parts)):
        raise ValueError("its host ends in figures, and is no IPv4 address")
    try:
        figures = [_figure(part) for part in parts]
    except ValueError:
        raise ValueError("its host has a figure that is none") from None
    *front, last = figures
    if any(figure > 255 for figure in front) or last >= 256 ** (5 - len(figures)):
        raise ValueError("its IPv4 address is out of range")
    number = last
    for place, figure in enumerate(front):
        number |= figure << 8 * (3 - place)
    return IPv4Address(number)


def _figure(part: str) -> int:
    if part[:2] in ("0x", "0X"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if part.startswith("0") else 10)


def _without_dots(path: str) -> str:
    """A path without ``.`` and ``..``, encoded or not (RFC 3986, 5.2.4); at least ``/``."""
    if "/." not in path and "/%2" not in path:
        return path or "/"
    kept: list[str] = []
    segments = path.split("/")[1:]
    for place, segment in enumerate(segments):
        plain = segment.lower().replace("%2e", ".")
        is_last = place == len(segments) - 1
        if plain == "..":
            if kept:
                kept.pop()
        elif plain != ".":
            kept.append(segment)
            continue
        if is_last:
            kept.append("")
    return "/" + "/".join(kept)
