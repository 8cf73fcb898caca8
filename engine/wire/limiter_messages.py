"""What a limiter hears and says; see ``messages.py``, which knows all messages.

Rules of this file:
1. Limits and amounts of several kinds travel as ``Rates``, in which 0 is none.
"""

from typing import NamedTuple

import msgspec

from engine.core.quota import Rates
from engine.wire.message import Message


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
    serial: int = 0  # how often the worker has joined; comes back with the answer


class Joined(Message, frozen=True):
    """Limiter to worker. ``epoch`` differs for every start of a limiter.

    A worker's calls are numbered from 0 in each epoch, in the order of its queue: ``told`` of them the
    limiter has heard of, the first ``given`` of them were granted. A worker that finds less than it told sends
    the rest again; what was granted without its knowledge is spent, and asked for anew.
    """

    epoch: int
    told: int
    given: int
    generation: int
    serial: int = 0  # of the Join that this answers


class Rejoin(Message, frozen=True):
    """Limiter to worker: I do not know you, or something between us was lost. Join, please."""


class Need(Message, frozen=True):
    """Worker to limiter: calls that are ready to go now, in order: their token charges.

    ``first``: the number of the first of them; what the limiter knows already is not queued twice.
    ``parts``: tokens in and tokens out of each, one after the other; empty where nobody counts them apart.
    ``settled``: tokens to charge in addition (positive) or to give back (negative, only where the provider
    counts real usage) for calls that ended, summed up: by the provider's own rule, in, and out.
    """

    first: int
    charges: list[int]
    settled: int
    settled_in: int = 0
    settled_out: int = 0
    parts: list[int] = msgspec.field(default_factory=list)


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
    """Limiter to worker: a call of yours costs more than these limits and can never pass. Abandon it."""

    rates: Rates


class Observed(Message, frozen=True):
    """Worker to limiter: what the endpoint's reply headers say of late.

    ``limits``: as the endpoint has them. ``used``: what it counts as used of them, at least; 0 is nothing, or unknown.
    """

    limits: Rates
    used: Rates


class Attach(Message, frozen=True):
    """Coordinator to limiter, first of all, and again to change its limits. 0: none declared.

    The lowest limit that any attached run declared holds for all. ``share`` weighs this run's part.
    """

    token: str
    run: int
    label: str
    declared: Rates
    share: float


class Leave(Message, frozen=True):
    """Coordinator to limiter: this run needs it no more."""


class Bound(NamedTuple):
    """A limit that holds, 0 for none; the lowest and the highest that runs declare, each with whose it is; and what the
    endpoint itself says of it, 0 for nothing.
    """

    limit: int = 0
    lowest: int = 0
    lowest_by: str = ""
    highest: int = 0
    highest_by: str = ""
    endpoint: int = 0


class Bounds(NamedTuple):
    """The four of them."""

    rpm: Bound = Bound()
    tpm: Bound = Bound()
    input_tpm: Bound = Bound()
    output_tpm: Bound = Bound()

    @property
    def rates(self) -> Rates:
        """The limits that hold."""
        return Rates(*(bound.limit for bound in self))


class Gauge(Message, frozen=True):
    """Limiter to coordinator: about once a second while something changes, at once when a limit does."""

    granted_requests: int  # since the limiter's start
    granted_tokens: int
    waiting: int
    paused_s: float  # how long the pause still lasts, 0 when there is none
    pauses: int
    largest: int
    bounds: Bounds


class Inspect(Message, frozen=True):
    """Anybody who knows the token, to limiter: how do you stand?"""

    token: str


class AttachedRun(NamedTuple):
    """One run as its limiter sees it."""

    pid: int
    label: str
    declared: Rates
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
    limits: Rates
    endpoint: Rates
    used: Rates
    waiting: int
    paused_s: float
    pauses: int
    runs: list[AttachedRun]
