"""Ollama's own API: /api/chat and /api/embed, replies in one piece.

Rules of this file:
1. ``stream`` is false in every body: Ollama streams by default.
2. Limits and temperature are ``options``; ``--param options={...}`` adds to them.
3. Ollama has no token limits of its own; calls are charged as OpenAI's are, for whoever sets ``--tpm`` all the same.

Sources: Ollama's API documentation; the key is for Ollama's cloud, a local server ignores it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from engine.core.model import Answer, Charge, Failure, Reply, Usage
from engine.providers.base import Auth
from engine.providers.errors_in_replies import failure_in_ok, failure_of
from engine.providers.estimate import charge_by_larger
from engine.providers.framed import JsonProvider
from engine.providers.openai_replies import vector_in
from engine.providers.replies import (
    JSON_ERRORS,
    MODEL_CHARS_MAX,
    bad_reply,
    clean,
    count,
    dict_in,
    name_in,
    object_of,
    text_in,
)
from engine.providers.tools import from_functions

_PATHS: Final = {"chat": "/api/chat", "embeddings": "/api/embed"}
_ENDS: Final = frozenset({"stop", "length"})


class _Message(msgspec.Struct, gc=False):
    content: str


class _Chat(msgspec.Struct, gc=False):
    message: _Message
    done_reason: str
    done: bool
    model: str = ""
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chat).decode


class Ollama(JsonProvider):
    """Ollama's native API. See ``providers.base.Provider``."""

    name = "ollama"
    auth: Auth | None = Auth("Authorization", "Bearer ", "OLLAMA_API_KEY")
    default_base_url = "http://127.0.0.1:11434"
    cut = ("/v1", "/api")
    paths: ClassVar[Mapping[str, str]] = {path: endpoint for endpoint, path in _PATHS.items()}
    question_field: ClassVar[Mapping[str, str]] = {"chat": "messages", "embeddings": "input"}
    dialects: Mapping[str, str] = {"chat": "ollama"}

    def url(self, endpoint: str, model: str) -> str:
        """Base URL and the endpoint's path."""
        return f"{self._address.origin}{self._address.path}{_PATHS[endpoint]}"

    def question(self, endpoint: str, prompt: Any, system: Any) -> dict[str, Any]:
        """``messages`` with the system prompt as the first one, or the ``input`` to embed."""
        body: dict[str, Any] = {"model": self._target.model}
        if endpoint == "chat":
            messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
            body["messages"] = (
                messages if system is None else [{"role": "system", "content": system}, *messages]
            )
        else:
            body["input"] = prompt
        return body

    def settings(self, endpoint: str, model: str) -> dict[str, Any]:
        """``stream`` off, the schema as ``format``, and the limit and temperature among the ``options``."""
        target = self._target
        if endpoint != "chat":
            return {}
        fields: dict[str, Any] = {"stream": False}
        options: dict[str, Any] = {}
        if target.max_tokens is not None:
            options["num_predict"] = target.max_tokens
        if target.temperature is not None:
            options["temperature"] = target.temperature
        if options:
            fields["options"] = options
        if target.schema is not None:
            fields["format"] = target.schema
        return fields

    def charge(self, endpoint: str, tokens_in: int, tokens_out: int) -> Charge:
        """The larger of the limit on the answer and the estimate of the prompt."""
        return charge_by_larger(tokens_in, tokens_out)

    def parse(self, reply: Reply) -> Answer | Failure:
        """What the reply says; of either endpoint. Never raises."""
        if not 200 <= reply.status < 300:
            return failure_of(reply)
        try:
            body = _decode(reply.body)
        except JSON_ERRORS:
            return _carefully(reply)
        text = body.message.content
        finish = body.done_reason
        if body.error or not body.done or finish not in _ENDS or not text:
            return _carefully(reply)
        usage = Usage(count(body.prompt_eval_count), count(body.eval_count))
        return Answer(text, usage, body.model[:MODEL_CHARS_MAX], finish)


def _carefully(reply: Reply) -> Answer | Failure:
    """Any 2xx, field by field."""
    body = object_of(reply)
    if isinstance(body, Failure):
        return body
    usage = Usage(count(body.get("prompt_eval_count")), count(body.get("eval_count")))
    if body.get("error"):
        return failure_in_ok(reply, body["error"], usage)
    if "embeddings" in body:
        return _vectors(reply, body, usage)
    message = dict_in(body.get("message"))
    finish = text_in(body.get("done_reason"))[:MODEL_CHARS_MAX]
    text = message.get("content")
    if body.get("done") is False:
        return bad_reply(reply, "the reply is only a piece of a stream; leave stream out", usage)
    if calls := from_functions(message.get("tool_calls")):
        return Answer(calls, usage, name_in(body.get("model")), finish)
    if not isinstance(text, str) or (not text and (finish != "stop" or message.get("tool_calls"))):
        return bad_reply(reply, _why_no_text(message, finish), usage)
    return Answer(text, usage, name_in(body.get("model")), finish)


def _vectors(reply: Reply, body: Mapping[str, Any], usage: Usage) -> Answer | Failure:
    rows = body["embeddings"] if isinstance(body["embeddings"], list) else []
    vectors = [vector_in(row) for row in rows]
    if not vectors or None in vectors:
        return bad_reply(reply, "the reply has no embedding that is a list of finite numbers", usage)
    return Answer(vectors[0] if len(vectors) == 1 else vectors, usage, name_in(body.get("model")))


def _why_no_text(message: Mapping[str, Any], finish: str) -> str:
    if message.get("tool_calls"):
        return "the model asked for a tool without naming it"
    if finish == "length":
        return "the token limit (--max-tokens) was used up before there was any text of the answer"
    return "the reply has no text of an answer" + (f" (done_reason {clean(finish, 60)})" if finish else "")
