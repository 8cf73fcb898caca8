"""The scripted endpoints: when calls arrive, how each is answered, and the witness of what arrived.

Rules of this file:
1. A call that has left its worker arrives whatever becomes of the worker, and its answer counts as given.
2. Each endpoint has limits of its own, which may change; a sliding window may hold what the highest of them allowed.
"""

import asyncio
import contextvars
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import here
import msgspec
from virtual import OUTSIDE, PROCESS

from engine.core.errors import ErrorKind
from engine.core.model import Call, Failure, Reply

if TYPE_CHECKING:
    from shape import Illness
    from world import World

SLACK_S = (
    8.0  # a lower limit holds so long after it was set: the word may be lost, a limiter may be restarted
)
STATUS = {
    ErrorKind.UNAUTHORISED: 401,
    ErrorKind.SERVER_ERROR: 500,
    ErrorKind.OVERLOADED: 503,
    ErrorKind.RATE_LIMITED: 429,
}
_HEADERS: dict[str, str] = {}


@dataclass
class Server:
    """One endpoint: what arrived, when, and which limits were declared since when."""

    illness: "Illness | None" = None
    arrivals: list[tuple[float, str]] = field(default_factory=list)
    full: dict[str, int] = field(default_factory=dict)
    limits: list[tuple[float, int]] = field(default_factory=list)

    def allowed(self, since: float, until: float) -> int:
        """The highest limit that was declared at any time in between; 0 is none."""
        ends = [at for at, _ in self.limits[1:]] + [float("inf")]
        held = [
            limit for (at, limit), end in zip(self.limits, ends, strict=True) if at <= until and end > since
        ]
        return 0 if 0 in held else max(held, default=0)

    def windows_over(self, seconds: float) -> int:
        """How many sliding windows hold more calls than were allowed."""
        times = [at for at, _ in self.arrivals]
        one_limit = self.limits[0][1] if len({limit for _, limit in self.limits}) == 1 else None
        if one_limit == 0:
            return 0
        left = over = 0
        for right, at in enumerate(times):
            while times[left] <= at - seconds:
                left += 1
            limit = self.allowed(at - seconds - SLACK_S, at) if one_limit is None else one_limit
            over += bool(limit) and right - left + 1 > limit
        return over

    def answer(self, world: "World", text: str) -> tuple[float, Reply | Failure]:
        """How a call that has just arrived is answered, and after how long."""
        random = world.random
        self.arrivals.append((world.loop.time(), text))
        ill = self.illness
        if ill is not None and ill.since <= world.lived_s < ill.until:
            if ill.kind is ErrorKind.TIMEOUT:
                return 5.0, Failure(ill.kind, "no reply")
            wait_s = random.choice((None, 1.0)) if ill.kind is ErrorKind.RATE_LIMITED else None
            return 0.05, Failure(ill.kind, "ill", wait_s=wait_s, status=STATUS.get(ill.kind, 0))
        delay_s = random.choice((0.05, 0.2, 0.2, 0.9))
        failure, more_s = bad_luck(world)
        if failure is not None:
            return delay_s + more_s, failure
        return delay_s, self.success(text)

    def success(self, text: str) -> Reply:
        """The answer, counted."""
        self.full[text] = self.full.get(text, 0) + 1
        body = {"model": "m", "choices": [{"message": {"content": f"answer to {text}"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 4}}  # fmt: skip
        return Reply(200, _HEADERS, msgspec.json.encode(body))


def bad_luck(world: "World") -> tuple[Failure | None, float]:
    """One call in five fails in a storm; the failure, and how much longer it takes."""
    random = world.random
    luck = random.random() if world.is_stormy else 1.0
    if luck < 0.04:
        return Failure(ErrorKind.CONNECTION_RESET, "reset"), 0.0
    if luck < 0.07:
        return Failure(ErrorKind.TIMEOUT, "no reply"), 5.0
    if luck < 0.12:
        wait_s = random.choice((None, 0.5, 3.0))
        return Failure(ErrorKind.RATE_LIMITED, "too many", wait_s=wait_s, status=429), 0.0
    if luck < 0.17:
        return Failure(ErrorKind.SERVER_ERROR, "500", status=500), 0.0
    if luck < 0.19:
        return Failure(ErrorKind.STALE_KEEPALIVE, "stale"), 0.0
    return None, 0.0


OnDone = Callable[[Reply | Failure], None]


class Fetcher:
    """As worker.fetch.Fetcher."""

    def __init__(self, *, origin: object, **_: Any) -> None:
        self.world = here.world()
        self.process = PROCESS.get(OUTSIDE)
        self.server = self.world.servers[str(origin)]

    def register(self, flight: object) -> None:
        pass

    def sweep(self, now: float) -> None:
        pass

    def drop_idle(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def start(self, call: Call, key: str, flight: object, on_done: OnDone, *, anew: bool = False) -> None:
        self.world.loop.create_task(self._serve(call, on_done))

    async def _serve(self, call: Call, on_done: OnDone) -> None:
        on_done(await self._answer(call))

    async def _answer(self, call: Call) -> Reply | Failure:
        world = self.world
        assert call.body is not None
        text = msgspec.json.decode(call.body)["messages"][0]["content"]
        world.is_asked(self.process, text)
        answered: asyncio.Future[Reply | Failure] = world.loop.create_future()
        mine = contextvars.copy_context()

        def arrive() -> None:
            delay_s, result = self.server.answer(world, text)
            world.loop.call_later(delay_s, _settle, answered, result, context=mine)

        world.loop.call_later(world.random.uniform(0.0005, 0.003), arrive, context=world.outside)
        return await answered


def _settle(answered: "asyncio.Future[Reply | Failure]", result: Reply | Failure) -> None:
    if not answered.done():
        answered.set_result(result)


class NearFetcher(Fetcher):
    """The one of the first world: a call whose worker dies before its answer is not answered."""

    async def _answer(self, call: Call) -> Reply | Failure:
        world, random, server = self.world, self.world.random, self.server
        await asyncio.sleep(random.uniform(0.0005, 0.003))
        assert call.body is not None
        text = msgspec.json.decode(call.body)["messages"][0]["content"]
        server.arrivals.append((world.loop.time(), text))
        await asyncio.sleep(random.choice((0.05, 0.2, 0.2, 0.9)))
        failure, more_s = bad_luck(world)
        if more_s:
            await asyncio.sleep(more_s)
        return failure or server.success(text)
