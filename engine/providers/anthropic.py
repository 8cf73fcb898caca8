"""Anthropic's messages API.

Rules of this file:
1. ``max_tokens`` is required by the API: MAX_TOKENS_DEFAULT where the job gives none.
2. System prompts are a field of the body, also those that a row's own messages begin with.
3. Output is counted as it is produced: the limit on the answer is reserved and settled after the reply.

Sources: Anthropic's API reference, its documentation of rate limits, errors and structured outputs.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from engine.core.model import Answer, Charge, Failure, Reply, Target, Usage
from engine.providers.base import Auth
from engine.providers.errors_in_replies import failure_in_ok, failure_of
from engine.providers.estimate import charge_by_sum
from engine.providers.framed import JSON_HEADERS, JsonProvider
from engine.providers.openai_replies import joined
from engine.providers.replies import (
    JSON_ERRORS,
    MODEL_CHARS_MAX,
    bad_reply,
    clean,
    count,
    dict_in,
    name_in,
    object_of,
    refused,
    text_in,
    total,
)
from engine.providers.structured import narrowed
from engine.providers.tools import from_blocks

MAX_TOKENS_DEFAULT: Final = 1024
VERSION: Final = "2023-06-01"
_ENDS: Final = frozenset({"end_turn", "max_tokens", "stop_sequence"})


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Block(msgspec.Struct, gc=False):
    type: str
    text: str = ""


class _Message(msgspec.Struct, gc=False):
    content: list[_Block]
    stop_reason: str
    model: str = ""
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Message).decode


class Anthropic(JsonProvider):
    """Anthropic's messages. See ``providers.base.Provider``."""

    name = "anthropic"
    auth: Auth | None = Auth("x-api-key", "", "ANTHROPIC_API_KEY")
    settles = True
    default_base_url = "https://api.anthropic.com"
    cut = ("/v1",)
    headers = (*JSON_HEADERS, ("anthropic-version", VERSION))
    paths: ClassVar[Mapping[str, str]] = {"/v1/messages": "chat"}
    question_field: ClassVar[Mapping[str, str]] = {"chat": "messages"}
    dialects: Mapping[str, str] = {"chat": "messages"}

    def __init__(self, target: Target) -> None:
        self._format = None if target.schema is None else narrowed(target.schema)
        super().__init__(target)

    def url(self, endpoint: str, model: str) -> str:
        """The one URL there is."""
        return f"{self._address.origin}{self._address.path}/v1/messages"

    def question(self, endpoint: str, prompt: Any, system: Any) -> dict[str, Any]:
        """``system`` at the top, then ``messages`` with user and assistant turns only."""
        body: dict[str, Any] = {"model": self._target.model}
        if isinstance(prompt, list):
            own = [message for message in prompt if message.get("role") in ("system", "developer")]
            if own:
                prompt = [message for message in prompt if message.get("role") not in ("system", "developer")]
                texts = [system, *(joined(message.get("content")) for message in own)]
                system = "\n\n".join(text for text in texts if text)
        else:
            prompt = [{"role": "user", "content": prompt}]
        if system:
            body["system"] = system
        body["messages"] = prompt
        return body

    def settings(self, endpoint: str, model: str) -> dict[str, Any]:
        """The limit, which is required, temperature and schema.

        A schema that Anthropic could not take (see ``structured.narrowed``) is left out: the answer is validated
        against it all the same.
        """
        target = self._target
        limit = MAX_TOKENS_DEFAULT if target.max_tokens is None else target.max_tokens
        fields: dict[str, Any] = {"max_tokens": limit}
        if target.temperature is not None:
            fields["temperature"] = target.temperature
        if self._format is not None:
            fields["output_config"] = {"format": {"type": "json_schema", "schema": self._format}}
        return fields

    def charge(self, endpoint: str, tokens_in: int, tokens_out: int) -> Charge:
        """The estimate of the input plus all of the answer's limit, until the reply says what was used."""
        return charge_by_sum(tokens_in, tokens_out)

    def parse(self, reply: Reply) -> Answer | Failure:
        """What the reply says. Never raises."""
        if not 200 <= reply.status < 300:
            return failure_of(reply)
        try:
            body = _decode(reply.body)
            block = body.content[0]
        except (*JSON_ERRORS, IndexError):
            return _carefully(reply)
        stop = body.stop_reason
        if (
            body.error
            or len(body.content) != 1
            or block.type != "text"
            or not block.text
            or stop not in _ENDS
        ):
            return _carefully(reply)
        return Answer(block.text, _usage_of(body.usage), body.model[:MODEL_CHARS_MAX], stop)


def _usage_of(usage: _Usage | None) -> Usage:
    if usage is None:
        return Usage()
    return _usage(
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_creation_input_tokens,
        usage.cache_read_input_tokens,
    )


def _usage(tokens_in: Any, tokens_out: Any, written: Any, read: Any) -> Usage:
    """All input is the sum of three fields: new, written to the cache, read from it (Anthropic's rate limits)."""
    cached = count(read)
    return Usage(total(count(tokens_in), count(written), cached), count(tokens_out), cached)


def _carefully(reply: Reply) -> Answer | Failure:
    """Any 2xx, field by field."""
    body = object_of(reply)
    if isinstance(body, Failure):
        return body
    said = dict_in(body.get("usage"))
    names = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    usage = _usage(*(said.get(name) for name in names))
    if body.get("error"):
        return failure_in_ok(reply, body["error"], usage)
    stop = text_in(body.get("stop_reason"))
    blocks = body.get("content") if isinstance(body.get("content"), list) else []
    texts = [
        block["text"]
        for block in map(dict_in, blocks or [])
        if block.get("type") == "text" and isinstance(block.get("text"), str)
    ]
    if stop == "refusal":
        said_so = f": {''.join(texts)}" if any(texts) else ""
        return refused(reply, f"the model refused{said_so}", usage)
    if stop == "pause_turn":
        return bad_reply(reply, "the model paused its turn, as it does with tools of the server", usage)
    if calls := from_blocks(blocks):
        return Answer(calls, usage, name_in(body.get("model")), stop[:MODEL_CHARS_MAX])
    text = "".join(texts)
    if not texts or (not text and stop != "end_turn"):
        return bad_reply(reply, _why_no_text(stop), usage)
    return Answer(text, usage, name_in(body.get("model")), stop[:MODEL_CHARS_MAX])


def _why_no_text(stop: str) -> str:
    if stop == "tool_use":
        return "the model asked for a tool without naming it"
    if stop == "max_tokens":
        return "the token limit (--max-tokens) was used up before there was any text of the answer"
    return "the reply has no text of an answer" + (f" (stop_reason {clean(stop, 60)})" if stop else "")
