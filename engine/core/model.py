"""The nouns every floor shares: Target, Ask, Call, Reply, Answer, Failure, Usage, Outcome.

Rules of this file:
1. Data only: frozen, slotted, no behaviour beyond trivial arithmetic. No I/O, no clock.
2. Names are the glossary's: row, job, run, step, call, attempt, reply, outcome, lease, grant, quota.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from engine.core.errors import ErrorKind

RowValues = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """What all calls of a job have in common: where they go and how they ask."""

    provider: str
    base_url: str = ""  # as the user gave it, or the provider's default when empty
    endpoint: str = "chat"  # chat, responses, embeddings, completions
    model: str = ""
    api_version: str = ""  # azure only; empty selects the v1 URLs
    max_tokens: int | None = None
    temperature: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)  # further body fields, merged last
    schema: Mapping[str, Any] | None = None  # JSON schema of the answer
    method: str = "POST"  # provider http
    select: str = ""  # provider http: path into a JSON reply, like choices.0.message.content
    stream: bool = False  # load tests: the answer is to come piece by piece


def names_own_origins(url: str) -> bool:
    """Whether a URL template begins with ``{{``: then scheme, host and port are each row's own, and no secret goes along."""
    return url.lstrip().startswith("{{")


@dataclass(frozen=True, slots=True)
class Ask:
    """One rendered question, before a provider makes a call of it.

    Exactly one of ``prompt``, ``messages``, ``body`` and ``url`` leads: a rendered prompt, a ready
    conversation, the body of an openai-batch line, or a rendered plain HTTP request.
    """

    prompt: str | None = None
    system: str | None = None
    messages: list[dict[str, Any]] | None = None
    body: Mapping[str, Any] | None = None  # openai-batch: wins over the target's own settings
    path: str = ""  # openai-batch: the line's url, like /v1/chat/completions
    url: str = ""  # provider http: absolute, already escaped
    headers: tuple[tuple[str, str], ...] = ()  # provider http: rendered, without secrets
    content: bytes | None = None  # provider http: rendered body


class Charge(NamedTuple):
    """What a call costs in the quota before it is sent: one request and ``tokens`` tokens."""

    tokens_in: int = 0
    tokens_out: int = 0
    tokens: int = 0  # by the provider's own rule; what TPM is counted in


NO_CHARGE = Charge()


class Usage(NamedTuple):
    """Token counts as the reply states them, clamped to 0..10^9; -1 where it does not state them."""

    tokens_in: int = -1
    tokens_out: int = -1
    tokens_cached: int = -1


UNKNOWN_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Call:
    """One request a step wants sent. ``headers`` hold no secret; keys are added where it is sent.

    Providers reuse one ``headers`` tuple and one ``url`` string for all rows wherever they can: the
    sender recognises them by identity and prepares them once.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    charge: Charge = NO_CHARGE


class Reply(NamedTuple):
    """What came back, whole: header names in lower case, body decompressed and under the cap."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that holds what was asked for."""

    value: Any  # text of the answer, list of floats for embeddings, JSON value for a selected path
    usage: Usage = UNKNOWN_USAGE
    model: str = ""  # as the reply names it
    finish: str = ""  # the provider's own word, e.g. stop, length, end_turn


@dataclass(frozen=True, slots=True)
class Failure:
    """A reply, or the lack of one, that is no answer."""

    kind: ErrorKind
    message: str  # at most a few hundred characters, no secrets
    wait_s: float | None = None  # the server's own wait, already parsed and capped
    usage: Usage = UNKNOWN_USAGE  # a refused or truncated reply may still be billed
    status: int = 0  # 0 when no reply came
    trace: str = ""  # of a function that raised: its traceback, for the store


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row: ready to be committed. ``record`` is the row's output record as JSON bytes."""

    row: int  # index in the input, from 0
    lease: int
    ok: bool
    kind: str  # ErrorKind value, empty when ok
    record: bytes
    attempts: int  # requests sent for this row, over all its calls
    latency_ms: float  # of the last attempt
    tokens_in: int
    tokens_out: int
