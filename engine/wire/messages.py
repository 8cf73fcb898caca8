"""Every message between our processes: a table of tagged, versioned, size-capped msgpack arrays.

Rules of this file:
1. A frame is ``[VERSION, tag, *fields]``. A frame that is too large, of another version, of an unknown tag
   or with a field of the wrong type raises ``BadFrame`` and changes nothing.
2. Only built-in types inside; nothing is ever pickled.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgpack
import msgspec

from engine.core.quota import NO_RATES, Rates
from engine.wire.limiter_messages import (
    Abandon as Abandon,
)
from engine.wire.limiter_messages import (
    Attach as Attach,
)
from engine.wire.limiter_messages import (
    AttachedRun as AttachedRun,
)
from engine.wire.limiter_messages import (
    Bound as Bound,
)
from engine.wire.limiter_messages import (
    Bounds as Bounds,
)
from engine.wire.limiter_messages import (
    Gauge as Gauge,
)
from engine.wire.limiter_messages import (
    Grant as Grant,
)
from engine.wire.limiter_messages import (
    Inspect as Inspect,
)
from engine.wire.limiter_messages import (
    Join as Join,
)
from engine.wire.limiter_messages import (
    Joined as Joined,
)
from engine.wire.limiter_messages import (
    Leave as Leave,
)
from engine.wire.limiter_messages import (
    Need as Need,
)
from engine.wire.limiter_messages import (
    Observed as Observed,
)
from engine.wire.limiter_messages import (
    Rejoin as Rejoin,
)
from engine.wire.limiter_messages import (
    Report as Report,
)
from engine.wire.limiter_messages import (
    Throttled as Throttled,
)
from engine.wire.limiter_messages import (
    TooDear as TooDear,
)
from engine.wire.load_messages import Begin, Figures, Halt
from engine.wire.message import VERSION as VERSION
from engine.wire.message import BadFrame as BadFrame
from engine.wire.message import Message as Message

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
    sent_s: float = 0.0
    step: int = 0  # of several, the one that failed it


class StepLine(NamedTuple):
    """One step of a leased row that has ended, in a job of several. ``step``: its place in the job.

    ``data`` is JSON: its columns, or of one that failed what is known of it.
    """

    row: int
    lease: int
    step: int
    ok: bool
    data: bytes
    attempts: int
    tokens_in: int
    tokens_out: int
    calls: int = 0  # of its function, which are no attempts
    latency_ms: float = 0.0  # of the last one
    model: str = ""


class Hello(Message, frozen=True):
    """Worker to coordinator, first of all. A wrong token or slot is answered with Refuse."""

    token: str
    slot: int
    pid: int


class Welcome(Message, frozen=True):
    """Coordinator to worker: begin, as soon as a Tune says with how much."""


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
    done: Sequence[StepLine] = ()  # what was finished of them before, in a job of several steps
    is_trial: bool = (
        False  # workers died with these rows: nothing is begun of them that was not told before (``Trying``)
    )


class Finished(Message, frozen=True):
    """Coordinator to worker: finished steps of rows of the next lease, which are too large for one message with it."""

    steps: list[StepLine]


class Tally(NamedTuple):
    """What a worker did at one endpoint since its last tally; all of them are added up by the coordinator."""

    requests: int = 0  # requests sent
    retries: int = 0  # requests that repeat an earlier one of the same row
    throttled: int = 0  # replies that said 429
    replies: int = 0  # of any status
    ok_replies: int = 0  # 2xx
    tokens_in: int = 0
    tokens_out: int = 0
    charged_tokens: int = 0  # what the quota was charged
    measured_in: int = 0  # prompt tokens of replies that stated them, where there was an estimate
    estimated_in: int = 0  # the estimates for the same calls
    estimate_error: int = 0  # how far they were off, without regard to the sign
    latencies: Sequence[tuple[float, int]] = ()  # (ms rounded to 3 digits, how many), successes only
    in_flight: int = 0  # now
    waiting: int = 0  # rows that wait for permits, now
    starved_s: float = 0.0  # since when the limiter has not been reached, 0 when it is
    cooldowns: int = 0  # times that the endpoint was left alone for a while
    trouble: str = ""  # why it is left alone now, "" when it is not


class Outcomes(Message, frozen=True):
    """Worker to coordinator: finished rows (maybe none), and what was done since the last such message."""

    lines: list[OutcomeLine]
    tallies: list[Tally]  # one for each endpoint of the job
    sleeping: int  # rows that wait for a retry, now
    want: int  # further credit, as in Want
    steps: Sequence[StepLine] = ()  # that ended, of rows that are leased still or finished with this message


class Beat(Message, frozen=True):
    """Either way: I am alive."""


class Terms(NamedTuple):
    """What holds for one endpoint.

    ``gate`` is a second, lower in-flight limit until the endpoint's first 2xx; -1 opens it, 0 pauses the worker.
    ``rates``: the limits of now; a call that costs more than a minute of one can never pass.
    """

    gate: int
    rates: Rates = NO_RATES


class Tune(Message, frozen=True):
    """Coordinator to worker: this worker's share of the in-flight limit, and the terms of each endpoint."""

    in_flight: int
    terms: list[Terms]


class Trying(Message, frozen=True):
    """Worker to coordinator: of a row on trial, the steps (their places in the job) that are under way from now on."""

    row: int
    lease: int
    steps: list[int]


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
    endpoint: int = 0  # or step: its place in the job


class UseLimiter(Message, frozen=True):
    """Coordinator to worker that began without one: from now on calls to this endpoint need the permits of this limiter."""

    endpoint: int  # its place in the job
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
    17: Finished,
    18: Trying,
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
    33: Observed,
    40: Begin,
    41: Halt,
    42: Figures,
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
