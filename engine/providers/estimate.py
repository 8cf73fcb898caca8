"""What a call costs in the quota before it is sent: token estimates by length, and each provider's charging rule.

Rules of this file:
1. An estimate counts characters, as OpenAI's and Azure's guides say the endpoint itself does; no tokenizer. It has to
   be cheap: it is made for every row.
2. ASCII text costs a quarter token per character. Other text costs a quarter token per UTF-8 byte, which is at
   least as much: measured against o200k, a quarter token per character is 60 % too low for Chinese and Japanese,
   a quarter per byte is 3 to 14 % too high for them, and a few foreign letters in a text hardly raise its cost.
3. Limits that a row states are a stranger's: they are cut to 0..TOKENS_MAX.
"""

from collections.abc import Callable
from typing import Any

from engine.core.model import Charge

TOKENS_MAX = 10**9
# Fields that bound the answer: OpenAI chat (new and old), OpenAI Responses; Anthropic and completions use the second.
LIMIT_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
COMPLETIONS_LIMIT = 16  # tokens of /completions where a request names no limit (OpenAI's API reference)
Measure = Callable[[str], int]  # of a text in quarter tokens
_QUESTION_FIELDS = ("system", "instructions", "messages", "input", "prompt")


def size_of(text: str) -> int:
    """Quarter tokens of a text: its characters where it is ASCII, else its UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def tokens_of(size: int) -> int:
    """Tokens of so many quarter tokens, rounded up."""
    return (size + 3) >> 2


def size_of_messages(messages: list[dict[str, Any]], measure: Measure = size_of) -> int:
    """Quarter tokens of a conversation: its texts; pictures and the like have no length that means anything."""
    size = 0
    for message in messages:
        content = message.get("content")
        size += measure(content) if isinstance(content, str) else _size_of_parts(content, measure)
    return size


def tokens_of_body(body: dict[str, Any], measure: Measure = size_of) -> int:
    """Tokens of the question in a request body of any provider here.

    A list of texts (several embeddings) counts each for itself; a list of numbers is tokens already.
    """
    size = tokens = 0
    for name in _QUESTION_FIELDS:
        value = body.get(name)
        if isinstance(value, str):
            size += measure(value)
        elif isinstance(value, list):
            tokens += sum(tokens_of(measure(part)) for part in value if isinstance(part, str))
            tokens += sum(1 for part in value if isinstance(part, int))
            tokens += sum(len(part) for part in value if isinstance(part, list))
            parts = [part for part in value if isinstance(part, dict)]
            size += size_of_messages(parts, measure) + _size_of_parts(parts, measure)
    return tokens + tokens_of(size)


def _size_of_parts(parts: Any, measure: Measure) -> int:
    """Quarter tokens of the parts of a message: ``{"type": "text", "text": ...}`` and Responses' ``input_text``."""
    if not isinstance(parts, list):
        return 0
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return sum(measure(text) for text in texts if isinstance(text, str))


def limit_in(body: dict[str, Any]) -> int:
    """The bound on the answer's tokens that a body states, 0 where it states none. Ollama's is in ``options``."""
    for name in LIMIT_FIELDS:
        if name in body:
            return count_in(body[name])
    options = body.get("options")
    return count_in(options.get("num_predict")) if isinstance(options, dict) else 0


def choices_in(body: dict[str, Any]) -> int:
    """How many answers a body asks for: the larger of ``n`` and ``best_of``, at least 1."""
    return max(1, count_in(body.get("n")), count_in(body.get("best_of")))


def count_in(value: Any) -> int:
    """A count out of a stranger's JSON, cut to 0..TOKENS_MAX; 0 for anything that is no whole number."""
    if type(value) is not int:
        return 0
    return min(max(value, 0), TOKENS_MAX)


def charge_by_larger(tokens_in: int, tokens_out: int) -> Charge:
    """OpenAI's guide to rate limits: the larger of the limit on the answer and the estimate of the prompt."""
    return Charge(tokens_in, tokens_out, tokens_in if tokens_in > tokens_out else tokens_out)


def charge_by_sum(tokens_in: int, tokens_out: int) -> Charge:
    """Azure's quota documentation: the estimate of the prompt plus the limit on the answer (times ``best_of``).

    Also what has to be reserved where real usage is counted and settled afterwards (Anthropic).
    """
    return Charge(tokens_in, tokens_out, min(tokens_in + tokens_out, TOKENS_MAX))
