"""All knobs of the mock provider as one frozen tree, and the short texts that stand for parts of it.

Rules of this file:
1. A value that cannot be served is refused here, with a sentence, never later while a request waits.
2. The tree is plain data: it crosses process borders as JSON and comes back equal.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import msgspec

QUOTA_KINDS = ("bucket", "sliding", "second", "minute")
CHARGES = ("auto", "openai", "azure", "anthropic")
SHAPES = ("", "openai", "azure", "anthropic", "ollama", "gemini", "mistral", "vllm")
SHAPE_ALIASES = {"list": "gemini", "flat": "mistral", "string": "ollama", "int_code": "vllm"}
FAULT_NAMES = (
    "storm", "freeze", "brownout", "html502", "reset", "reset_body", "truncate", "hang", "slow",
    "malformed", "empty", "wrong200", "array200", "redirect", "huge", "endless", "gzip_bomb",
    "insufficient_quota", "too_large", "usage", "refusal", "content_filter", "content_filter_400",
    "stale", "extra_reply", "wrong_length", "many_headers", "sse_cut", "sse_error",
)  # fmt: skip  # besides these, any status from 400 to 599 is a fault's name


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    """One quota model with its limits per period; ``None`` leaves that unit without a limit."""

    kind: str = "sliding"  # bucket, sliding, second, minute
    rpm: int | None = None
    tpm: int | None = None
    input_tpm: int | None = None  # Anthropic's ITPM
    output_tpm: int | None = None  # Anthropic's OTPM
    period_s: float = 60.0  # what "per minute" means; tests shorten it
    tolerance: float = 0.1  # kind second: the share above limit/60 that one second may take
    count_refused: bool = False  # a refused request uses quota too

    def __post_init__(self) -> None:
        _refuse_unless(self.kind in QUOTA_KINDS, f"quota kind {self.kind!r}: use {', '.join(QUOTA_KINDS)}")
        _refuse_unless(self.period_s > 0, f"quota period_s {self.period_s} must be above 0")
        _refuse_unless(self.tolerance >= 0, f"quota tolerance {self.tolerance} must not be negative")
        for name in ("rpm", "tpm", "input_tpm", "output_tpm"):
            limit = getattr(self, name)
            _refuse_unless(limit is None or limit >= 1, f"quota {name} {limit} must be at least 1")


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One way to misbehave, and which requests it strikes. All conditions must hold.

    Times count in seconds from the first request after the start (or the last reset).
    """

    name: str  # one of FAULT_NAMES, or a status like 503
    probability: float = 1.0
    nth: tuple[int, ...] = ()  # strikes exactly these requests, counted from 1
    start_s: float = 0.0
    end_s: float | None = None
    attempts: int = 0  # strikes only the first so many attempts of each row; 0 is any
    match: str = ""  # strikes only requests whose body holds this text
    retry_after: str = ""  # the Retry-After header as sent; "" is the provider's own, "none" leaves it out
    shape: str = ""  # of an error body: a provider's name, or list, flat, string, int_code
    url: str = ""  # redirect: where to
    wait_s: float = 0.1  # slow: between two bytes of the body
    factor: float = 20.0  # brownout: latency times this
    size: int = 64 * 1024 * 1024  # huge, gzip_bomb: bytes of the body, unpacked
    value: str = ""  # usage: what stands in place of each count, or "missing"; "" takes turns

    def __post_init__(self) -> None:
        known = self.name in FAULT_NAMES or (self.name.isdigit() and 400 <= int(self.name) <= 599)
        _refuse_unless(
            known, f"fault {self.name!r}: use a status from 400 to 599 or one of {', '.join(FAULT_NAMES)}"
        )
        _refuse_unless(0 <= self.probability <= 1, f"fault probability {self.probability} must be in 0..1")
        _refuse_unless(
            self.wait_s >= 0 and self.factor >= 0, f"fault {self.name}: no negative wait or factor"
        )
        _refuse_unless(self.name != "redirect" or bool(self.url), "fault redirect needs url=…")
        _refuse_unless("\r" not in self.url + self.retry_after, "a fault's header value must be one line")
        shape = SHAPE_ALIASES.get(self.shape, self.shape)
        _refuse_unless(shape in SHAPES, f"error shape {self.shape!r}: use {', '.join(SHAPES[1:])}")
        object.__setattr__(self, "shape", shape)


@dataclass(frozen=True, slots=True)
class MockSettings:
    """Everything the mock provider can be told. The defaults give an instant, faultless, unlimited one."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: any free one
    tls_cert: str = ""  # paths of PEM files; both or none
    tls_key: str = ""
    latency: str = "0ms"  # 200ms, 0.2s, lognormal:200:0.3 (median ms, sigma), uniform:100:300 (ms)
    tokens_per_s: float = 0.0  # speed of the answer after the latency; 0: all at once
    quota: tuple[QuotaSettings, ...] = ()  # all of them hold at once
    charge: str = "auto"  # how tokens are charged: openai, azure, anthropic; auto goes by the path
    retry_after_ms: bool = False  # OpenAI-style 429s carry retry-after-ms too (Azure's always do)
    capacity: int = 0  # requests at once; 0: any number
    capacity_steps: tuple[
        tuple[float, int], ...
    ] = ()  # other capacities, from so many seconds after the first request
    capacity_status: int = 429  # or 503
    faults: tuple[FaultRule, ...] = ()
    seed: int = 0
    answer: str = ""  # template of every answer: {id} and {prompt} are replaced; "" is mock-<id> and words
    answer_words: int = 12
    embedding_dims: int = 16
    error_shape: str = ""  # "" goes by the path
    api_key: str = ""  # when set, any other key gets 401
    models: tuple[str, ...] = ()  # when set, any other model gets 404
    log: bool = False  # keep a record of every request for GET /log
    row_key: str = "body"  # what identifies a row: body, or prompt (its text only)
    body_bytes_max: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        parse_latency(self.latency)
        _refuse_unless(self.charge in CHARGES, f"charge {self.charge!r}: use {', '.join(CHARGES)}")
        _refuse_unless(self.row_key in ("body", "prompt"), f"row_key {self.row_key!r}: use body or prompt")
        _refuse_unless(bool(self.tls_cert) == bool(self.tls_key), "TLS needs both tls_cert and tls_key")
        _refuse_unless(self.capacity_status in (429, 503), "capacity_status must be 429 or 503")
        _refuse_unless(0 < self.embedding_dims <= 4096, "embedding_dims must be in 1..4096")
        _refuse_unless(
            self.tokens_per_s >= 0 and self.answer_words >= 0, "no negative answer speed or length"
        )
        shape = SHAPE_ALIASES.get(self.error_shape, self.error_shape)
        _refuse_unless(shape in SHAPES, f"error shape {self.error_shape!r}: use {', '.join(SHAPES[1:])}")
        object.__setattr__(self, "error_shape", shape)

    def capacity_after(self, seconds: float) -> int:
        """How many requests at once are taken so long after the first one; 0: any number."""
        capacity = self.capacity
        for since_s, step in self.capacity_steps:
            if seconds >= since_s:
                capacity = step
        return capacity

    def as_json(self) -> bytes:
        """One line of JSON that ``settings_from`` reads back."""
        return msgspec.json.encode(self)


def parse_capacity(text: str) -> tuple[int, tuple[tuple[float, int], ...]]:
    """``50`` or, changing with the seconds since the first request, ``50,20:200,40:20``. Raises ValueError."""
    first, *later = text.split(",")
    try:
        steps = [(float(since), int(step)) for since, step in (part.split(":") for part in later)]
        capacity = int(first)
    except ValueError:
        raise ValueError(f"capacity {text!r}: use a number, or like 50,20:200,40:20") from None
    _refuse_unless(min([capacity, *(step for _, step in steps)]) >= 0, f"capacity {text!r} is negative")
    return capacity, tuple(sorted(steps))


def _refuse_unless(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(f"mock settings: {sentence}")


def settings_from(values: Mapping[str, Any]) -> MockSettings:
    """Settings of a JSON object; a fault may be a text as ``parse_fault`` reads. Raises ValueError."""
    values = dict(values)
    if unknown := set(values) - {field.name for field in fields(MockSettings)}:
        raise ValueError(f"mock settings: there is no {', '.join(sorted(unknown))}")
    if isinstance(values.get("faults"), list | tuple):
        values["faults"] = [parse_fault(one) if isinstance(one, str) else one for one in values["faults"]]
    try:
        return msgspec.convert(msgspec.to_builtins(values), MockSettings)
    except msgspec.ValidationError as error:
        raise ValueError(f"mock settings: {error}") from error


def changed(settings: MockSettings, values: Mapping[str, Any]) -> MockSettings:
    """The same settings with some values replaced, for a server that runs. Raises ValueError."""
    fixed = {"host", "port", "tls_cert", "tls_key"} & set(values)
    if fixed:
        raise ValueError(f"mock settings: {', '.join(sorted(fixed))} cannot change while the server runs")
    return settings_from({**msgspec.to_builtins(settings), **values})


def parse_fault(text: str) -> FaultRule:
    """``NAME[=PROBABILITY][,key=value…]``: ``429=0.1``, ``storm,end_s=60,retry_after=5``, ``reset,nth=3+7``.

    Raises ValueError for an unknown name, key or number.
    """
    first, *rest = text.split(",")
    name, _, probability = first.strip().partition("=")
    values: dict[str, Any] = {"name": name.strip()}
    if probability:
        values["probability"] = probability
    for part in rest:
        key, equals, value = part.strip().partition("=")
        _refuse_unless(bool(equals), f"fault {text!r}: {part!r} is not key=value")
        values[key] = value.split("+") if key == "nth" else value
    if unknown := set(values) - {field.name for field in fields(FaultRule)}:
        raise ValueError(f"mock settings: a fault has no {', '.join(sorted(unknown))}")
    try:
        return msgspec.convert(values, FaultRule, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"mock settings: fault {text!r}: {error}") from error


def parse_latency(text: str) -> Callable[[random.Random], float]:
    """A sampler of seconds for ``200ms``, ``0.2s``, ``lognormal:200:0.3`` or ``uniform:100:300``.

    Plain numbers are milliseconds. Raises ValueError with a sentence.
    """
    kind, *arguments = text.strip().split(":")
    try:
        if kind == "lognormal" and len(arguments) == 2:
            median_s, sigma = _seconds(arguments[0]), float(arguments[1])
            _refuse_unless(median_s > 0 and sigma >= 0, "lognormal latency needs a median above 0")
            mu = math.log(median_s)
            return lambda rng: rng.lognormvariate(mu, sigma)
        if kind == "uniform" and len(arguments) == 2:
            low_s, high_s = _seconds(arguments[0]), _seconds(arguments[1])
            return lambda rng: rng.uniform(low_s, high_s)
        if not arguments:
            constant_s = _seconds(kind)
            return lambda rng: constant_s
    except ValueError as error:
        raise ValueError(f"mock settings: latency {text!r}: {error}") from error
    raise ValueError(
        f"mock settings: latency {text!r} is none of 200ms, 0.2s, lognormal:MEDIAN:SIGMA, uniform:LOW:HIGH"
    )


def _seconds(text: str) -> float:
    text = text.strip()
    if text.endswith("ms"):
        value = float(text[:-2]) / 1000
    elif text.endswith("s"):
        value = float(text[:-1])
    else:
        value = float(text) / 1000
    if not 0 <= value <= 86_400:
        raise ValueError("a latency lies between 0 and a day")
    return value
