"""Ollama's native API: /api/chat and /api/embed.

Rules of this file:
1. Streaming is switched off: Ollama streams unless told not to.
2. No key, no quota; what it can take at once is the in-flight limit's business.
"""

from typing import Any

import msgspec

from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import Answer, Ask, Call, Charge, Failure, Reply, Target
from engine.providers.base import Auth
from engine.providers.estimate import text_tokens, usage_of
from engine.providers.openai import encoded, origin_of
from engine.providers.refusals import failure_of, one_line

_HEADERS = (("Content-Type", "application/json"),)


class _Message(msgspec.Struct):
    content: str | None = None


class _Chat(msgspec.Struct):
    message: _Message | None = None
    embeddings: list[list[float]] | None = None
    done_reason: str | None = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    model: str | None = None
    error: Any = None


_chat = msgspec.json.Decoder(_Chat).decode


class Ollama:
    """See ``providers.base.Provider``."""

    auth: Auth | None = None
    settles = False
    default_base_url = "http://127.0.0.1:11434"

    def __init__(self, target: Target) -> None:
        if target.endpoint not in ("chat", "embeddings"):
            raise UsageError(
                f"Ollama has chat and embeddings here, not {target.endpoint!r}; its /v1 speaks OpenAI's."
            )
        self.target = target
        base = (target.base_url or self.default_base_url).rstrip("/").removesuffix("/v1").removesuffix("/api")
        self.origin = origin_of(base)
        self._embeds = target.endpoint == "embeddings"
        self._url = f"{base}/api/embed" if self._embeds else f"{base}/api/chat"
        options: dict[str, Any] = {}
        if target.max_tokens is not None:
            options["num_predict"] = target.max_tokens
        if target.temperature is not None:
            options["temperature"] = target.temperature
        self._fields: dict[str, Any] = {} if self._embeds else {"stream": False}
        if options:
            self._fields["options"] = options
        if target.schema is not None:
            self._fields["format"] = target.schema
        for name, value in target.params.items():
            mergeable = name == "options" and isinstance(value, dict)
            self._fields[name] = {**options, **value} if mergeable else value

    def build(self, ask: Ask) -> Call:
        """One request. Raises RowError for openai-batch lines, which are not Ollama's."""
        if ask.body is not None:
            raise RowError(
                ErrorKind.BAD_REQUEST, "openai-batch lines need --provider openai with Ollama's /v1 address"
            )
        if self._embeds:
            if not ask.prompt:
                raise RowError(ErrorKind.BAD_INPUT, "there is no text to embed")
            body: dict[str, Any] = {"model": self.target.model, "input": ask.prompt}
        else:
            messages = ask.messages if ask.messages is not None else [{"role": "user", "content": ask.prompt}]
            if ask.system is not None:
                messages = [{"role": "system", "content": ask.system}, *messages]
            body = {"model": self.target.model, "messages": messages}
        body.update(self._fields)
        content = encoded(body)
        plain = ask.prompt is not None
        tokens_in = (
            text_tokens(ask.prompt or "") + text_tokens(ask.system or "") if plain else len(content) // 4
        )
        out = self.target.max_tokens or 0
        return Call("POST", self._url, _HEADERS, content, Charge(tokens_in, out, max(tokens_in, out)))

    def parse(self, reply: Reply) -> Answer | Failure:
        """See ``Provider.parse``."""
        if reply.status >= 300:
            return failure_of(reply)
        try:
            chat = _chat(reply.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            said = one_line(str(error))
            return Failure(
                ErrorKind.BAD_REPLY,
                f"the reply is not the JSON that was expected: {said}",
                status=reply.status,
            )
        if chat.error:
            return failure_of(reply)
        usage = usage_of(chat.prompt_eval_count, chat.eval_count)
        value: Any = None
        if self._embeds:
            value = chat.embeddings[0] if chat.embeddings else None
        elif chat.message is not None:
            value = chat.message.content
        if value is None:
            return Failure(ErrorKind.BAD_REPLY, "the reply has no answer", None, usage, reply.status)
        return Answer(value, usage, chat.model or "", chat.done_reason or "")
