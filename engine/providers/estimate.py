"""What a call will cost in tokens, before it is sent, by counting characters.

Rules of this file:
1. Cheap: well under a microsecond for a kilobyte of ASCII; nothing is tokenised.
2. Rather too much than too little where the script makes a difference.
"""

from engine.core.model import Usage

TOKENS_MAX = 10**9


def text_tokens(text: str) -> int:
    """Tokens of a text: a quarter of its characters for ASCII (OpenAI's own rule of thumb for its limits).

    Measured with o200k: Chinese and Japanese have about 1.4 to 1.6 characters a token, Cyrillic and Arabic 3 to 5;
    a quarter of the UTF-8 bytes is within a few per cent for the former and above the truth for the latter.
    """
    length = len(text)
    if not text.isascii():
        length = len(text.encode("utf-8", "surrogatepass"))
    return -(-length // 4)


def clamp(value: object) -> int:
    """A token count as a reply states it: 0..10^9, or -1 for what is no count."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return -1
    return int(max(0, min(value, TOKENS_MAX)))


def usage_of(tokens_in: object, tokens_out: object, cached: object = None) -> Usage:
    """A reply's usage, clamped."""
    return Usage(clamp(tokens_in), clamp(tokens_out), clamp(cached))
