"""What a reply's answer becomes: columns of the output record, checked against a JSON schema if there is one.

Rules of this file:
1. A schema is compiled once per worker. Nothing is ever fetched for it: a ``$ref`` that leaves the schema
   is refused when the job starts.
2. An answer is untrusted text: whatever it holds, ``Columns.read`` returns, it does not raise.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import jsonschema_rs
import msgspec

from engine.core.errors import UsageError
from engine.core.nesting import ANSWER_NESTING_MAX, is_nested_deeper
from engine.formats.record import TAIL_COLUMNS

PROBLEM_CHARS_MAX = 400  # of what the validator says; it quotes the answer
# What providers say when an answer was cut at the token limit: OpenAI and Ollama; Anthropic; OpenAI Responses.
_CUT = frozenset({"length", "max_tokens", "max_output_tokens"})

_decode = msgspec.json.Decoder().decode


def parse_schema(data: bytes, *, source: str) -> dict[str, Any]:
    """A JSON schema from the bytes of a file; ``source`` names it in messages.

    Raises UsageError when it is no JSON object, no valid schema, or refers to anything outside itself.
    """
    try:
        schema = _decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"The schema {source} is not JSON: {error}.") from None
    if not isinstance(schema, dict):
        raise UsageError(f'The schema {source} must be a JSON object, like {{"type": "object", ...}}.')
    _compile(schema, source)
    properties_of(schema, source=source)
    return schema


def properties_of(schema: Mapping[str, Any], *, source: str = "given") -> tuple[str, ...]:
    """The properties the schema declares at its top, in its order; () where it declares none.

    Raises UsageError when one of them is named like a column the engine writes itself.
    """
    declared = schema.get("properties")
    names = tuple(declared) if isinstance(declared, dict) else ()
    if taken := sorted(set(names).intersection(TAIL_COLUMNS)):
        raise UsageError(
            f"The schema {source} has a property named {taken[0]}, which is a column the engine writes itself. "
            "Rename it, or use --into so that the whole object goes into one column."
        )
    return names


class Columns:
    """How an answer's value becomes columns: one column as it is, or the properties of a checked object."""

    __slots__ = ("_into", "_properties", "_validator", "names", "schema_text")

    def __init__(self, *, into: str, into_given: bool, schema: Mapping[str, Any] | None) -> None:
        if into in TAIL_COLUMNS:
            raise UsageError(f"--into {into} names a column the engine writes itself. Choose another name.")
        self._into = into
        self._properties: tuple[str, ...] = ()
        self._validator: jsonschema_rs.Validator | None = None
        self.schema_text = ""
        if schema is not None:
            self._validator = _compile(schema, "given")
            self.schema_text = msgspec.json.encode(schema).decode()
            if not into_given:
                self._properties = properties_of(schema)
        self.names = self._properties or (into,)  # the answer's columns, in order

    @property
    def checked(self) -> bool:
        """Whether there is a schema to fit."""
        return self._validator is not None

    def read(self, value: Any, finish: str = "") -> dict[str, Any] | str:
        """The columns of an answer, or one sentence about why it does not fit the schema.

        With a schema, ``value`` is the JSON text of the answer (a fence of three backticks around it is
        tolerated) or a JSON value already decoded. Only declared properties become columns; one that is
        missing and not required is null. ``finish`` is the provider's word for why the answer ended.
        """
        if self._validator is None:
            return {self._into: value}
        try:
            if isinstance(value, str):
                text = _without_fence(value).encode()
                if is_nested_deeper(text, ANSWER_NESTING_MAX):
                    return "the answer is nested too deeply"
                value = _decode(text)
            problem = _first_problem(self._validator, value)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            problem = f"the answer is not valid JSON ({error})"
        if problem:
            if finish in _CUT:
                problem = f"the answer was cut at the token limit (--max-tokens); {problem}"
            return problem if len(problem) <= PROBLEM_CHARS_MAX else problem[: PROBLEM_CHARS_MAX - 4] + " ..."
        if self._properties and isinstance(value, dict):
            return {name: value.get(name) for name in self._properties}
        return {self._into: value}


def _first_problem(validator: jsonschema_rs.Validator, value: Any) -> str:
    """What does not fit, and where; "" when everything fits."""
    if validator.is_valid(value):
        return ""
    for error in validator.iter_errors(value):
        place = "/".join(map(str, error.instance_path))
        return f"at {place}: {error.message}" if place else str(error.message)
    return "it does not fit"


def _without_fence(text: str) -> str:
    """The inside of a Markdown code fence if the whole text is one, else the text. Linear in its length."""
    text = text.strip()
    if not (text.startswith("```") and text.endswith("```") and len(text) >= 6):
        return text
    line_end = text.find("\n")
    return text[line_end + 1 : -3] if line_end != -1 else text[3:-3]


def _refuse(uri: str) -> NoReturn:
    raise ValueError("references to other documents are not followed")


def _compile(schema: Mapping[str, Any], source: str) -> jsonschema_rs.Validator:
    try:
        return jsonschema_rs.validator_for(dict(schema), retriever=_refuse)
    except (ValueError, RecursionError) as error:
        said = getattr(error, "message", None) or str(error)
        raise UsageError(f"The schema {source} cannot be used: {str(said)[:PROBLEM_CHARS_MAX]}.") from None
