"""Any HTTP endpoint: the request is rendered by its step, the reply is a text or a value out of JSON.

Rules of this file:
1. Where requests go is the job's to say, never a row's: a URL that leads away from the configured origin is refused
   here once more, whatever rendered it. The exception is a template that begins with ``{{``: then each row names its own
   page (``row_urls.py`` says which it may), and no secret goes along.
2. There is no key of its own. Secrets in headers are added where calls are sent.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import Answer, Ask, Call, Charge, Failure, Reply, Target, names_own_origins
from engine.providers.addresses import read_origin
from engine.providers.base import Auth
from engine.providers.errors_in_replies import failure_of
from engine.providers.estimate import Measure, tokens_of
from engine.providers.replies import Unreadable, bad_reply, clean, read_json
from engine.providers.row_urls import URL_CHARS_MAX, read_row_url

# The constant beginning of a URL template: nothing after host and port is looked at.
_FRONT = re.compile(r"https?://[^/?#\s\\{}@]+(?=[/?#]|$)", re.IGNORECASE)
_UNSENDABLE = re.compile(r"[^\x21-\x7e]|\\")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")
_METHOD = re.compile(r"[A-Z][A-Z-]{0,19}")
_CHARSET = re.compile(r"charset=\"?([A-Za-z0-9_-]{1,40})", re.IGNORECASE)


class Http:
    """Plain HTTP. See ``providers.base.Provider``."""

    auth: Auth | None = None
    settles = False
    measure: Measure | None = None
    default_base_url = ""
    dialects: Mapping[str, str] = {}

    def __init__(self, target: Target) -> None:
        self._is_roaming = names_own_origins(target.base_url)
        self._front, self._origin = ("", "") if self._is_roaming else _read_front(target.base_url)
        self._method = target.method.upper()
        if _METHOD.fullmatch(self._method) is None:
            raise UsageError(f"{target.method!r} is no HTTP method. Give one like GET or POST.")
        self._select = read_path(target.select)
        self._checked: tuple[tuple[str, str], ...] = ()

    @property
    def origin(self) -> str:
        """``scheme://host[:port]`` that calls go to; "" where each row names its own."""
        return self._origin

    def build(self, ask: Ask) -> Call:
        """The rendered request. Charged a quarter token per byte of its body. Raises RowError (bad_request)."""
        url, headers, content = ask.url, ask.headers, ask.content
        if self._is_roaming:
            try:
                url = read_row_url(url)
            except ValueError as error:
                raise RowError(ErrorKind.BAD_REQUEST, f"the row's URL cannot be used: {error}") from None
        elif not url:
            raise RowError(ErrorKind.BAD_REQUEST, "provider http needs a rendered URL; give --url")
        elif not url.startswith(self._front) or url[len(self._front) : len(self._front) + 1] not in (
            "/",
            "?",
            "#",
            "",
        ):
            self._check_origin(url)
        if len(url) > URL_CHARS_MAX or _UNSENDABLE.search(url) is not None:
            raise RowError(
                ErrorKind.BAD_REQUEST, "the URL is too long, or holds characters that must be percent-encoded"
            )
        if headers is not self._checked:
            _check_headers(headers)
            self._checked = headers
        tokens_in = 0 if content is None else tokens_of(len(content))
        return Call(self._method, url, headers, content, Charge(tokens_in, 0, tokens_in))

    def parse(self, reply: Reply) -> Answer | Failure:
        """The reply's text, or the value at ``select`` in its JSON. Never raises."""
        if not 200 <= reply.status < 300:
            failure = failure_of(reply)
            if self._is_roaming and failure.kind is ErrorKind.QUOTA_EXHAUSTED:
                # A page that wants money says nothing of an account of ours, which would end the run.
                failure = replace(failure, kind=ErrorKind.BAD_REQUEST)
            return failure
        if not self._select:
            return Answer(_text(reply))
        value = read_json(reply.body)
        if isinstance(value, Unreadable):
            return bad_reply(reply, f"the reply {value.why}")
        for step in self._select:
            found = _inside(value, step)
            if found is _MISSING:
                shown = clean(".".join(self._select), 200)
                return bad_reply(
                    reply, f"the reply has nothing at {shown!r} (--select): {clean(step, 60)!r} is missing"
                )
            value = found
        return Answer(value)

    def _check_origin(self, url: str) -> None:
        """The long way, for a URL that is written differently: upper case, a default port."""
        try:
            origin, _ = read_origin(url)
        except ValueError as error:
            raise RowError(ErrorKind.BAD_REQUEST, f"the row's URL cannot be used: {error}") from None
        if origin != self._origin:
            raise RowError(
                ErrorKind.BAD_REQUEST, f"the row's URL leads away from {self._origin}; nothing was sent"
            )


def _read_front(template: str) -> tuple[str, str]:
    """The constant beginning of a URL template, and its origin. Raises UsageError."""
    front = _FRONT.match(template.strip())
    try:
        if front is None:
            raise ValueError("scheme, host and port must be written out, and nobody named before an @")
        origin, _ = read_origin(front.group())
    except ValueError as error:
        raise UsageError(
            f"The URL of provider http cannot be used: {error}. Example: https://host/items/{{{{ id }}}}"
        ) from None
    return front.group(), origin


def read_path(select: str) -> tuple[str, ...]:
    """The steps of a path like ``choices.0.message.content``. Raises UsageError for an empty step."""
    if not select:
        return ()
    steps = tuple(select.split("."))
    if not all(steps):
        raise UsageError(f"--select {select!r} has an empty part. A path is like choices.0.message.content")
    return steps


_MISSING: Final = object()


def _inside(value: Any, step: str) -> Any:
    if isinstance(value, dict):
        return value.get(step, _MISSING)
    if (
        isinstance(value, list)
        and step.isascii()
        and step.isdigit()
        and len(step) <= 9
        and int(step) < len(value)
    ):
        return value[int(step)]
    return _MISSING


def _text(reply: Reply) -> str:
    """The body as text: in the character set it names, else UTF-8; what does not fit becomes U+FFFD."""
    named = _CHARSET.search(reply.headers.get("content-type", "")[:500])
    try:
        return reply.body.decode(named.group(1) if named is not None else "utf-8", "replace")
    except (LookupError, ValueError):  # no such character set, or a codec that is none for text
        return reply.body.decode("utf-8", "replace")


def _check_headers(headers: tuple[tuple[str, str], ...]) -> None:
    for name, value in headers:
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise RowError(
                ErrorKind.BAD_REQUEST,
                f"header {clean(name, 60)!r} cannot be sent: a line break or another control character is in it",
            )
