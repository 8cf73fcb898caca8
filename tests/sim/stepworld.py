"""A world whose job has several steps: each row goes through its own, side by side and one after the other.

Real here besides what ``world`` has: ChainWorker, Chains, CallLane, StepBook. Scripted: the calls of functions, and the store
that steps are looked up in (``disk``).

Rules of this file:
1. A prompt says whose it is, a row's and a step's, and holds what it takes whole: whatever is mixed up shows in it.
2. A step that is kept is not sent again, by nobody who is not taken for dead. What is sent again was in doubt.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from types import SimpleNamespace
from typing import Any

import here
import msgspec
from check import Checks
from jobs import job
from shape import Place, StepShape
from virtual import OUTSIDE, PROCESS, Process
from world import World

from engine.config import CALL, Job, StepPlan, StepSettings
from engine.core.errors import ErrorKind
from engine.core.model import Failure, Reply, Target
from engine.credentials import Auth
from engine.handover import WorkerSettings
from engine.steps.call import checked
from engine.worker.chainloop import ChainWorker
from engine.worker.loop import Worker

ODD = "text[-1] in '13579'"
NAMED = "of_"  # of a function's arguments the one with this and the step's name is the row's text


def question(step: StepShape, text: str, results: dict[str, Any]) -> str:
    """What a step asks of a row, given what the row's steps came to."""
    return f"{text} | {step.name}" + "".join(f" ({results[name]})" for name in step.takes)


def answer(step: StepShape, asked: str) -> str:
    """What it is told."""
    return f"made of {asked}" if step.is_call else f"answer to {asked}"


def whose(asked: str) -> tuple[int, str]:
    """The row and the step of a prompt."""
    words = asked.split(" ", 4)
    return int(words[1]), words[3]


class StepWorld(World):
    """See the module."""

    @property
    def called(self) -> Counter[str]:
        """The calls of functions that came to a result."""
        checks = self.checks
        assert isinstance(checks, StepChecks)
        return checks.called

    # --- instead of a world of one step ---------------------------------------------------------------------

    def make_job(self) -> Job:
        shape, random = self.shape, self.random
        self.loop.thread_s = lambda function: (
            random.uniform(0.0, shape.lookup_s) if function == self.disk.steps_of else 0.0
        )
        return job(
            target=Target(provider="openai", base_url=f"{shape.places[0].url}/v1", model="m"),
            steps=tuple(map(self._plan, shape.steps)), procs=shape.procs, in_flight=shape.procs * 6,
            in_flight_auto=False, retries=50,
        )  # fmt: skip

    def make_checks(self) -> Checks:
        return StepChecks(self)

    def make_worker(self, settings: WorkerSettings, auth: tuple[Auth, ...]) -> Worker:
        return ChainWorker(settings, auth)

    def edges(self) -> Iterator[tuple[str, Any]]:
        now: Callable[[], float] = self.loop.time
        yield "engine.worker.call_lane.Functions", Functions
        yield "engine.worker.call_lane.monotonic", now
        if self.shape.part_bytes:
            yield "engine.coordinator.leasing.STEP_BYTES_MAX", self.shape.part_bytes
            yield "engine.worker.chainloop.TELL_BYTES", self.shape.part_bytes
        yield "engine.worker.chainloop.settle_in", lambda surroundings: None
        yield "engine.worker.chainloop.random", SimpleNamespace(Random=lambda: Random(self.random.random()))

    def places(self) -> list[Place]:
        return [
            Place(one.name, f"call:{one.name}", 0)
            if one.is_call
            else Place(one.name, self.shape.places[one.place].url, self.shape.places[one.place].rpm)
            for one in self.shape.steps
        ]

    def session_extras(self) -> dict[str, Any]:
        return {"answers": tuple(one.name for one in self.shape.steps), "store": self.disk}

    def is_asked(self, process: Process, text: str) -> None:
        row, name = whose(text)
        self.sending(process, row)
        numbers = {one.name: number for number, one in enumerate(self.shape.steps)}
        kept = self.disk.steps.get((row, numbers[name]))
        if kept is not None and kept.ok and process.believed is None:
            self.checks.trouble.append(f"step {name} of row {row} is sent, and is kept already")

    # --- steps ----------------------------------------------------------------------------------------------

    def _plan(self, step: StepShape) -> StepPlan:
        when = ODD if step.is_for_odd_rows else ""
        if step.is_call:
            take = ((f"{NAMED}{step.name}", "text"), *((name, name) for name in step.takes))
            settings = StepSettings(kind="call", function="json:dumps", into=step.name)  # never called
            return StepPlan(step.name, settings, CALL, take=take, when=when, retries=50)
        prompt = question(step, "{{ text }}", {name: f"{{{{ {name} }}}}" for name in step.takes})
        target = Target(provider="openai", base_url=f"{self.shape.places[step.place].url}/v1", model="m")
        rpm = self.shape.places[step.place].rpm or None
        settings = StepSettings(prompt=prompt, into=step.name)
        return StepPlan(step.name, settings, target, when=when, rpm=rpm, retries=50)

    def results(self, row: int) -> dict[str, str | None]:
        """What each step of a row comes to; None where the row is spared the step."""
        found: dict[str, str | None] = {}
        for step in self.shape.steps:
            is_spared = (step.is_for_odd_rows and not row % 2) or any(
                found[name] is None for name in step.takes
            )
            found[step.name] = None if is_spared else answer(step, question(step, f"row {row}", found))
        return found


class Functions:
    """As worker.functions.Functions. A call that its worker dies under has come to nothing, or to something nobody hears."""

    is_worn = False
    abandoned = 0

    def __init__(self, spec: str, **settings: Any) -> None:
        self.world = here.world()
        self.process = PROCESS.get(OUTSIDE)
        self.width = self.world.random.choice((None, 2))

    def start(self, arguments: dict[str, Any], on_done: Callable[[Reply | Failure], None]) -> None:
        world = self.world
        assert isinstance(world, StepWorld)
        name = next(key.removeprefix(NAMED) for key in arguments if key.startswith(NAMED))
        step = next(one for one in world.shape.steps if one.name == name)
        asked = question(step, arguments[f"{NAMED}{name}"], arguments)
        world.is_asked(self.process, asked)
        result: Reply | Failure
        if world.is_stormy and world.random.random() < 0.1:
            result = Failure(ErrorKind.FUNCTION_ERROR, "ValueError: bad luck", trace="Traceback")
        else:
            world.called[asked] += 1
            result = checked(answer(step, asked), 10**6)
        world.loop.call_later(world.random.choice((0.001, 0.05, 0.5)), on_done, result)

    def sweep(self, now: float) -> None:
        pass

    async def close(self) -> None:
        pass


class StepChecks(Checks):
    """What must be true of steps, besides what must be true of rows."""

    def __init__(self, world: StepWorld) -> None:
        super().__init__(world)
        self._steps = world
        self.called: Counter[str] = Counter()

    def is_own(self, row: int, record: dict[str, Any]) -> bool:
        return {name: record[name] for name in self._results(row)} == self._results(row)

    def repeated(self, full: Counter[str]) -> int:
        """A row that was in doubt once has had each of its steps repeated once at most."""
        most: Counter[int] = Counter()
        for asked, count in (full + self.called).items():
            row, _ = whose(asked)
            most[row] = max(most[row], count - 1)
        return sum(most.values())

    def wrong(self) -> dict[str, Any]:
        world, disk = self._steps, self._steps.disk
        asked = {text for server in world.servers.values() for text in server.full} | self.called.keys()
        own = {
            question(step, f"row {row}", self._results(row)): (row, step.name)
            for row in range(world.shape.rows)
            for step in world.shape.steps
            if self._results(row)[step.name] is not None
        }
        done = {row for row, (ok, _, _) in disk.outcomes.items() if ok}
        names = [step.name for step in world.shape.steps]
        kept = {
            (row, names[number]): msgspec.json.decode(step.data).get(names[number])
            for (row, number), step in disk.steps.items()
            if step.ok
        }
        found = {
            "steps never begun": [place for text, place in own.items() if place[0] in done and text not in asked],
            "prompts that are no row's": sorted(asked - own.keys()),
            "steps not kept": [place for place in own.values() if place[0] in done and place not in kept],
            "another step's result": [place for place, data in kept.items() if data != self._results(place[0])[place[1]]],
            "attempts that nobody saw": max(0, disk.attempts - len(world.arrivals)),
        }  # fmt: skip
        return super().wrong() | {name: value for name, value in found.items() if value}

    def _results(self, row: int) -> dict[str, str | None]:
        return self._steps.results(row)
