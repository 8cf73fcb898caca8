"""What the mock provider says: a pure function of the question, so that a reply on the wrong row shows.

Rules of this file:
1. No state, no clock, no randomness: tests work out the expected answer by the same functions.
2. Answers are crude on purpose; the labels chosen by keywords serve demonstrations, not evaluations.
"""

import re
from array import array
from functools import lru_cache
from hashlib import blake2b, shake_256

import msgspec

from engine.mock.schemas import Draw, fitting_value

_CHOICE = re.compile(r"^[^\S\n]*choose one of:[^\S\n]*(\S[^\n]*)$", re.IGNORECASE | re.MULTILINE)
_WORD = re.compile(r"[a-z]+")
_FILLER = [
    "the",
    "answer",
    "to",
    "this",
    "row",
    "depends",
    "on",
    "its",
    "prompt",
    "alone",
    "and",
    "is",
    "made",
    "of",
    "plain",
    "words",
    "that",
    "carry",
    "no",
    "meaning",
    "beyond",
    "their",
    "length",
    "so",
    "every",
    "reply",
    "can",
    "be",
    "told",
    "apart",
    "by",
    "the",
    "first",
    "word",
    "while",
    "rest",
    "only",
    "adds",
    "weight",
]

# Stem found in a label -> words of a text that speak for the label. Written for fields of computing.
_HINTS: dict[str, str] = {
    "network": "socket http https url host port server client address ip tcp udp protocol smtp ftp dns packet",
    "web": "http https url html cookie browser cgi wsgi request response link form query",
    "internet": "http url mail message mime email header smtp imap pop ftp attachment",
    "text": "string text character unicode encode encoding line word pattern regex match format whitespace",
    "string": "string character text substring prefix suffix strip join split case",
    "file": "file path directory folder filename open read write stream tempfile archive zip tar symlink",
    "storage": "database pickle shelve sqlite row table store dump load persist archive compress",
    "database": "database sql sqlite table row query cursor transaction commit dbm column",
    "concurren": "thread lock process async await coroutine task event semaphore queue executor future loop",
    "parallel": "thread process pool worker task future executor map shared",
    "math": "number float integer decimal fraction sum mean sqrt sine cosine log random complex digit",
    "numer": "number float integer decimal round digit precision",
    "statist": "mean median variance sample distribution deviation",
    "crypt": "hash digest key cipher signature hmac secret sha random token certificate ssl",
    "security": "ssl tls certificate password permission secret token hash key auth login",
    "test": "test assert mock fail failure suite case fixture doctest expect",
    "debug": "trace traceback breakpoint debugger profile stack frame exception log warning",
    "compil": "compile bytecode opcode syntax token ast parser node grammar code expression",
    "language": "ast class function method module import attribute type object descriptor generic annotation",
    "program": "class function method module attribute type object call argument decorator",
    "pars": "parse parser token grammar syntax element node",
    "graphic": "window widget button canvas color font image draw turtle screen",
    "interface": "window widget button menu dialog event key mouse command argument option prompt",
    "operating": "process signal pid user group environment permission fork exec platform system kernel",
    "system": "process signal pid environment platform memory interpreter path file permission",
    "structure": "list dict set queue heap tree sequence mapping item element sort index key iterator",
    "collection": "list dict set queue heap sequence mapping item element iterator",
    "algorithm": "sort heap bisect search iterate order compare permutation combination",
    "time": "time date clock calendar day month year hour second timezone timestamp",
    "date": "date day month year calendar week datetime",
    "media": "audio sound wave sample image video frame color channel",
    "pack": "package module install version distribution wheel import metadata loader",
    "serial": "json pickle marshal encode decode dump load serialize bytes",
}


def prompt_id(text: str) -> str:
    """Sixteen hex digits that stand for a question."""
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def whole_text(prompt: str, system: str = "") -> str:
    """What the answer depends on: the system text, if any, and the texts of all other turns joined by line breaks."""
    return f"{system}\n{prompt}" if system else prompt


def expected_answer(prompt: str, system: str = "", *, template: str = "", words: int = 12) -> str:
    """The text the mock provider answers to ``prompt``, before any ``max_tokens`` cuts it.

    A line ``Choose one of: a, b, c`` in either text makes it one of those labels. Else ``template`` with
    ``{id}`` and ``{prompt}`` replaced, or by default ``mock-<id>`` and ``words`` words.
    """
    text = whole_text(prompt, system)
    labels = offered_labels(text)
    if labels:
        return chosen_label(text, labels)
    if template:
        return template.replace("{id}", prompt_id(text)).replace("{prompt}", prompt)
    return _default_answer(prompt_id(text), words)


def expected_object(prompt: str, system: str, schema: dict[str, object]) -> str:
    """The JSON text answered where a schema is asked for: it fits the schema and depends on the prompt."""
    text = whole_text(prompt, system)
    labels = offered_labels(text)
    preferred = chosen_label(text, labels) if labels else None
    value = fitting_value(schema, Draw(text, preferred=preferred))
    return msgspec.json.encode(value).decode()


def cut_to(text: str, tokens_max: int | None) -> tuple[str, bool]:
    """The answer as far as ``tokens_max`` reaches at four characters a token, and whether it was cut."""
    if tokens_max is None or len(text) <= tokens_max * 4:
        return text, False
    return text[: max(0, tokens_max) * 4], True


def tokens_of(chars: int) -> int:
    """Tokens of a text of so many characters, four to one, rounded up."""
    return (chars + 3) // 4


def expected_embedding(text: str, dims: int) -> list[float]:
    """A vector in [-1, 1) that depends on the text; each number is exact as a 32-bit float."""
    raw = array("h", shake_256(text.encode("utf-8", "replace")).digest(2 * dims))
    return [value / 32768 for value in raw]


def offered_labels(text: str) -> tuple[str, ...]:
    """The labels of a line ``Choose one of: a, b, c``; empty when there is no such line."""
    if "hoose one of:" not in text and "HOOSE ONE OF:" not in text:
        return ()
    found = _CHOICE.search(text)
    if found is None:
        return ()
    labels = (label.strip().rstrip(".").strip() for label in found.group(1).split(","))
    return tuple(label for label in labels if label)


def chosen_label(text: str, labels: tuple[str, ...]) -> str:
    """The label whose words and hints occur most in the text, the offering line left out; a tie goes by hash."""
    rest = _CHOICE.sub("", text, count=1).lower()
    weights = _weights(labels)
    scores = [0] * len(labels)
    for word in _WORD.findall(rest):
        for index, weight in weights.get(word, ()):
            scores[index] += weight
    best = max(scores)
    tied = [label for label, score in zip(labels, scores, strict=True) if score == best]
    return tied[int(prompt_id(text), 16) % len(tied)]


def _default_answer(text_id: str, words: int) -> str:
    start = int(text_id[:4], 16) % len(_FILLER)
    chosen = (_FILLER[(start + index) % len(_FILLER)] for index in range(words))
    return " ".join((f"mock-{text_id}", *chosen))


@lru_cache(maxsize=64)
def _weights(labels: tuple[str, ...]) -> dict[str, list[tuple[int, int]]]:
    """Word -> which labels it speaks for, and how loudly. A label's own words count three times."""
    weights: dict[str, dict[int, int]] = {}
    for index, label in enumerate(labels):
        lower = label.lower()
        spoken: dict[str, int] = {}
        for stem, hints in _HINTS.items():
            if stem in lower:
                spoken.update(dict.fromkeys(hints.split(), 1))
        spoken.update({word: 3 for word in _WORD.findall(lower) if len(word) > 2 and word != "and"})
        for word, weight in spoken.items():
            for form in (word, f"{word}s"):
                weights.setdefault(form, {})[index] = weight
    return {word: list(by_label.items()) for word, by_label in weights.items()}
