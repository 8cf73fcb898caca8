"""OpenAI and every server that speaks like it: chat completions, responses, completions, embeddings.

Rules of this file:
1. Field names and meanings are those of OpenAI's API reference; servers that differ are told apart by host alone.
2. ``max_completion_tokens`` goes to OpenAI itself and to model families that refuse ``max_tokens`` (o-series,
   gpt-5 and later answer 400 unsupported_parameter); everybody else understands ``max_tokens``.
"""

import base64
import binascii
import re
import struct
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import Answer, Ask, Call, Charge, Failure, Reply, Target, Usage
from engine.providers.base import Auth
from engine.providers.estimate import TOKENS_MAX, text_tokens, usage_of
from engine.providers.refusals import failure_of, one_line
from engine.providers.strict import is_strict

PATHS = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "completions": "/completions",
    "embeddings": "/embeddings",
}
_NEW_FAMILIES = re.compile(r"(?:^|/)(?:o[1-9]|gpt-[5-9])", re.IGNORECASE)
_HEADERS = (("Content-Type", "application/json"),)
_encode = msgspec.json.Encoder().encode


class _Message(msgspec.Struct):
    content: Any = None
    refusal: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None  # completions
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None
    total_tokens: Any = None


class _Chat(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None


class _Embedding(msgspec.Struct):
    embedding: list[float] | str


class _Embeddings(msgspec.Struct):
    data: list[_Embedding] = []
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Item(msgspec.Struct):
    type: str = ""
    content: list[_Part] | None = None


class _Response(msgspec.Struct):
    status: str = ""
    output: list[_Item] = []
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None
    incomplete_details: Any = None


_chat = msgspec.json.Decoder(_Chat).decode
_embeddings = msgspec.json.Decoder(_Embeddings).decode
_response = msgspec.json.Decoder(_Response).decode
_BAD_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class OpenAI:
    """See ``providers.base.Provider``."""

    auth: Auth | None = Auth("Authorization", "Bearer ", "OPENAI_API_KEY")
    settles = False
    default_base_url = "https://api.openai.com/v1"

    def __init__(self, target: Target) -> None:
        self.target = target
        base = (target.base_url or self.default_base_url).rstrip("/")
        self.origin = origin_of(base)
        self._urls = self.urls(base, target)
        if target.endpoint not in self._urls:
            raise UsageError(f"The provider {target.provider} has no endpoint {target.endpoint!r}.")
        self._url = self._urls[target.endpoint]
        self._fields = self._constant_fields(target)
        given = target.params.get("max_completion_tokens", target.params.get("max_tokens", target.max_tokens))
        self._tokens_out = given if isinstance(given, int) else 0

    def urls(self, base: str, target: Target) -> dict[str, str]:
        """The address of each endpoint."""
        return {name: base + path for name, path in PATHS.items()}

    # --- building ---------------------------------------------------------------------------------------------

    def wants_new_name(self) -> bool:
        """Whether ``max_tokens`` has to be called ``max_completion_tokens``."""
        host = urlsplit(self.origin).hostname or ""
        return host == "api.openai.com" or _NEW_FAMILIES.search(self.target.model) is not None

    def _constant_fields(self, target: Target) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if target.endpoint != "embeddings":
            if target.max_tokens is not None:
                name = "max_completion_tokens" if self.wants_new_name() else "max_tokens"
                if target.endpoint == "responses":
                    name = "max_output_tokens"
                elif target.endpoint == "completions":
                    name = "max_tokens"
                fields[name] = target.max_tokens
            if target.temperature is not None:
                fields["temperature"] = target.temperature
        if target.schema is not None:
            shape = {"name": "answer", "schema": target.schema, "strict": is_strict(target.schema)}
            if target.endpoint == "responses":
                fields["text"] = {"format": {"type": "json_schema", **shape}}
            elif target.endpoint == "chat":
                fields["response_format"] = {"type": "json_schema", "json_schema": shape}
        fields.update(target.params)
        return fields

    def build(self, ask: Ask) -> Call:
        """One POST with a JSON body. Raises RowError for a line whose path this provider does not serve."""
        if ask.body is not None:
            return self._from_line(ask)
        endpoint = self.target.endpoint
        body: dict[str, Any] = {"model": self.target.model} if self.target.model else {}
        if endpoint == "chat":
            body["messages"] = _conversation(ask)
        elif endpoint == "responses":
            if ask.messages is not None:
                body["input"] = ask.messages
            else:
                body["input"] = ask.prompt
                if ask.system is not None:
                    body["instructions"] = ask.system
        else:
            text = _alone(ask, endpoint)
            body["input" if endpoint == "embeddings" else "prompt"] = text
        body.update(self._fields)
        tokens_in = _tokens_of(ask)
        return Call("POST", self._url, _HEADERS, encoded(body), self.charge(tokens_in, self._tokens_out))

    def charge(self, tokens_in: int, tokens_out: int) -> Charge:
        """OpenAI's rule: the larger of the answer's bound and the prompt's estimate (its rate-limit guide)."""
        return Charge(tokens_in, tokens_out, max(tokens_in, tokens_out))

    def _from_line(self, ask: Ask) -> Call:
        """An openai-batch line's own body; the job's settings fill in only what it leaves out."""
        assert ask.body is not None
        url = self._url
        endpoint = self.target.endpoint
        if ask.path:
            path = ask.path.removeprefix("/v1")
            endpoint = next((name for name, known in PATHS.items() if known == path), "")
            if endpoint not in self._urls:
                raise RowError(
                    ErrorKind.BAD_REQUEST, f"the line's url {ask.path[:80]!r} is not one of this endpoint's"
                )
            url = self._urls[endpoint]
        body = dict(ask.body)
        if self.target.model:
            body.setdefault("model", self.target.model)
        if endpoint == self.target.endpoint:
            bounds = {"max_tokens", "max_completion_tokens"}
            for name, value in self._fields.items():
                if name not in body and not (name in bounds and bounds & body.keys()):
                    body[name] = value
        content = encoded(body)
        out = body.get("max_completion_tokens", body.get("max_tokens", body.get("max_output_tokens")))
        tokens_out = min(out, TOKENS_MAX) if isinstance(out, int) and out > 0 else 0
        return Call("POST", url, _HEADERS, content, self.charge(-(-len(content) // 4), tokens_out))

    # --- parsing ----------------------------------------------------------------------------------------------

    def parse(self, reply: Reply) -> Answer | Failure:
        """See ``Provider.parse``. The reply's own shape decides, so that batch lines need not be remembered."""
        if reply.status >= 300:
            return failure_of(reply)
        endpoint = self.target.endpoint
        try:
            if endpoint == "embeddings" or reply.body.startswith(b'{"object":"list"'):
                return self._parse_embeddings(reply)
            if endpoint == "responses" or reply.body.startswith(b'{"id":"resp_'):
                return self._parse_response(reply)
            return self._parse_chat(reply)
        except _BAD_JSON as error:
            return Failure(
                ErrorKind.BAD_REPLY,
                f"the reply is not the JSON that was expected: {one_line(str(error))}",
                status=reply.status,
            )

    def _parse_chat(self, reply: Reply) -> Answer | Failure:
        chat = _chat(reply.body)
        if chat.error:
            return failure_of(reply)
        usage = _usage_of(chat.usage)
        if not chat.choices:
            return _missing("the reply has no choices", reply, usage)
        choice = chat.choices[0]
        finish = choice.finish_reason or ""
        message = choice.message
        if finish == "content_filter":
            return Failure(
                ErrorKind.CONTENT_REFUSED, "a content filter cut the answer", None, usage, reply.status
            )
        if message is None:
            if choice.text is None:
                return _missing("the reply's choice has no message", reply, usage)
            return Answer(choice.text, usage, chat.model or "", finish)
        if message.refusal:
            said = one_line(str(message.refusal))
            return Failure(ErrorKind.CONTENT_REFUSED, f"the model refused: {said}", None, usage, reply.status)
        text = message.content
        if isinstance(text, list):  # some servers answer in parts
            text = "".join(part.get("text", "") for part in text if isinstance(part, dict))
        if not isinstance(text, str):
            what = "calls tools instead of answering" if message.tool_calls else "has no content"
            return _missing(f"the reply {what} (finish reason {finish or 'none'})", reply, usage)
        return Answer(text, usage, chat.model or "", finish)

    def _parse_embeddings(self, reply: Reply) -> Answer | Failure:
        parsed = _embeddings(reply.body)
        if parsed.error:
            return failure_of(reply)
        usage = _usage_of(parsed.usage)
        if not parsed.data:
            return _missing("the reply has no embedding", reply, usage)
        vector = parsed.data[0].embedding
        if isinstance(vector, str):
            try:
                raw = base64.b64decode(vector, validate=True)
                vector = list(struct.unpack(f"<{len(raw) // 4}f", raw))
            except (binascii.Error, struct.error, ValueError):
                return _missing("the reply's embedding is not valid base64", reply, usage)
        return Answer(vector, usage, parsed.model or "", "stop")

    def _parse_response(self, reply: Reply) -> Answer | Failure:
        parsed = _response(reply.body)
        usage = _usage_of(parsed.usage)
        if parsed.error or parsed.status == "failed":
            return failure_of(reply)
        texts: list[str] = []
        for item in parsed.output:
            for part in item.content or ():
                if part.refusal:
                    said = one_line(part.refusal)
                    return Failure(
                        ErrorKind.CONTENT_REFUSED, f"the model refused: {said}", None, usage, reply.status
                    )
                if part.type == "output_text" and part.text is not None:
                    texts.append(part.text)
        reason = (
            parsed.incomplete_details.get("reason") if isinstance(parsed.incomplete_details, dict) else None
        )
        if reason == "content_filter":
            return Failure(
                ErrorKind.CONTENT_REFUSED, "a content filter cut the answer", None, usage, reply.status
            )
        if not texts:
            return _missing(
                f"the reply has no text (status {one_line(parsed.status) or 'none'})", reply, usage
            )
        finish = "length" if reason == "max_output_tokens" else "stop"
        return Answer("".join(texts), usage, parsed.model or "", finish)


def origin_of(url: str) -> str:
    """``scheme://host[:port]`` of a base URL. Raises UsageError for what is no http address."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(f"The address {url!r} is not valid.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise UsageError(f"The address {url!r} is not like https://host/v1.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")


def encoded(body: Mapping[str, Any]) -> bytes:
    """The JSON of a body. Raises RowError where a text cannot be UTF-8 (half of a surrogate pair)."""
    try:
        return _encode(body)
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        raise RowError(
            ErrorKind.BAD_INPUT, "the row's text cannot be sent: it is not valid Unicode"
        ) from None


def _conversation(ask: Ask) -> list[dict[str, Any]]:
    if ask.messages is not None:
        if ask.system is not None:
            return [{"role": "system", "content": ask.system}, *ask.messages]
        return ask.messages
    question = {"role": "user", "content": ask.prompt}
    return [question] if ask.system is None else [{"role": "system", "content": ask.system}, question]


def _alone(ask: Ask, endpoint: str) -> str:
    if ask.prompt is None:
        raise RowError(ErrorKind.BAD_INPUT, f"{endpoint} take one text, not a conversation")
    if not ask.prompt and endpoint == "embeddings":
        raise RowError(ErrorKind.BAD_INPUT, "there is no text to embed")
    return ask.prompt


def _tokens_of(ask: Ask) -> int:
    tokens = text_tokens(ask.prompt) if ask.prompt is not None else 0
    if ask.system is not None:
        tokens += text_tokens(ask.system)
    if ask.messages is not None:
        for message in ask.messages:
            content = message.get("content")
            tokens += text_tokens(content) if isinstance(content, str) else len(encoded({"c": content})) // 4
    return tokens


def _usage_of(usage: _Usage | None) -> Usage:
    if usage is None:
        return Usage()
    tokens_in = usage.prompt_tokens if usage.prompt_tokens is not None else usage.input_tokens
    tokens_out = usage.completion_tokens if usage.completion_tokens is not None else usage.output_tokens
    found = usage_of(tokens_in, tokens_out)
    total = usage_of(usage.total_tokens, None).tokens_in
    # Gemini's thinking tokens are in the total only.
    if total > found.tokens_in + found.tokens_out and found.tokens_in >= 0 and found.tokens_out >= 0:
        return Usage(found.tokens_in, total - found.tokens_in)
    return found


def _missing(what: str, reply: Reply, usage: Usage) -> Failure:
    return Failure(ErrorKind.BAD_REPLY, what, None, usage, reply.status)
