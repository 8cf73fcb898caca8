"""Secrets: where they come from, and how they stay out of everything but one header.

Rules of this file:
1. A secret is a ``Secret`` from the moment it is read. Its ``repr``, ``str`` and format are masked.
2. ``reveal()`` is called in ``worker/fetch.py`` (to send it) and in ``config.py`` (to hand it to a worker's
   standard input), nowhere else; a test walks the sources for it.
3. The only module that reads keys from the environment.
"""

import hashlib
import json
import os
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, NoReturn
from urllib.parse import quote

MASK = "[secret]"
_MADE: Final[set["Secret"]] = set()  # all secrets of this process, for what is written when all else fails
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Secret:
    """A value that must not be seen. Equal to another ``Secret`` of the same value; never to a string."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        _MADE.add(self)

    def reveal(self) -> str:
        """The value itself, for the one place that sends it."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled or copied into a file")


@dataclass(frozen=True, slots=True)
class AuthHeader:
    """A header that carries secrets between plain text. Added to a call where it is sent.

    The secrets stay apart from the text around them (``Bearer ``), so that each is recognised, and masked,
    wherever it turns up alone.
    """

    name: str
    parts: tuple[str | Secret, ...]

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secrets in it."""
        return tuple(part for part in self.parts if isinstance(part, Secret))

    @property
    def masked(self) -> str:
        """Its value as it may be shown."""
        return "".join(map(str, self.parts))

    def reveal(self) -> str:
        """Its value, for the one place that sends it."""
        return "".join(part.reveal() if isinstance(part, Secret) else part for part in self.parts)


Auth = tuple[AuthHeader, ...]  # what calls to one endpoint carry


def all_secrets(auth: Iterable[AuthHeader]) -> tuple[Secret, ...]:
    """Every secret of some headers."""
    return tuple(secret for header in auth for secret in header.secrets)


def secret_from_environment(name: str, environment: Mapping[str, str] | None = None) -> Secret | None:
    """The key in environment variable ``name``, or None when it is unset or blank. White space is cut off."""
    value = (os.environ if environment is None else environment).get(name, "").strip()
    return Secret(value) if value else None


def names_secret(value: str) -> bool:
    """Whether a header's value names an environment variable as ``${NAME}``."""
    return _VARIABLE.search(value) is not None


def secret_header(name: str, value: str, environment: Mapping[str, str] | None = None) -> AuthHeader:
    """A header whose value has a secret for each ``${NAME}``.

    Raises KeyError with the variable's name when one is unset.
    """
    source = os.environ if environment is None else environment
    # Splitting at a pattern with one group gives text, name, text, name, ..., text.
    pieces = _VARIABLE.split(value)
    parts = [Secret(source[piece]) if at % 2 else piece for at, piece in enumerate(pieces)]
    return AuthHeader(name, tuple(part for part in parts if part))


def digest_of(salt: str, secrets: Iterable[Secret], *context: str) -> str:
    """A name for secrets and what they are used for, from which nobody who does not know them can tell them."""
    parts = [*sorted(secret._value for secret in secrets), *context]
    content = b"".join(len(part.encode()).to_bytes(8, "big") + part.encode() for part in parts)
    return hashlib.blake2b(content, key=salt.encode(), digest_size=12).hexdigest()


def redact(text: str, secrets: Iterable[Secret]) -> str:
    """``text`` with every secret's value masked: for messages that quote what a server said."""
    for secret in secrets:
        for shape in _shapes(secret):
            if shape in text:
                text = text.replace(shape, MASK)
    return text


def redact_all(text: str) -> str:
    """``text`` without any secret this process has ever read: for the account of a fault of our own."""
    return redact(text, _MADE)


@cache
def _shapes(secret: Secret) -> tuple[str, ...]:
    """A secret as it may stand in a text: as it is, in a URL, in JSON or in Python's quotes, in base64."""
    value = secret._value
    if len(value) < 4:  # it would be found in every other word
        return ()
    coded = b64encode(value.encode("utf-8", "surrogateescape")).decode().rstrip("=")
    quoted = (quote(value, safe="", errors="replace"), quote(value, errors="replace"))
    found = (value, *quoted, json.dumps(value)[1:-1], repr(value)[1:-1], coded)
    return tuple(sorted(set(found), key=len, reverse=True))
