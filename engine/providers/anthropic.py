"""Anthropic's messages API.

Rules of this file:
1. ``max_tokens`` is required by the API; without ``--max-tokens`` it is MAX_TOKENS_DEFAULT.
2. Real usage is what its limits count (Anthropic's rate-limit documentation), so charges are settled.
"""

from typing import Any

import msgspec

from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import Answer, Ask, Call, Charge, Failure, Reply, Target, Usage
from engine.providers.base import Auth
from engine.providers.estimate import TOKENS_MAX, clamp, text_tokens
from engine.providers.openai import encoded, origin_of
from engine.providers.refusals import failure_of, one_line

MAX_TOKENS_DEFAULT = 1024
VERSION = "2023-06-01"
_HEADERS = (("Content-Type", "application/json"), ("anthropic-version", VERSION))


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _Usage(msgspec.Struct):
    input_tokens: Any = None
    output_tokens: Any = None
    cache_creation_input_tokens: Any = None
    cache_read_input_tokens: Any = None


class _Message(msgspec.Struct):
    content: list[_Block] = []
    stop_reason: str | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None


_message = msgspec.json.Decoder(_Message).decode


class Anthropic:
    """See ``providers.base.Provider``."""

    auth: Auth | None = Auth("x-api-key", "", "ANTHROPIC_API_KEY")
    settles = True
    default_base_url = "https://api.anthropic.com"

    def __init__(self, target: Target) -> None:
        if target.endpoint != "chat":
            raise UsageError(f"Anthropic has messages only (--endpoint chat), not {target.endpoint!r}.")
        self.target = target
        base = (target.base_url or self.default_base_url).rstrip("/").removesuffix("/v1")
        self.origin = origin_of(base)
        self._url = f"{base}/v1/messages"
        self._fields: dict[str, Any] = {"max_tokens": target.max_tokens or MAX_TOKENS_DEFAULT}
        if target.temperature is not None:
            self._fields["temperature"] = target.temperature
        if target.schema is not None:
            self._fields["output_config"] = {"format": {"type": "json_schema", "schema": target.schema}}
        self._fields.update(target.params)

    def build(self, ask: Ask) -> Call:
        """One message request. A conversation's system messages become the top-level ``system``."""
        body: dict[str, Any] = {"model": self.target.model} if self.target.model else {}
        if ask.body is not None:
            if ask.path not in ("", "/v1/messages"):
                raise RowError(ErrorKind.BAD_REQUEST, f"the line's url {ask.path[:80]!r} is not /v1/messages")
            body.update(self._fields)
            body.update(ask.body)
        else:
            system, messages = _split(ask)
            body["messages"] = messages
            if system:
                body["system"] = system
            body.update(self._fields)
        content = encoded(body)
        bound = body.get("max_tokens")
        tokens_out = min(bound, TOKENS_MAX) if isinstance(bound, int) and bound > 0 else 0
        plain = ask.prompt is not None
        tokens_in = (
            text_tokens(ask.prompt or "") + text_tokens(ask.system or "") if plain else len(content) // 4
        )
        return Call(
            "POST", self._url, _HEADERS, content, Charge(tokens_in, tokens_out, tokens_in + tokens_out)
        )

    def parse(self, reply: Reply) -> Answer | Failure:
        """See ``Provider.parse``."""
        if reply.status >= 300:
            return failure_of(reply)
        try:
            message = _message(reply.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            said = one_line(str(error))
            return Failure(
                ErrorKind.BAD_REPLY,
                f"the reply is not the JSON that was expected: {said}",
                status=reply.status,
            )
        if message.error:
            return failure_of(reply)
        usage = _usage_of(message.usage)
        stop = message.stop_reason or ""
        if stop == "refusal":
            return Failure(
                ErrorKind.CONTENT_REFUSED, "the model refused to answer", None, usage, reply.status
            )
        if stop == "model_context_window_exceeded":
            return Failure(
                ErrorKind.REQUEST_TOO_LARGE, "the context window is full", None, usage, reply.status
            )
        texts = [block.text for block in message.content if block.type == "text" and block.text is not None]
        if not texts:
            said = one_line(stop) or "none"
            return Failure(
                ErrorKind.BAD_REPLY, f"the reply has no text (stop reason {said})", None, usage, reply.status
            )
        return Answer("".join(texts), usage, message.model or "", "length" if stop == "max_tokens" else stop)


def _split(ask: Ask) -> tuple[str, list[dict[str, Any]]]:
    if ask.messages is None:
        return ask.system or "", [{"role": "user", "content": ask.prompt}]
    system = [ask.system] if ask.system else []
    rest: list[dict[str, Any]] = []
    for message in ask.messages:
        if message.get("role") in ("system", "developer") and isinstance(message.get("content"), str):
            system.append(message["content"])
        else:
            rest.append(message)
    return "\n\n".join(system), rest


def _usage_of(usage: _Usage | None) -> Usage:
    """All input together: fresh, written to the cache and read from it."""
    if usage is None:
        return Usage()
    cached = max(0, clamp(usage.cache_read_input_tokens))
    fresh = clamp(usage.input_tokens)
    if fresh >= 0:
        fresh = min(TOKENS_MAX, fresh + max(0, clamp(usage.cache_creation_input_tokens)) + cached)
    return Usage(fresh, clamp(usage.output_tokens), cached)
