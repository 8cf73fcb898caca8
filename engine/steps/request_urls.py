"""Templates of URLs: those that write their host out, and those whose address comes out of each row.

Rules of this file:
1. Where the host is written out, what a row holds is percent-encoded and makes no ``.`` or ``..`` segment: it stays in
   its place within the path or the query.
2. A template that begins with ``{{`` takes its address from the row: the value of that first expression stands as it is,
   but for white space around it and its fragment, which is never sent. What further expressions put behind it is
   percent-encoded as above. The provider checks the whole URL and writes it in its one form.
"""

import re
from typing import Protocol
from urllib.parse import quote

from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import RowValues, names_own_origins
from engine.steps.template import Template, split_after_first

_ORIGIN = re.compile(
    r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?=[/?]|$)", re.IGNORECASE
)
_DOT_SEGMENT = re.compile(r"/(?:\.|%2[eE]){1,2}(?=/|$)")
_NOT_PRINTABLE_ASCII = re.compile(r"[^\x21-\x7e]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=-._~"  # those that stay as they are in the template's own text


class UrlTemplate(Protocol):
    """What makes a row's URL."""

    columns: frozenset[str]
    needed: frozenset[str]

    def render(self, row: RowValues) -> str:
        """The URL for one row. Raises RowError."""


def percent(text: str) -> str:
    """A value that cannot leave its place in a URL or a form."""
    return quote(text, safe="")


def url_template(text: str) -> UrlTemplate:
    """The template of a URL. Raises UsageError unless it begins with ``{{``, or scheme, host and port are constant text.

    Where they are: no user name or password, no other scheme than http and https, no ``.`` or ``..`` segment.
    """
    return _FromRow(text.strip()) if names_own_origins(text) else _WrittenOut(text.strip())


class _WrittenOut:
    """A URL whose scheme, host and port are the job's own text."""

    __slots__ = ("_template", "columns", "needed")

    def __init__(self, text: str) -> None:
        if _ORIGIN.match(text) is None:
            raise UsageError(
                "--url must begin with http:// or https://, a host and, if need be, a port, all written out: rows "
                "may fill in the path and the query only, so that no row can choose where requests (and keys) go. "
                "Example: https://host/items/{{ id }}?lang={{ lang }} (Where each row has a whole address of its own, and "
                "no secret header goes along, begin with that column: {{ url }}.)"
            )
        if _DOT_SEGMENT.search(text.partition("?")[0]):
            raise UsageError("--url must not have '.' or '..' as a part of its path. Write the path out.")
        self._template = Template(text, what="the URL", escape=percent)
        self.columns, self.needed = self._template.columns, self._template.needed

    def render(self, row: RowValues) -> str:
        """See ``UrlTemplate``."""
        url = self._template.render(row)
        if _NOT_PRINTABLE_ASCII.search(url):
            if _CONTROL.search(url):
                raise _failed("the URL has a line break or another control character")
            url = quote(url, safe=_URL_CHARACTERS)
        if "." in url and _DOT_SEGMENT.search(url.partition("?")[0]):
            raise _failed(
                "a value makes '.' or '..' a part of the URL's path, which would lead to another path"
            )
        return url


class _FromRow:
    """A URL whose address is the row's."""

    __slots__ = ("_address", "_rest", "columns", "needed")

    def __init__(self, text: str) -> None:
        address, rest = split_after_first(text)
        self._address = Template(address, what="the URL")
        self._rest = Template(rest, what="the URL", escape=percent) if rest else None
        self.columns, self.needed = self._address.columns, self._address.needed
        if self._rest is not None:
            self.columns |= self._rest.columns
            self.needed |= self._rest.needed

    def render(self, row: RowValues) -> str:
        """See ``UrlTemplate``. What it gives is not checked."""
        address = self._address.render(row)
        if self._rest is None:
            return address
        return address.strip(" \t\r\n").partition("#")[0] + self._rest.render(row)


def _failed(why: str) -> RowError:
    return RowError(ErrorKind.TEMPLATE_ERROR, why)
