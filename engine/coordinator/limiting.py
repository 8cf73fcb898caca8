"""A run's place at the limiter of its quota: found or started, watched, found again when it dies.

Rules of this file:
1. All runs of this machine that use the same (origin, key, model) share one limiter; the first one starts it.
2. A run that declares no limits needs no limiter, unless another one has declared some: then it keeps to them, and from
   then on replaces it as its own, whoever else is left, because its workers ask it for permits and send nothing without.
3. Losing a gauge loses a figure on the screen, never a permit.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from engine.core.errors import CannotStart
from engine.core.quota import RATE_NAMES, Rates
from engine.launchers.local import LocalLauncher, Process
from engine.limiter.registry import PERIOD_S, Entry, Info, boot_id, born, seconds_since
from engine.limiter.server import LimiterSettings
from engine.wire.link import Spoke
from engine.wire.messages import VERSION, Attach, Bound, Bounds, Gauge, Leave, Message

LOOK_S: Final = 0.2  # between two looks at whether the limiter lives
LOOK_FOR_OTHERS_S: Final = 1.0
ATTACH_AGAIN_S: Final = 2.0  # a word that was lost on the way is said again
HEALTHY_S: Final = 30.0
FAILURES_MAX: Final = 8
WORTH_SAYING: Final = 0.1  # by how much an endpoint's limit has to change for another note
_FRAME_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Declared:
    """What this run asks for: its limits, the weight of its part, and whether others are to be learnt."""

    rates: Rates
    share: float
    learns: bool = False

    @property
    def needs_limiter(self) -> bool:
        """Whether there is, or will be, anything to keep to."""
        return self.learns or any(self.rates)


class Limiting:
    """One run at its limiter. ``tick`` is to be called several times a second, on the loop."""

    def __init__(
        self,
        entry: Entry,
        declared: Declared,
        *,
        pid: int,
        label: str,
        origin: str,
        model: str,
        hide: list[str],
        backoff_s: Callable[[int], float],
        note: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self._entry = entry
        self._declared = declared
        self._pid = pid
        self._label, self._origin, self._model = label, origin, model
        self._backoff_s = backoff_s
        self.note = note
        self._on_change = on_change
        entry.make()
        self._launcher = LocalLauncher(entry.path, hide=hide)
        self._process: Process | None = None  # the limiter, if this run started it
        self._info: Info | None = None  # the limiter, while this run is attached
        self._link: Spoke | None = None  # from the first one on: workers may have been told of it
        self._failures = 0
        self._started = 0.0
        self._due = 0.0  # when to look, or to try, next
        self._attach_at = 0.0
        self._gauge: Gauge | None = None
        self._told = Bounds()
        self._said: dict[str, int] = {}  # limits of the endpoint that notes spoke of
        self.hopeless = ""  # why the run should give up, one sentence
        self.socket: Path = entry.socket
        self.token = entry.token

    # --- what holds ---------------------------------------------------------------------------------------

    @property
    def is_used(self) -> bool:
        """Whether calls need permits."""
        return self._declared.needs_limiter or self._link is not None

    @property
    def rates(self) -> Rates:
        """The limits that hold now."""
        return self._declared.rates if self._gauge is None else self._gauge.bounds.rates

    @property
    def largest(self) -> int:
        """The largest charge of any run so far, as last told."""
        return 0 if self._gauge is None else self._gauge.largest

    @property
    def paused_s(self) -> float:
        """How long the quota's pause still lasts, as last told."""
        return 0.0 if self._gauge is None else self._gauge.paused_s

    @property
    def has_learnt_nothing(self) -> bool:
        """Limits are to be learnt, and the endpoint has named none so far."""
        bounds = () if self._gauge is None else self._gauge.bounds
        return self._declared.learns and not any(bound.endpoint for bound in bounds)

    def declare(self, limits: dict[str, int]) -> None:
        """Other limits of this run from now on, by their names in ``Rates``."""
        self._declared = replace(self._declared, rates=self._declared.rates._replace(**limits))
        self._due = 0.0
        self._attach()

    # --- its life -----------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Attach where that is due, notice a limiter that died. Raises CannotStart."""
        if now < self._due:
            return
        if self._info is None:
            self._due = now + (LOOK_S if self.is_used else LOOK_FOR_OTHERS_S)
            if self.is_used or self._others_have_one():
                self._join(now)
        else:
            self._due = now + LOOK_S
            self._watch(self._info, now)
            if now >= self._attach_at:
                self._attach()

    def leave(self) -> None:
        """Say, on the loop, that it is needed no more. A limiter that nobody else uses ends."""
        self._entry.unregister(self._pid)
        if self._link is not None:
            self._link.send(Leave())
            self._link.close(linger_ms=500)
            self._link = None

    def bury(self) -> None:
        """After it was left: see its end if it is near. Waits, and may be called from any thread."""
        if self._process is not None:
            # It ends within milliseconds, or goes on for others and is the system's to bury.
            self._process.wait(0.5)
            self._process.disown()
            self._process = None

    def _others_have_one(self) -> bool:
        info = self._entry.info()
        return info is not None and self._entry.is_alive(info)

    def _join(self, now: float) -> None:
        """Use the limiter that runs, or start one."""
        try:
            with self._entry.locked(wait=False) as is_mine:
                # Where it is not: somebody is starting or ending one; at the next tick.
                self._info = self._found_or_started(now) if is_mine else None
        except OSError as error:
            self._failed(f"the system refuses: {error}", now)
        if self._info is None:
            return
        if self._link is not None:
            self._link.close()
        self._link = Spoke(self._entry.socket, message_bytes_max=_FRAME_BYTES_MAX)
        self._link.listen(asyncio.get_running_loop(), self._heard)
        self._attach()
        self._on_change()

    def _found_or_started(self, now: float) -> Info:
        info = self._entry.info()
        self._entry.register(self._pid)
        if info is None or not self._entry.is_alive(info):
            return self._start(info, now)
        if info.version != VERSION:
            raise CannotStart(
                f"Another version of the engine (process {info.pid}) serves this key's quota on this machine, and "
                "the two do not understand each other. Nothing was sent; wait for its runs to end, or use the same "
                "version for all."
            )
        return info

    def _start(self, dead: Info | None, now: float) -> Info:
        """Start a limiter that knows what the one before may have granted."""
        if dead is not None and seconds_since(dead.at, dead.boot) > PERIOD_S:
            dead = None  # what it granted is past its minute
        left = None if dead is not None else self._entry.left()
        declared = self._declared.rates
        settings = LimiterSettings(
            folder=str(self._entry.path),
            limits=declared if dead is None else dead.limits,
            limits_now=declared if dead is None else dead.limits_now,
            origin=self._origin,
            model=self._model,
            largest=0 if dead is None else max(1, dead.largest),
            memory=None if left is None else left[0],
            gone_s=0.0 if left is None else left[1],
        )
        line = msgspec.json.encode(settings) + b"\n"
        self._process = self._launcher.start("engine.limiter", line, detached=True)
        self._started = now
        info = Info(
            pid=self._process.pid,
            born=born(self._process.pid),
            version=VERSION,
            origin=self._origin,
            model=self._model,
            boot=boot_id(),
            at=asyncio.get_running_loop().time(),
            limits=settings.limits,
            limits_now=settings.limits_now,
            largest=settings.largest,
        )
        self._entry.write(info)
        self._entry.forget_left()
        return info

    def _watch(self, info: Info, now: float) -> None:
        process = self._process
        if process is not None and process.pid == info.pid:
            if process.poll() is None:
                return
            code = process.poll() or 0
            how = process.last_words() or (f"signal {-code}" if code < 0 else f"exit code {code}")
            process.close()
            self._process = None
        elif self._entry.is_alive(info):
            return
        else:
            how = f"process {info.pid} is gone"
        self._failed(how, now)

    def _failed(self, how: str, now: float) -> None:
        self._info = None
        self._failures = 1 if now - self._started > HEALTHY_S else self._failures + 1
        self._due = now + self._backoff_s(self._failures)
        self.note(f"the limiter ended ({how}); it is restarted, nothing is sent until then")
        if self._failures >= FAILURES_MAX:
            self.hopeless = f"the limiter cannot be kept running: {how}"

    # --- talking ------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        self._attach_at = asyncio.get_running_loop().time() + ATTACH_AGAIN_S
        if self._link is not None:
            declared = self._declared
            self._link.send(Attach(self.token, self._pid, self._label, declared.rates, declared.share))

    def _heard(self, message: Message) -> None:
        if not isinstance(message, Gauge):
            return
        before = self.rates
        self._gauge = message
        told, self._told = self._told, message.bounds
        for name, mine, bound, was in zip(
            RATE_NAMES.values(), self._declared.rates, message.bounds, told, strict=True
        ):
            self._tell(name, mine, bound, was)
        if self.rates != before:
            self._on_change()

    def _tell(self, name: str, mine: int, bound: Bound, told: Bound) -> None:
        """Say when runs do not agree, and when they do again. ``told``: what was heard before."""
        if (bound.limit, bound.highest) == (told.limit, told.highest):
            return
        if 0 < bound.endpoint == bound.limit and bound.endpoint != bound.lowest:
            before = self._said.get(name, 0)
            if abs(bound.limit - before) > WORTH_SAYING * before:  # some endpoints' limits drift all the time
                self._said[name] = bound.limit
                said = f"the endpoint allows {bound.limit:,} {name}, its replies say"
                self.note(said + (f"; that is less than the {mine:,} of this run, and holds" if mine else ""))
            return
        where = "for the same key and model on this machine"
        if mine and bound.limit < mine:
            if bound.lowest < mine:
                self.note(
                    f"this run declares {mine:,} {name}, {bound.lowest_by} declares {bound.lowest:,} {where}: "
                    f"the lower holds for both, {bound.limit:,}"
                )
        elif mine and 0 < told.limit < mine:
            self.note(f"{mine:,} {name} hold again, as this run declares")
        elif mine and bound.highest > mine:
            self.note(
                f"this run declares {mine:,} {name}, {bound.highest_by} declares {bound.highest:,} {where}: "
                f"the lower holds for both, {bound.limit:,}"
            )
        elif not mine and bound.lowest:
            self.note(
                f"{bound.lowest_by} declares {bound.lowest:,} {name} {where}: it holds for this run too"
            )
