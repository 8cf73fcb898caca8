"""Every message between our processes: a table of tagged, versioned, size-capped msgpack arrays.

Rules of this file:
1. A frame is ``[VERSION, tag, *fields]``. A frame that is too large, of another version, of an unknown tag
   or with a field of the wrong type raises ``BadFrame`` and changes nothing.
2. Only built-in types inside; nothing is ever pickled.
3. Adding a field or a message means raising VERSION: both ends always come from one installation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgpack
import msgspec

VERSION = 4


class BadFrame(ValueError):
    """A frame that is none of ours; the receiver drops and counts it."""


class Message(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Base of all messages; fields travel in order of definition."""


# --- coordinator and worker ---------------------------------------------------------------------------


class RowLine(NamedTuple):
    """One row in a lease. ``deaths``: worker deaths it was in flight at."""

    row: int
    line: int
    payload: bytes


class OutcomeLine(NamedTuple):
    """One finished row; the fields of ``core.model.Outcome``."""

    row: int
    lease: int
    ok: bool
    kind: str
    record: bytes
    attempts: int
    latency_ms: float
    tokens_in: int
    tokens_out: int


class Hello(Message, frozen=True):
    """Worker to coordinator, first of all. A wrong token or slot is answered with Refuse."""

    token: str
    slot: int
    pid: int


class Welcome(Message, frozen=True):
    """Coordinator to worker: begin. ``in_flight``: this worker's share; see Tune."""

    in_flight: int
    gate: int


class Refuse(Message, frozen=True):
    """The peer is not wanted; ``reason`` is a sentence. The peer exits."""

    reason: str


class Want(Message, frozen=True):
    """Worker to coordinator: credit for that many more rows."""

    rows: int


class Lease(Message, frozen=True):
    """Coordinator to worker: rows to work on. Recorded in the store before it is sent."""

    lease: int
    rows: list[RowLine]


class Tally(NamedTuple):
    """What a worker did since its last tally; all of them are added up by the coordinator."""

    requests: int = 0  # requests sent
    retries: int = 0  # requests that repeat an earlier one of the same row
    throttled: int = 0  # replies that said 429
    replies: int = 0  # of any status
    ok_replies: int = 0  # 2xx
    tokens_in: int = 0
    tokens_out: int = 0
    charged_tokens: int = 0  # what the quota was charged
    latencies: Sequence[tuple[float, int]] = ()  # (ms rounded to 3 digits, how many), successes only
    in_flight: int = 0  # now
    waiting: int = 0  # rows that wait for permits, now
    sleeping: int = 0  # rows that wait for a retry, now
    starved_s: float = 0.0  # since when the limiter has not been reached, 0 when it is


class Outcomes(Message, frozen=True):
    """Worker to coordinator: finished rows (maybe none), and what was done since the last such message."""

    lines: list[OutcomeLine]
    tally: Tally
    want: int  # further credit, as in Want


class Beat(Message, frozen=True):
    """Either way: I am alive."""


class Tune(Message, frozen=True):
    """Coordinator to worker: this worker's share of the in-flight limit, and of the gate.

    ``gate`` is a second, lower bound until the endpoint's first 2xx; -1 opens it, 0 pauses the worker.
    ``tpm``: a call that costs more can never pass; 0 where there is no such limit.
    """

    in_flight: int
    gate: int
    tpm: int = 0


class Drain(Message, frozen=True):
    """Coordinator to worker: start nothing more, give back unsent rows, finish what is in flight."""


class Released(Message, frozen=True):
    """Worker to coordinator: these leased rows are not in flight and are given back, because of a drain."""

    rows: list[int]


class Drained(Message, frozen=True):
    """Worker to coordinator: nothing is in flight any more and every outcome was sent. Ends a drain."""


class Event(Message, frozen=True):
    """Worker to coordinator: a failure that concerns the run. ``kind`` is an ErrorKind value."""

    kind: str
    message: str
    status: int


class UseLimiter(Message, frozen=True):
    """Coordinator to worker that began without one: from now on calls need the permits of this limiter."""

    socket: str
    token: str


class Close(Message, frozen=True):
    """Coordinator to worker: all is done, exit."""


# --- engine ctl and coordinator -------------------------------------------------------------------------


class Control(Message, frozen=True):
    """``engine ctl`` to coordinator: words as typed, like ``set rpm=500``."""

    token: str
    words: list[str]


class Controlled(Message, frozen=True):
    """Coordinator to ``engine ctl``: what came of it, one sentence."""

    ok: bool
    says: str


# --- limiter --------------------------------------------------------------------------------------------


class Join(Message, frozen=True):
    """Worker to limiter, first of all, and again after either restarts.

    ``epoch`` is the limiter the worker knew last, 0 for none; ``largest`` the largest token charge it was
    ever granted: a limiter that starts anew begins at minus the largest of all.
    """

    token: str
    run: int  # its coordinator's process id; nothing is granted before that one has attached
    slot: int
    pid: int
    epoch: int
    largest: int


class Joined(Message, frozen=True):
    """Limiter to worker. ``epoch`` differs for every start of a limiter.

    A worker's calls are numbered from 0 in each epoch, in the order of its queue: ``told`` of them the
    limiter has heard of, the first ``given`` of them may be sent. A worker that finds less than it told sends
    the rest again.
    """

    epoch: int
    told: int
    given: int
    generation: int


class Rejoin(Message, frozen=True):
    """Limiter to worker: I do not know you, or something between us was lost. Join, please."""


class Need(Message, frozen=True):
    """Worker to limiter: calls that are ready to go now, in order: their token charges.

    ``first``: the number of the first of them; what the limiter knows already is not queued twice.
    ``settled``: tokens to charge in addition (positive) or to give back (negative, only where the provider
    counts real usage) for calls that ended, summed up.
    """

    first: int
    charges: list[int]
    settled: int


class Abandon(Message, frozen=True):
    """Worker to limiter: calls numbered below ``upto`` are not wanted any more."""

    upto: int


class Grant(Message, frozen=True):
    """Limiter to worker: your calls numbered below ``upto`` may be sent now. Unused permits are spent."""

    upto: int
    generation: int  # of the pause counter; goes back in Throttled


class Throttled(Message, frozen=True):
    """Worker to limiter: a 429 for a call granted in ``generation``, with the server's wait (-1: none said)."""

    wait_s: float
    generation: int


class TooDear(Message, frozen=True):
    """Limiter to worker: a call of yours costs more than the limit on tokens and can never pass. Abandon it."""

    tpm: int


class Attach(Message, frozen=True):
    """Coordinator to limiter, first of all, and again to change its limits. 0: none declared.

    The lowest limit that any attached run declared holds for all. ``share`` weighs this run's part.
    """

    token: str
    run: int
    label: str
    rpm: int
    tpm: int
    share: float


class Leave(Message, frozen=True):
    """Coordinator to limiter: this run needs it no more."""


class Bound(NamedTuple):
    """A limit that holds, 0 for none, and the lowest and the highest that is declared, each with whose it is."""

    limit: int = 0
    lowest: int = 0
    lowest_by: str = ""
    highest: int = 0
    highest_by: str = ""


class Gauge(Message, frozen=True):
    """Limiter to coordinator: about once a second while something changes, at once when a limit does."""

    granted_requests: int  # since the limiter's start
    granted_tokens: int
    waiting: int
    paused_s: float  # how long the pause still lasts, 0 when there is none
    pauses: int
    largest: int
    rpm: Bound
    tpm: Bound


class Inspect(Message, frozen=True):
    """Anybody who knows the token, to limiter: how do you stand?"""

    token: str


class AttachedRun(NamedTuple):
    """One run as its limiter sees it."""

    pid: int
    label: str
    rpm: int
    tpm: int
    share: float
    workers: int
    waiting: int
    granted_requests: int
    granted_tokens: int


class Report(Message, frozen=True):
    """Limiter, to who inspects it. ``used``: of the last period."""

    pid: int
    origin: str
    model: str
    uptime_s: float
    period_s: float
    rpm: int
    tpm: int
    used_requests: int
    used_tokens: int
    waiting: int
    paused_s: float
    pauses: int
    runs: list[AttachedRun]


TAGS: dict[int, type[Message]] = {
    1: Hello,
    2: Welcome,
    3: Refuse,
    4: Want,
    5: Lease,
    6: Outcomes,
    7: Beat,
    8: Tune,
    9: Drain,
    10: Released,
    11: Event,
    12: Close,
    13: Drained,
    14: Control,
    15: Controlled,
    16: UseLimiter,
    20: Join,
    21: Joined,
    22: Need,
    23: Grant,
    24: Throttled,
    25: Attach,
    26: Gauge,
    27: Rejoin,
    28: Abandon,
    29: Leave,
    30: TooDear,
    31: Inspect,
    32: Report,
}
_TAG_OF: dict[type[Message], int] = {cls: tag for tag, cls in TAGS.items()}

_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack
_fields = msgspec.structs.astuple


def encode(message: Message) -> bytes:
    """The frame of a message."""
    frame: bytes = _pack((VERSION, _TAG_OF[type(message)], *_fields(message)))
    return frame


def decode(frame: bytes, *, bytes_max: int) -> Message:
    """The message in a frame. Raises BadFrame for anything that is not exactly one of ours."""
    if len(frame) > bytes_max:
        raise BadFrame(f"a frame of {len(frame)} bytes is over the cap of {bytes_max}")
    try:
        parts = msgpack.unpackb(frame, raw=False, strict_map_key=True, use_list=True)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise BadFrame(f"not a msgpack frame: {error}") from None
    if not isinstance(parts, list) or len(parts) < 2:
        raise BadFrame("not an array of version, tag and fields")
    version, tag = parts[0], parts[1]
    if version != VERSION:
        raise BadFrame(f"protocol version {version!r}, this side speaks {VERSION}")
    cls = TAGS.get(tag) if isinstance(tag, int) else None
    if cls is None:
        raise BadFrame(f"unknown message tag {tag!r}")
    try:
        return msgspec.convert(parts[2:], cls, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise BadFrame(f"{cls.__name__}: {error}") from None
