"""One question to a model per row: a prompt, a conversation from a column, or an openai-batch line.

Rules of this file:
1. Templates and the schema are compiled once; a row pays for its rendering only.
2. An answer that does not fit is asked for again in the same conversation, always from the row's own
   question plus the latest answer, so that a call does not grow with the number of re-asks.
3. ``Done.usage`` is the last reply's; adding up what earlier replies of the row used is the caller's.
"""

from dataclasses import replace
from typing import Any

import msgspec

from engine.config import StepSettings
from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import Answer, Call, Failure, Reply, RowValues, Target
from engine.core.model import Ask as Question
from engine.core.nesting import NESTING_MAX, is_nested_deeper
from engine.providers.base import Provider
from engine.steps.base import Again, Done
from engine.steps.schema import Columns
from engine.steps.template import Template

ANSWER_CHARS_MAX = 8_000  # of a wrong answer, when it is shown to the model again
SCHEMA_CHARS_MAX = 8_000  # a longer schema is not repeated to the model
_REQUEST_ID = ("x-request-id", "request-id", "apim-request-id")  # OpenAI; Anthropic; Azure
# What a batch line may ask that is answered in text: OpenAI; Anthropic; Ollama.
_TEXT_PATHS = ("/chat/completions", "/responses", "/messages", "/api/chat")
_SCHEMA_FIELDS = ("response_format", "text", "output_config", "format")  # where bodies ask for a schema

_decode = msgspec.json.Decoder().decode


class Asked:
    """One row's question on its way. See ``steps.base.Asking``."""

    __slots__ = ("_question", "_step", "call")

    def __init__(self, step: "Ask", question: Question, call: Call) -> None:
        self._step = step
        self._question = question
        self.call = call

    def absorb(self, reply: Reply) -> Done | Again | Failure:
        """Columns of the row, another question, or the failure. Never raises, whatever the reply holds."""
        step = self._step
        answer = step.provider.parse(reply)
        if type(answer) is Failure:
            return Again(self.call, answer) if answer.kind is ErrorKind.BAD_REPLY else answer
        assert isinstance(answer, Answer)
        if step.columns_out.checked and step.applies_schema(self._question):
            fields = step.columns_out.read(answer.value, answer.finish)
            if isinstance(fields, str):
                return self._ask_again(answer, fields, reply.status)
        else:
            fields = {step.into: answer.value}
        if step.batch_output:
            fields = {
                "status_code": reply.status,
                "request_id": next((reply.headers[n] for n in _REQUEST_ID if n in reply.headers), ""),
                "body": reply.body,
            }
        return Done(fields, answer.usage, answer.model)

    def _ask_again(self, answer: Answer, problem: str, status: int) -> Again | Failure:
        failure = Failure(ErrorKind.SCHEMA_MISMATCH, problem, usage=answer.usage, status=status)
        step = self._step
        question = _extended(self._question, str(answer.value), problem, step.columns_out.schema_text)
        if question is None or not step.converses:
            return Again(self.call, failure)
        try:
            self.call = step.provider.build(question)
            return Again(self.call, failure)
        except RowError as error:  # e.g. too large with the answer in it: the first mistake is what happened
            return replace(failure, message=f"{problem}; asking again was not possible: {error.message}")


class Ask:
    """The step of LLM jobs. Raises UsageError for templates and schemas that cannot be used."""

    def __init__(self, settings: StepSettings, target: Target, provider: Provider) -> None:
        led_by = [settings.prompt is not None, settings.messages is not None, settings.batch_lines]
        if led_by.count(True) != 1:
            raise UsageError(
                "There must be exactly one source of the question: a prompt, a column of messages, or an input of "
                "openai-batch lines. Give one of --prompt, --prompt-file, --messages."
            )
        if target.schema is not None and target.endpoint == "embeddings":
            raise UsageError("Embeddings have no text that a schema could describe. Leave --schema out.")
        self.provider = provider
        self.into = settings.into
        self.batch_output = settings.batch_output
        # Completions have no conversation that could be extended: they are asked the same again.
        self.converses = target.endpoint in ("chat", "responses")
        self.columns_out = Columns(into=settings.into, into_given=settings.into_given, schema=target.schema)
        self._messages = settings.messages
        self._prompt = None if settings.prompt is None else Template(settings.prompt, what="the prompt")
        self._system = (
            None if settings.system is None else Template(settings.system, what="the system prompt")
        )
        templates = [template for template in (self._prompt, self._system) if template is not None]
        own = frozenset(() if settings.messages is None else (settings.messages,))
        self.columns = own.union(*(template.columns for template in templates))
        self.needed = own.union(*(template.needed for template in templates))
        self.answer_columns = (
            ("status_code", "request_id", "body") if self.batch_output else self.columns_out.names
        )

    def start(self, row: RowValues) -> Asked:
        """The row's question. Raises RowError: template_error, bad_input, or what the provider refuses."""
        try:
            question = self._question(row)
            return Asked(self, question, self.provider.build(question))
        except UnicodeEncodeError:  # half of a surrogate pair, which only an expression can make
            raise RowError(ErrorKind.TEMPLATE_ERROR, "the question holds text that is not Unicode") from None

    def _question(self, row: RowValues) -> Question:
        if self._prompt is not None:
            system = None if self._system is None else self._system.render(row)
            return Question(prompt=self._prompt.render(row), system=system)
        if self._messages is not None:
            messages = conversation(row, self._messages)
            system = None
            if self._system is not None and not any(m["role"] in ("system", "developer") for m in messages):
                system = self._system.render(row)  # a row's own system message wins over --system
            return Question(messages=messages, system=system)
        return _batch_question(row)

    def applies_schema(self, question: Question) -> bool:
        """Whether --schema is for this question: not for a batch line of another kind or with its own format."""
        body = question.body
        return body is None or (
            question.path.endswith(_TEXT_PATHS) and not any(name in body for name in _SCHEMA_FIELDS)
        )


def conversation(row: RowValues, column: str) -> list[dict[str, Any]]:
    """The message list in a column: a list of objects with role and content, or JSON text of one.

    Raises RowError (bad_input) for anything else. Further keys (name, tool_calls, ...) are passed on.
    """
    if column not in row:
        raise _bad(f"the row has no column {column!r}")
    messages = row[column]
    if isinstance(messages, str):
        if is_nested_deeper(messages.encode("utf-8", "replace"), NESTING_MAX):
            raise _bad(f"column {column!r} holds JSON that is nested too deeply")
        try:
            messages = _decode(messages)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise _bad(f"column {column!r} is neither a list of messages nor JSON text of one") from None
    if not isinstance(messages, list) or not messages:
        raise _bad(f"column {column!r} must hold a list of at least one message")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _bad(f"message {number} in column {column!r} is no object with a role")
        content = message.get("content")
        if not isinstance(content, (str, list)) and not (content is None and message.get("tool_calls")):
            raise _bad(f"message {number} in column {column!r} has no content (a string or a list of parts)")
    return messages


def _batch_question(row: RowValues) -> Question:
    """The question of an openai-batch line; OpenAI's batch guide: custom_id, method POST, url, body."""
    if not isinstance(row.get("custom_id"), str):
        raise _bad("the batch line has no custom_id (a string)")
    if row.get("method", "POST") != "POST":
        raise _bad("the batch line's method must be POST")
    url, body = row.get("url"), row.get("body")
    if not isinstance(url, str) or not url.startswith("/") or url.startswith("//"):
        raise _bad("the batch line's url must be a path like /v1/chat/completions")
    if not isinstance(body, dict):
        raise _bad("the batch line's body must be an object")
    return Question(body=body, path=url)


def _extended(question: Question, answer: str, problem: str, schema: str) -> Question | None:
    """The question with the wrong answer and a request to mend it; None where there is no conversation."""
    repeated = f" that fits this JSON schema:\n{schema}" if len(schema) <= SCHEMA_CHARS_MAX else "."
    turn = [
        {"role": "assistant", "content": answer[:ANSWER_CHARS_MAX]},
        {
            "role": "user",
            "content": f"That answer cannot be used: {problem}\nAnswer again with nothing but JSON{repeated}",
        },
    ]
    if question.prompt is not None:
        messages = [{"role": "user", "content": question.prompt}, *turn]
        return Question(messages=messages, system=question.system)
    if question.messages is not None:
        return replace(question, messages=[*question.messages, *turn])
    for name in ("messages", "input"):  # OpenAI chat and Anthropic; OpenAI Responses
        if question.body is not None and isinstance(own := question.body.get(name), (list, str)):
            begun = own if isinstance(own, list) else [{"role": "user", "content": own}]
            return replace(question, body={**question.body, name: [*begun, *turn]})
    return None


def _bad(message: str) -> RowError:
    return RowError(ErrorKind.BAD_INPUT, message)
