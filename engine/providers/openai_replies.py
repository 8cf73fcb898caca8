"""What replies in OpenAI's shapes say: chat, completions, Responses, embeddings; also of every compatible server.

Rules of this file:
1. Two paths. The fast one decodes only the fields of an ordinary good reply, with types; whatever is not exactly that
   (an error, a refusal, an odd number, another shape) goes the careful way, which looks at every field's type.
2. An answer that was cut at the token limit is an answer with ``finish`` saying so, if there is any text in it.
3. Nothing raises, whatever the bytes.

Shapes: OpenAI's API reference; finish reasons of vLLM (``abort``), of gateways (``error``), content as a list of parts
(Mistral), thinking tokens inside the total only (Gemini).
"""

from array import array
from base64 import b64decode
from collections.abc import Callable, Mapping
from math import isfinite
from sys import byteorder
from typing import Any, Final

import msgspec

from engine.core.model import UNKNOWN_USAGE, Answer, Failure, Reply, Usage
from engine.providers.errors_in_replies import failure_in_ok
from engine.providers.estimate import TOKENS_MAX
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
)
from engine.providers.tools import from_functions, from_output

# Ordinary ends of an answer; any other word is looked at the careful way.
_ENDS: Final = frozenset({"stop", "length"})
# Ends that are no success although there may be text.
_FILTERED: Final = ("content_filter", "safety", "prohibited_content", "recitation", "blocklist")
_BROKEN: Final = frozenset({"abort", "error", "cancelled"})
DIMENSIONS_MAX: Final = 1_000_000


class _Cached(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _ChatUsage(msgspec.Struct, gc=False):
    prompt_tokens: int = -1
    completion_tokens: int = -1
    total_tokens: int = -1
    prompt_tokens_details: _Cached | None = None


class _Message(msgspec.Struct, gc=False):
    content: str
    refusal: str | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message
    finish_reason: str


class _Chat(msgspec.Struct, gc=False):
    choices: list[_Choice]
    model: str = ""
    usage: _ChatUsage | None = None
    error: Any = None


class _Vector(msgspec.Struct, gc=False):
    embedding: list[float]


class _Vectors(msgspec.Struct, gc=False):
    data: list[_Vector]
    model: str = ""
    usage: _ChatUsage | None = None
    error: Any = None


_decode_chat = msgspec.json.Decoder(_Chat).decode
_decode_vectors = msgspec.json.Decoder(_Vectors).decode


def read_reply(reply: Reply) -> Answer | Failure:
    """What a 2xx reply says whose shape is not known beforehand: the careful path."""
    body = object_of(reply)
    if isinstance(body, Failure):
        return body
    usage = usage_in(body.get("usage"))
    if body.get("error"):
        return failure_in_ok(reply, body["error"], usage)
    for field, read in _SHAPES:
        if field in body:
            return read(reply, body, usage)
    if body.get("object") == "error":  # SGLang and older vLLM
        return failure_in_ok(reply, body, usage)
    return bad_reply(
        reply, f"the reply has no answer in it; its fields are: {', '.join(map(str, body))}", usage
    )


def read_chat(reply: Reply) -> Answer | Failure:
    """What a 2xx reply of /chat/completions says."""
    try:
        body = _decode_chat(reply.body)
        choice = body.choices[0]
    except (*JSON_ERRORS, IndexError):
        return read_reply(reply)
    message = choice.message
    finish = choice.finish_reason
    if body.error or message.refusal or finish not in _ENDS or not message.content:
        return read_reply(reply)
    return Answer(message.content, _usage(body.usage), body.model[:MODEL_CHARS_MAX], finish)


def read_embeddings(reply: Reply) -> Answer | Failure:
    """What a 2xx reply of /embeddings says: one vector as a list of floats."""
    try:
        body = _decode_vectors(reply.body)
    except JSON_ERRORS:
        return read_reply(reply)
    if body.error or len(body.data) != 1 or not body.data[0].embedding:
        return read_reply(reply)
    return Answer(body.data[0].embedding, _usage(body.usage), body.model[:MODEL_CHARS_MAX], "")


READERS: Final[dict[str, Callable[[Reply], Answer | Failure]]] = {
    "chat": read_chat,
    "completions": read_reply,
    "responses": read_reply,
    "embeddings": read_embeddings,
}


def _usage(usage: _ChatUsage | None) -> Usage:
    """Counts that were decoded as integers, clamped."""
    if usage is None:
        return UNKNOWN_USAGE
    tokens_in, tokens_out, cached = usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details
    tokens_cached = -1 if cached is None or cached.cached_tokens is None else count(cached.cached_tokens)
    if (
        0 <= tokens_in <= TOKENS_MAX
        and 0 <= tokens_out <= TOKENS_MAX
        and usage.total_tokens <= tokens_in + tokens_out
    ):
        return Usage(tokens_in, tokens_out, tokens_cached)
    tokens_in, tokens_out = count(tokens_in), count(tokens_out)
    return Usage(tokens_in, _with_thoughts(tokens_in, tokens_out, count(usage.total_tokens)), tokens_cached)


def usage_in(value: Any) -> Usage:
    """Counts out of a usage object under OpenAI's names, chat's or Responses', whatever their types."""
    usage = dict_in(value)
    tokens_in = count(usage.get("prompt_tokens", usage.get("input_tokens")))
    tokens_out = count(usage.get("completion_tokens", usage.get("output_tokens")))
    details = dict_in(usage.get("prompt_tokens_details", usage.get("input_tokens_details")))
    tokens_out = _with_thoughts(tokens_in, tokens_out, count(usage.get("total_tokens")))
    return Usage(tokens_in, tokens_out, count(details.get("cached_tokens")))


def _with_thoughts(tokens_in: int, tokens_out: int, tokens_total: int) -> int:
    """Output tokens; where a server counts thinking in the total only (Gemini), what the total says."""
    if tokens_in < 0 or tokens_out < 0:
        return tokens_out
    return max(tokens_out, tokens_total - tokens_in)


# --- the careful path --------------------------------------------------------------------------------------


def _from_choices(reply: Reply, body: Mapping[str, Any], usage: Usage) -> Answer | Failure:
    choices = body["choices"]
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return bad_reply(reply, "the reply has no choices", usage)
    choice = choices[0]
    if choice.get("error"):
        return failure_in_ok(reply, choice["error"], usage)
    message = dict_in(choice.get("message"))
    finish = text_in(choice.get("finish_reason"))[:MODEL_CHARS_MAX]
    text = joined(message.get("content")) if "message" in choice else joined(choice.get("text"))
    if said := text_in(message.get("refusal")):
        return refused(reply, f"the model refused: {said}", usage)
    if finish.lower().startswith(_FILTERED):
        return refused(
            reply, f"a content filter stopped the answer (finish_reason {clean(finish, 60)})", usage
        )
    if finish in _BROKEN:
        return bad_reply(reply, f"the server broke the answer off (finish_reason {finish})", usage)
    if calls := from_functions(message.get("tool_calls") or [{"function": message.get("function_call")}]):
        return Answer(calls, usage, name_in(body.get("model")), finish)
    if text is None or (not text and (finish != "stop" or message.get("tool_calls"))):
        return bad_reply(reply, _why_no_text(message, finish), usage)
    return Answer(text, usage, name_in(body.get("model")), finish)


def _why_no_text(message: Mapping[str, Any], finish: str) -> str:
    if message.get("tool_calls") or message.get("function_call"):
        return "the model asked for a tool without naming it"
    if finish == "length":
        return "the token limit (--max-tokens) was used up before there was any text of the answer"
    return "the reply has no text of an answer" + (f" (finish_reason {clean(finish, 60)})" if finish else "")


def joined(content: Any) -> str | None:
    """The text of a message: a string, or the text parts of a list; None where there is none."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        ]
        return "".join(texts) if texts else None
    return None


def _from_output(reply: Reply, body: Mapping[str, Any], usage: Usage) -> Answer | Failure:
    """OpenAI's Responses: an HTTP 200 may hold a response that failed or is incomplete."""
    status = text_in(body.get("status"))
    reason = text_in(dict_in(body.get("incomplete_details")).get("reason"))
    if status in ("failed", "cancelled", "queued", "in_progress"):
        return bad_reply(reply, f"the response has status {status} instead of an answer", usage)
    output = body["output"] if isinstance(body["output"], list) else []
    texts: list[str] = []
    called = False
    for item in output:
        item = dict_in(item)
        called = called or text_in(item.get("type")).endswith("_call")
        if item.get("type") != "message" or not isinstance(item.get("content"), list):
            continue
        for part in map(dict_in, item["content"]):
            if part.get("type") == "refusal":
                return refused(reply, f"the model refused: {text_in(part.get('refusal'))}", usage)
            if part.get("type") == "output_text" and isinstance(part.get("text"), str):
                texts.append(part["text"])
    if reason.lower().startswith(_FILTERED):
        return refused(reply, f"a content filter stopped the answer ({clean(reason, 60)})", usage)
    finish = reason[:MODEL_CHARS_MAX] or status or "completed"
    if calls := from_output(output):
        return Answer(calls, usage, name_in(body.get("model")), finish)
    text = "".join(texts)
    if not texts or (not text and status == "incomplete"):
        why = "length" if reason == "max_output_tokens" else clean(reason, 60)
        return bad_reply(reply, _why_no_text({"tool_calls": called}, why), usage)
    return Answer(text, usage, name_in(body.get("model")), finish)


def _from_data(reply: Reply, body: Mapping[str, Any], usage: Usage) -> Answer | Failure:
    """Embeddings: one vector, or a list of vectors where the question was a list of texts."""
    data = body["data"] if isinstance(body["data"], list) else []
    vectors: list[tuple[int, list[float]]] = []
    for place, item in enumerate(data):
        vector = vector_in(dict_in(item).get("embedding"))
        if vector is None:
            return bad_reply(reply, "the reply has an embedding that is no list of finite numbers", usage)
        index = dict_in(item).get("index")
        vectors.append((index if type(index) is int else place, vector))
    if not vectors:
        return bad_reply(reply, "the reply has no embeddings", usage)
    vectors.sort(key=lambda pair: pair[0])
    value = vectors[0][1] if len(vectors) == 1 else [vector for _, vector in vectors]
    return Answer(value, usage, name_in(body.get("model")))


def vector_in(value: Any) -> list[float] | None:
    """An embedding as floats: a list of numbers, or base64 of little-endian 32-bit floats; None for anything else."""
    if isinstance(value, str):
        if len(value) > DIMENSIONS_MAX * 6:
            return None
        try:
            data = b64decode(value, validate=True)
        except ValueError:
            return None
        if not data or len(data) % 4:
            return None
        floats = array("f", data)
        if byteorder == "big":
            floats.byteswap()
        numbers = floats.tolist()
    elif isinstance(value, list) and value and all(type(number) in (int, float) for number in value):
        try:
            numbers = [float(number) for number in value]
        except OverflowError:
            return None
    else:
        return None
    return numbers if all(map(isfinite, numbers)) else None


_SHAPES: Final = (("choices", _from_choices), ("output", _from_output), ("data", _from_data))
