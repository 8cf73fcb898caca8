"""Reading JSON that nobody vouches for: tolerant decoding, clean texts, clamped counts.

Rules of this file:
1. Nothing here raises for what a reply holds. What cannot be read comes back as a sentence about it.
2. A text on its way into a message is short, on one line and without characters that steer a terminal.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from engine.core.errors import ErrorKind
from engine.core.model import UNKNOWN_USAGE, Failure, Reply, Usage
from engine.core.nesting import ANSWER_NESTING_MAX, is_nested_deeper
from engine.providers.estimate import TOKENS_MAX

MESSAGE_CHARS_MAX = 500
MODEL_CHARS_MAX = 200
_EXCERPT_CHARS = 2_000  # of a foreign text that is looked at to make a message
_EXCERPT_BYTES = 8_000
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,300})", re.IGNORECASE)
_TAG = re.compile(
    r"<(?:style|script)\b.{0,4000}?</(?:style|script)>|<[^>]{0,500}>?", re.IGNORECASE | re.DOTALL
)
# Some servers repeat the key they refuse.
_KEY_LIKE = re.compile(r"\b(?:sk-|Bearer\s{1,3}|api[-_ ]?key[=:]\s?)[^\s,;\"']{6,}", re.IGNORECASE)

_decode = msgspec.json.Decoder().decode
JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Unreadable(NamedTuple):
    """Why a body is no JSON, as the end of a sentence."""

    why: str


def read_json(body: bytes) -> Any | Unreadable:
    """Any JSON value. A text cut inside an emoji (half a surrogate pair) is mended with U+FFFD.

    Numbers that no machine holds come as infinity or as big integers; NaN is accepted where a server writes it.
    """
    if is_nested_deeper(body, ANSWER_NESTING_MAX):
        return Unreadable("is nested too deeply")
    try:
        return _decode(body)
    except JSON_ERRORS:
        pass
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=float, parse_int=_integer)
        try:
            msgspec.json.encode(value)
        except UnicodeEncodeError:  # what msgspec refused and json let through
            value = _mended(value)
        return value
    except UnicodeDecodeError:
        return Unreadable("is not UTF-8")
    except RecursionError:
        return Unreadable("is nested too deeply")
    except ValueError:
        return Unreadable(_what_it_is(body))


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 400 else float(text)  # longer than any float: infinity, without the work


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_mended(element) for element in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(element) for key, element in value.items()}
    return value


def _what_it_is(body: bytes) -> str:
    """What a body is that should have been JSON."""
    if not body.strip():
        return "is empty"
    if body.lstrip().startswith((b"data:", b"event:")):
        return "is an event stream, though none was asked for"
    return f"is not JSON: {plain_text(body)}"


def plain_text(body: bytes) -> str:
    """A short text for a body that is no JSON; of an HTML page its title, else its words."""
    text = body[:_EXCERPT_BYTES].decode("utf-8", "replace")
    start = text.lstrip()[:200].lower()
    if not (start.startswith("<") or "<html" in start):
        return clean(text)
    title = _TITLE.search(text)
    said = clean(title.group(1) if title is not None else _TAG.sub(" ", text), 200)
    return f"an HTML page, {said!r}" if said else "an HTML page"


def clean(text: str, chars_max: int = MESSAGE_CHARS_MAX) -> str:
    """``text`` on one line: white space and unprintable characters become single spaces; cut to ``chars_max``."""
    text = text[:_EXCERPT_CHARS]
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    text = _KEY_LIKE.sub("[secret]", " ".join(text.split()))
    return text if len(text) <= chars_max else text[: chars_max - 4] + " ..."


def text_in(value: Any) -> str:
    """``value`` where it is a string, else ""."""
    return value if isinstance(value, str) else ""


def dict_in(value: Any) -> Mapping[str, Any]:
    """``value`` where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def name_in(value: Any) -> str:
    """A model's name as a reply states it, cut to MODEL_CHARS_MAX."""
    return value[:MODEL_CHARS_MAX] if isinstance(value, str) else ""


def count(value: Any) -> int:
    """A token count as a reply states it; -1 for anything that is none. No call has more than TOKENS_MAX.

    One that says so is not believed at all: cut to anything, it would still shut a quota for a minute.
    """
    if type(value) in (int, float) and 0 <= value <= TOKENS_MAX:  # not nan
        return int(value)
    return -1


def total(*counts: int) -> int:
    """The sum of counts that are stated (not -1), cut to TOKENS_MAX; -1 where none is."""
    stated = [number for number in counts if number >= 0]
    return min(sum(stated), TOKENS_MAX) if stated else -1


def bad_reply(reply: Reply, why: str, usage: Usage = UNKNOWN_USAGE) -> Failure:
    """A 2xx that misses the answer."""
    return Failure(ErrorKind.BAD_REPLY, clean(why), usage=usage, status=reply.status)


def object_of(reply: Reply) -> dict[str, Any] | Failure:
    """The body of a 2xx as an object, alone or in a list (Gemini wraps errors so, also inside a 200)."""
    body = read_json(reply.body)
    if isinstance(body, Unreadable):
        return bad_reply(reply, f"the reply {body.why}")
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    return body if isinstance(body, dict) else bad_reply(reply, "the reply is JSON, but no object")


def refused(reply: Reply, why: str, usage: Usage = UNKNOWN_USAGE) -> Failure:
    """A 2xx by which a model or a filter declines."""
    return Failure(ErrorKind.CONTENT_REFUSED, clean(why), usage=usage, status=reply.status)
