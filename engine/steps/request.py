"""One plain HTTP request per row: URL, headers and body are templates over the row.

Rules of this file:
1. A row never chooses where a request goes: scheme, host and port are constant text. The exception is a template that
   begins with ``{{``, where each row names its own page (``request_urls.py``).
2. A JSON body is a tree that is filled in, not a text that is pasted together: a value cannot break out of
   its place. A string that is exactly one ``{{ column }}`` becomes the column's value with its JSON type;
   any other string stays a string. Keys are no templates.
3. A header value with a line break is refused, not repaired.
"""

import re
from typing import Any

import msgspec

from engine.config import StepSettings
from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import Answer, Ask, Call, Failure, Reply, RowValues, Target
from engine.formats.rows import encode_values
from engine.providers.base import Provider
from engine.steps.base import Again, Done
from engine.steps.request_urls import UrlTemplate, percent, url_template
from engine.steps.schema import Columns
from engine.steps.template import Template

BODY_BYTES_MAX = 64 * 1024 * 1024

_HEADER_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SENDERS_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"}
)


class Requested:
    """One row's request on its way. See ``steps.base.Asking``."""

    __slots__ = ("_step", "call")

    def __init__(self, step: "Request", call: Call) -> None:
        self._step = step
        self.call = call

    def absorb(self, reply: Reply) -> Done | Again | Failure:
        """Columns of the row, the same request again, or the failure. Never raises."""
        answer = self._step.provider.parse(reply)
        if type(answer) is Failure:
            return Again(self.call, answer) if answer.kind is ErrorKind.BAD_REPLY else answer
        assert isinstance(answer, Answer)
        fields = self._step.columns_out.read(answer.value, answer.finish)
        if isinstance(fields, str):
            failure = Failure(ErrorKind.SCHEMA_MISMATCH, fields, usage=answer.usage, status=reply.status)
            return Again(self.call, failure)
        return Done(fields, answer.usage, answer.model)


class Request:
    """The step of plain HTTP jobs. Raises UsageError for templates that cannot be used."""

    def __init__(self, settings: StepSettings, target: Target, provider: Provider) -> None:
        if settings.url is None:
            raise UsageError("A plain HTTP job needs --url, for example --url 'https://host/items/{{ id }}'.")
        self.provider = provider
        self.columns_out = Columns(into=settings.into, into_given=settings.into_given, schema=target.schema)
        self.answer_columns = self.columns_out.names
        self._url = url_template(settings.url)
        self._headers = [(name, _header_template(name, value)) for name, value in settings.headers]
        given = [value for name, value in settings.headers if name.lower() == "content-type"]
        self._body = None if settings.body is None else _body_template(settings.body, given)
        constant: list[tuple[str, str]] = []
        if isinstance(self._body, JsonBody) and not given:
            constant.append(("content-type", "application/json"))
        # One tuple for all rows wherever no row is in it: the sender prepares it once (see core.model.Call).
        self._ready: tuple[tuple[str, str], ...] | None = None
        if all(template.constant for _, template in self._headers):
            self._ready = (*constant, *((name, template.render({})) for name, template in self._headers))
        self._constant = tuple(constant)
        parts: list[UrlTemplate | Template | JsonBody] = [self._url, *(one for _, one in self._headers)]
        if self._body is not None:
            parts.append(self._body)
        self.columns = frozenset[str]().union(*(part.columns for part in parts))
        self.needed = frozenset[str]().union(*(part.needed for part in parts))

    def start(self, row: RowValues) -> Requested:
        """The row's request. Raises RowError (template_error) when it cannot be made of this row."""
        try:
            url = self._url.render(row)
            headers = self._ready if self._ready is not None else self._render_headers(row)
            content: bytes | None = None
            if isinstance(self._body, JsonBody):
                content = self._body.fill(row)
            elif self._body is not None:
                content = self._body.render(row).encode()
            return Requested(self, self.provider.build(Ask(url=url, headers=headers, content=content)))
        except UnicodeEncodeError:  # half of a surrogate pair, which only an expression can make
            raise _failed("the request holds text that is not Unicode") from None

    def _render_headers(self, row: RowValues) -> tuple[tuple[str, str], ...]:
        rendered = list(self._constant)
        for name, template in self._headers:
            value = template.render(row)
            if _HEADER_CONTROL.search(value):
                raise _failed(f"the value of header {name} has a line break or another control character")
            rendered.append((name, value))
        return tuple(rendered)


class JsonBody:
    """A JSON text with templates in its strings, filled in per row."""

    __slots__ = ("_parts", "_slots", "columns", "needed")

    def __init__(self, tree: Any) -> None:
        pieces: list[bytes | Template] = []
        _flatten(tree, pieces)
        self._parts: list[bytes] = []
        self._slots: list[tuple[int, Template, str | None]] = []
        for piece in pieces:
            if isinstance(piece, Template):
                self._slots.append((len(self._parts), piece, piece.only_column))
                self._parts.append(b"")
            elif self._parts and not (self._slots and self._slots[-1][0] == len(self._parts) - 1):
                self._parts[-1] += piece
            else:
                self._parts.append(piece)
        templates = [template for _, template, _ in self._slots]
        self.columns = frozenset[str]().union(*(template.columns for template in templates))
        self.needed = frozenset[str]().union(*(template.needed for template in templates))

    def fill(self, row: RowValues) -> bytes:
        """The body for one row, compact JSON in UTF-8. Raises RowError. Bounds: BODY_BYTES_MAX."""
        parts = self._parts.copy()
        for place, template, column in self._slots:
            if column is not None and column in row:
                parts[place] = encode_values(row[column])
            else:
                parts[place] = encode_values(template.render(row))
        if len(self._slots) > 1 and sum(map(len, parts)) > BODY_BYTES_MAX:
            raise _failed(f"the body is longer than {BODY_BYTES_MAX:,} bytes")
        return b"".join(parts)


def _header_template(name: str, value: str) -> Template:
    if _HEADER_NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r} cannot be the name of a header.")
    if name.lower() in _SENDERS_HEADERS:
        raise UsageError(f"The header {name} is set by the engine itself. Leave it out.")
    template = Template(value, what=f"the header {name}")
    if template.constant and _HEADER_CONTROL.search(template.render({})):
        raise UsageError(f"The value of header {name} has a line break or another control character.")
    return template


def _body_template(text: str, content_types: list[str]) -> "JsonBody | Template":
    """A JSON tree, or a plain text where a content-type header says that it is none.

    In a form (application/x-www-form-urlencoded) values are percent-encoded; other texts are the caller's.
    """
    kind = content_types[0].lower() if content_types else ""
    if kind and "json" not in kind:
        return Template(text, what="the body", escape=percent if "x-www-form-urlencoded" in kind else None)
    try:
        tree = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UsageError(
            f'The body is not JSON ({error}). Put templates between quotes, like {{"text": "{{{{ text }}}}"}}: a '
            "string that is just one column takes the column's own type. For a body that is not JSON give its "
            "type, like --header 'content-type: text/plain'."
        ) from None
    return JsonBody(tree)


def _flatten(node: Any, pieces: list[bytes | Template]) -> None:
    """Append ``node`` as JSON: constant bytes, and a template for every string that has one."""
    if isinstance(node, dict):
        for number, (key, value) in enumerate(node.items()):
            if "{{" in key or "{%" in key:
                raise UsageError(
                    f"The body has a template in the key {key!r}. Only values may have templates."
                )
            pieces.append((b"," if number else b"{") + encode_values(key) + b":")
            _flatten(value, pieces)
        pieces.append(b"}" if node else b"{}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            pieces.append(b"," if number else b"[")
            _flatten(value, pieces)
        pieces.append(b"]" if node else b"[]")
    elif isinstance(node, str):
        template = Template(node, what="the body")
        pieces.append(encode_values(template.render({})) if template.constant else template)
    else:
        pieces.append(encode_values(node))


def _failed(why: str) -> RowError:
    return RowError(ErrorKind.TEMPLATE_ERROR, why)
