"""The output record of one row, as the bytes of one line, and the way back from a row's bytes to values.

Rules of this file:
1. A record is the row's own bytes with the new columns spliced in: input values are never re-written, so
   numbers, key order and escapes stay as they were. Only a column that is replaced costs a re-encoding.
2. A record is one line for every reader: no newline, carriage return, U+2028, U+2029 or U+0085 stays raw.
3. Order: the input's columns, the answer's, ``_status``, ``_error``, then with meta ``_attempts`` and so on.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from engine.core.errors import RowError
from engine.core.model import RowValues
from engine.core.nesting import ANSWER_NESTING_MAX, NESTING_MAX
from engine.formats.rows import decode_json, decode_row, encode_values

__all__ = ["META_COLUMNS", "NESTING_MAX", "TAIL_COLUMNS", "Recorder", "decode_row", "one_line", "plain_text"]

META_COLUMNS = ("_attempts", "_latency_ms", "_tokens_in", "_tokens_out", "_model")
TAIL_COLUMNS = ("_status", "_error", *META_COLUMNS)

_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_OWN_LINE_ENDS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))


class Recorder:
    """Makes records, one per row, in the worker.

    ``batch``: OpenAI batch output lines instead of columns. ``meta``: add META_COLUMNS. ``answers``: the
    answer columns, if they are known: a failed row then has them too, as null, also in place of an old
    answer that was in the input.
    """

    def __init__(
        self, *, batch: bool, meta: bool, error_chars_max: int, answers: tuple[str, ...] = ()
    ) -> None:
        self._batch = batch
        self._meta = meta
        self._error_chars_max = error_chars_max
        self._no_answers: dict[str, Any] = dict.fromkeys(answers)

    def ok(
        self,
        payload: bytes,
        values: RowValues,
        fields: Mapping[str, Any],
        *,
        attempts: int,
        latency_ms: float,
        tokens_in: int,
        tokens_out: int,
        model: str,
    ) -> bytes:
        """The record of a row that has its answer.

        ``payload`` is the row's JSON object and ``values`` what ``decode_row`` made of it. With ``batch``,
        ``fields`` are ``status_code``, ``request_id`` and ``body``, the reply's bytes.
        """
        if self._batch:
            meta = self._meta_of(attempts, latency_ms, tokens_in, tokens_out, model) if self._meta else {}
            response = {
                "status_code": fields["status_code"],
                "request_id": fields["request_id"],
                "body": _body(fields["body"]),
            }
            return self._batch_line(payload, values, payload, {"response": response, "error": None, **meta})
        tail = {**fields, "_status": "ok", "_error": ""}
        if self._meta:
            tail.update(self._meta_of(attempts, latency_ms, tokens_in, tokens_out, model))
        return _joined(payload, values, tail)

    def failed(
        self,
        payload: bytes,
        values: RowValues | None,
        kind: str,
        message: str,
        *,
        attempts: int,
        latency_ms: float,
        tokens_in: int,
        tokens_out: int,
        model: str,
        fields: Mapping[str, Any] | None = None,
    ) -> bytes:
        """The record of a row that failed; without usable input (``values`` None) it has no input columns.

        ``fields``: in place of the empty answer, what there is of it.
        """
        text = plain_text(message, self._error_chars_max)
        meta = self._meta_of(attempts, latency_ms, tokens_in, tokens_out, model) if self._meta else {}
        if self._batch:
            error = {"code": str(kind), "message": text}
            # Rows without input are told apart by the message, which names the line.
            named = payload or text.encode(errors="replace")
            return self._batch_line(payload, values, named, {"response": None, "error": error, **meta})
        answers = self._no_answers if fields is None else fields
        tail = {**answers, "_status": "failed", "_error": f"{kind}: {text}", **meta}
        return one_line(_encoded(tail)) if values is None else _joined(payload, values, tail)

    @staticmethod
    def _meta_of(
        attempts: int, latency_ms: float, tokens_in: int, tokens_out: int, model: str
    ) -> dict[str, Any]:
        """Null stands for what is not known: a latency without a request, tokens below 0, no model."""
        return {
            "_attempts": attempts,
            "_latency_ms": round(latency_ms, 3) if attempts else None,
            "_tokens_in": tokens_in if tokens_in >= 0 else None,
            "_tokens_out": tokens_out if tokens_out >= 0 else None,
            "_model": model or None,
        }

    @staticmethod
    def _batch_line(payload: bytes, values: RowValues | None, named: bytes, rest: Mapping[str, Any]) -> bytes:
        # Derived from the row, so that a resumed run gives the same row the same id.
        line = {
            "id": "batch_req_" + blake2b(named, digest_size=16).hexdigest(),
            "custom_id": None if values is None else values.get("custom_id"),
            **rest,
        }
        return one_line(_encoded(line))


def plain_text(message: str, chars_max: int) -> str:
    """``message`` on one line, without control, format and surrogate characters, cut at ``chars_max``."""
    if not message.isprintable():
        # Cut first: what servers say may be megabytes. Control characters only shrink in the next step.
        head = message[: 4 * chars_max]
        message = " ".join("".join(c if c.isprintable() else " " for c in head).split())
    return message if len(message) <= chars_max else message[: chars_max - 1] + "…"


def one_line(record: bytes) -> bytes:
    """The same JSON without any raw line end. Bounds: ``record`` is valid JSON."""
    # Raw control characters are only allowed between tokens, where a space says the same.
    if b"\n" in record or b"\r" in record:
        record = record.replace(b"\n", b" ").replace(b"\r", b" ")
    if record.isascii():
        return record
    for raw, escaped in _OWN_LINE_ENDS:
        if raw in record:
            record = record.replace(raw, escaped)
    return record


def _joined(payload: bytes, values: RowValues, tail: dict[str, Any]) -> bytes:
    if not values.keys().isdisjoint(tail):
        kept: dict[str, Any] = {name: raw for name, raw in _decode_raw(payload).items() if name not in tail}
        return one_line(_encoded({**kept, **tail}))
    if not values:
        return one_line(_encoded(tail))
    if payload[-1] != 0x7D:  # white space after the closing brace
        payload = payload.rstrip()
    return one_line(b"%b,%b" % (payload[:-1], _encoded(tail)[1:]))


def _encoded(values: Mapping[str, Any]) -> bytes:
    try:
        return encode_values(values)
    except UnicodeEncodeError:
        return encode_values(_without_surrogates(values))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_without_surrogates(name): _without_surrogates(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(item) for item in value]
    return value


def _body(body: bytes) -> msgspec.Raw | str:
    """A reply's bytes as they are if they are JSON; else as text. Providers read only the parts they use."""
    try:
        decode_json(
            body, ANSWER_NESTING_MAX
        )  # deeper, with what stands around it, it could not be read again
    except RowError:
        return body.decode(errors="replace")
    return msgspec.Raw(body.strip())
