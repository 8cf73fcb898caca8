"""Any HTTP endpoint: the request comes rendered, the answer is the reply's text or a path into its JSON.

Rules of this file:
1. A rendered request never leads to another origin than the template's own, and never carries a line end.
"""

from typing import Any
from urllib.parse import urlsplit

import msgspec

from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import Answer, Ask, Call, Charge, Failure, Reply, Target
from engine.providers.base import Auth
from engine.providers.openai import origin_of
from engine.providers.refusals import failure_of

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_decode = msgspec.json.Decoder().decode


class Http:
    """See ``providers.base.Provider``. ``target.base_url`` is the URL template; its host is fixed text."""

    auth: Auth | None = None
    settles = False
    default_base_url = ""

    def __init__(self, target: Target) -> None:
        if target.method not in _METHODS:
            raise UsageError(f"The method {target.method!r} is not one of {', '.join(_METHODS)}.")
        if target.schema is not None:
            raise UsageError(
                "--schema is for models; with --provider http choose a part of the reply with --select."
            )
        self.target = target
        scheme, colon, rest = target.base_url.partition("://")
        host = rest.replace("?", "/").replace("#", "/").partition("/")[0]
        self.origin = origin_of(f"{scheme}{colon}{host}")
        self._path = [part for part in target.select.split(".") if part] if target.select else []

    def build(self, ask: Ask) -> Call:
        """The rendered request. Raises RowError (bad_request) where it would go somewhere else."""
        try:
            parts = urlsplit(ask.url)
            same = origin_of(f"{parts.scheme}://{parts.netloc}") == self.origin and parts.username is None
        except (ValueError, UsageError):
            same = False
        if not same or any(ord(character) <= 32 for character in ask.url):
            raise RowError(
                ErrorKind.BAD_REQUEST, "the rendered URL leads away from the configured host; not sent"
            )
        for _, value in ask.headers:
            if "\r" in value or "\n" in value or "\0" in value:
                raise RowError(ErrorKind.BAD_REQUEST, "a rendered header holds a line end; not sent")
        tokens = len(ask.content or b"") // 4
        return Call(self.target.method, ask.url, ask.headers, ask.content, Charge(tokens, 0, tokens))

    def parse(self, reply: Reply) -> Answer | Failure:
        """See ``Provider.parse``."""
        if reply.status >= 300:
            return failure_of(reply)
        if not self._path:
            return Answer(reply.body.decode("utf-8", "replace"))
        try:
            value: Any = _decode(reply.body)
            for part in self._path:
                value = value[int(part)] if isinstance(value, list) else value[part]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return Failure(ErrorKind.BAD_REPLY, "the reply is not JSON", status=reply.status)
        except (KeyError, IndexError, TypeError, ValueError):
            said = f"the reply has nothing at {self.target.select!r}"
            return Failure(ErrorKind.BAD_REPLY, said, status=reply.status)
        return Answer(value)
