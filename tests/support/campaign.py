"""A job under fire: started, killed in parts or whole, started again, until it is done; then its history is judged.

Rules of this file:
1. One seed decides everything that is random here: who dies, and when.
2. A run that is killed whole leaves no process behind within ``ORPHANS_MAX_S``.
"""

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
from history import History, acknowledged_rows, history_of, leftovers, processes_of
from runs import Run, ask_flags, is_alive, write_rows
from scorecard import Promise, Scorecard

from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess

RPM = 6_000  # so that a job's rows are a multiple of what a few seconds allow
IN_FLIGHT = 60
WINDOWS_S = (3.0, 10.0)
STALL_S = (
    0.55  # of the rate: a burst of permits, and what a machine that stands still for half a second bunches
)
ORPHANS_MAX_S = 2.0
LEAVE_MAX_S = 5.0  # of a limiter that nobody needs any more
CRASH = Path(__file__).parent.parent / "faults" / "crash"
PROCS = (3, 5, 2)  # of the first run, the second, the third, and so on again
VICTIMS = ("worker", "coordinator", "limiter", "all")
# At most in doubt after one death: what was leased, that is in flight and one batch for each worker.
DOUBT_MAX = {
    "worker": IN_FLIGHT,
    "coordinator": 2 * IN_FLIGHT,
    "limiter": 0,
    "all": 2 * IN_FLIGHT,
    "named": 2 * IN_FLIGHT,
}


@dataclass
class Told:
    """How a campaign went."""

    history: History
    kills: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    orphans: int = 0
    exit_code: int = 0
    acknowledged: set[int] = field(default_factory=set)
    pids: list[int] = field(default_factory=list)  # of its coordinators
    leftovers: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)  # of the run that finished
    said: str = ""  # by it, where it did not end well
    doubt_max: Mapping[str, int] = field(default_factory=lambda: DOUBT_MAX)

    @property
    def wrong(self) -> dict[str, Any]:
        """Everything that should not be; {} is a pass."""
        found = self.history.faults(acknowledged=self.acknowledged)
        doubt_max = sum(self.doubt_max[who] * deaths for who, deaths in self.kills.items())
        more = {
            "exit code": f"{self.exit_code}: {self.said}" if self.exit_code else "",
            "attempts_beyond_requests": self.history.attempts_beyond_requests(),
            "in doubt": max(0, self.history.in_doubt - doubt_max),
            "windows": {seconds: len(over) for seconds in WINDOWS_S if (over := self._over(seconds))},
            "orphans": self.orphans,
            "leftovers": self.leftovers,
        }
        return found | {name: value for name, value in more.items() if value}

    def _over(self, seconds: float) -> list[float]:
        return self.history.windows_over(_most(seconds), seconds)

    def count(self, scorecard: Scorecard, test: str) -> None:
        """Put it on the scorecard: one trial of each promise that deaths endanger."""
        wrong, deaths, history = self.wrong, sum(self.kills.values()), self.history
        told = {"repeated_beyond_doubt", "unrecorded_attempts", "attempts_beyond_requests", "in doubt"}
        ends = {"exit code", "orphans", "leftovers"}
        kinds = {
            Promise.P4_TOLD: told, Promise.P5_LIMITS: {"windows"}, Promise.P6_ENDS: ends, Promise.P11_ORDER: {"out_of_order"},
        }  # fmt: skip
        kinds |= history.more_kinds
        kinds[Promise.P1_NO_LOSS] = wrong.keys() - set().union(*kinds.values())
        figures: dict[Promise, dict[str, int]] = {
            Promise.P1_NO_LOSS: {"deaths": deaths},
            Promise.P4_TOLD: {"repeated": history.repeated(), "in_doubt": history.in_doubt},
            Promise.P5_LIMITS: {"windows": len(WINDOWS_S) * len(history.log)},
            Promise.P6_ENDS: {"starts": self.starts},
            Promise.P12_STEPS: {"deaths": deaths, **history.more_figures()},
        }
        if len(history.log) < 1.2 * _most(WINDOWS_S[0]):
            del kinds[Promise.P5_LIMITS]  # so few requests would never show it
        for promise, names in kinds.items():
            scorecard.add(promise, test, 1, int(bool(names & wrong.keys())), **figures.get(promise, {}))


class Campaign:
    """One job, its mock provider, and the means to kill what works on it."""

    def __init__(
        self, folder: Path, limiters: Path, rows: int, *flags: str, latency: str = "lognormal:120:0.4"
    ) -> None:
        self._limiters = limiters
        self.output = folder / "out.jsonl"
        self._source = write_rows(folder / "in.jsonl", rows)
        self._prompts = [json.loads(line)["text"] for line in self._source.read_text().splitlines()]
        self.mock = MockProcess(MockSettings(latency=latency, log=True, row_key="prompt"))
        self._paths: tuple[Path, ...] = ()  # where more modules are found
        self._flags = (*self._command(), "--rpm", str(RPM), "--in-flight", str(IN_FLIGHT), *flags)
        self.told = self._begin_story()
        self.run = self.start()

    def __enter__(self) -> "Campaign":
        return self

    def __exit__(self, *_: object) -> None:
        self.run.clear_away()
        self.mock.close()

    # --- what another kind of job has otherwise -----------------------------------------------------------

    def _command(self) -> tuple[str, ...]:
        return ask_flags(self.mock.base_url, self._source, self.output)

    def _begin_story(self) -> Told:
        return Told(History([], [], 0, None))

    def _history(self) -> History:
        return history_of(self.mock, self._prompts, self.output)

    def look(self) -> None:
        """Keep in mind what is done: none of it is to be lost."""
        self.told.acknowledged |= acknowledged_rows(self.output)

    # --- runs ---------------------------------------------------------------------------------------------

    def start(self, crash_at: str = "", text: str = "") -> Run:
        """Start the job, or go on with it. ``crash_at`` and ``text``: see tests/faults/crash."""
        self.told.starts += 1
        paths, environment = self._paths, {}
        if crash_at:
            paths = (*paths, CRASH)
            environment = {"ENGINE_CRASH_AT": crash_at, "ENGINE_CRASH_TEXT": text.encode()[::-1].hex()}
        if paths:
            environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
        procs = PROCS[(self.told.starts - 1) % len(PROCS)]
        self.run = Run(*self._flags, "--procs", str(procs), environment=environment)
        self.told.pids.append(self.run.pid)
        return self.run

    # --- deaths -------------------------------------------------------------------------------------------

    def kill(self, who: str, random: Random) -> bool:
        """SIGKILL one of the run's processes, or all. False where there is none of that kind just now."""
        ours = {
            "worker": [child.pid for child in self.run.children("engine.worker")],
            "coordinator": [] if self.run.is_over() else [self.run.pid],
            "limiter": self.limiters(),
        }
        ours["all"] = [pid for pids in ours.values() for pid in pids] if ours["coordinator"] else []
        pids = ours[who] if who == "all" else random.sample(ours[who], min(1, len(ours[who])))
        struck = False
        for pid in filter(is_alive, pids):
            try:
                os.kill(pid, signal.SIGKILL)
                struck = True
            except ProcessLookupError:
                pass
        if struck:
            self.told.kills[who] = self.told.kills.get(who, 0) + 1
        return struck

    def limiters(self) -> list[int]:
        """The limiters of this job."""
        found = []
        for path in self._limiters.glob("*/info.json"):
            try:
                pid = json.loads(path.read_text())["pid"]
            except (OSError, ValueError):
                continue
            if is_alive(pid):
                found.append(pid)
        return found

    def bury(self) -> None:
        """The coordinator is dead: its workers have to be gone soon, and what was done stays done."""
        self.run.wait()
        end = time.monotonic() + ORPHANS_MAX_S
        while (workers := self._workers()) and time.monotonic() < end:
            time.sleep(0.02)
        self.told.orphans += len(workers)
        self.look()

    def _workers(self) -> list[psutil.Process]:
        return [process for process in processes_of(self._limiters) if _is_worker(process)]

    def go_on_killing(self, kills: int, random: Random, victims: Sequence[str] = VICTIMS) -> None:
        """So many deaths at random instants, in the resumed runs too; ends early when the job is done."""
        for _ in range(kills):
            time.sleep(random.uniform(0.0, 1.2))
            if self.run.is_over() and self.output.exists():
                return
            self.kill(random.choice(victims), random)
            self.go_on_if_dead()

    def go_on_if_dead(self) -> None:
        """Start the same command again if its coordinator was killed."""
        time.sleep(0.01)
        if self.run.is_over() and not self.output.exists():
            self.bury()
            self.start()

    # --- the end ------------------------------------------------------------------------------------------

    def finish(self, timeout_s: float = 90.0) -> Told:
        """Let the job end in peace, and judge it."""
        while (code := self.run.wait(timeout_s)) < 0 and self.told.starts < 200:
            self.bury()
            self.start()
        self.told.exit_code = code
        self.told.said = "" if code == 0 else f"{self.run.out} {self.run.err}"
        end = time.monotonic() + LEAVE_MAX_S
        while self.limiters() and time.monotonic() < end:
            time.sleep(0.02)
        self.told.leftovers = leftovers(self.output, self._limiters, self.told.pids)
        self.told.summary = self.run.last_json() if code == 0 else {}
        self.told.history = self._history()
        return self.told


def _most(seconds: float) -> int:
    """The most requests in a window of so many seconds."""
    return round(RPM / 60 * (seconds + STALL_S))


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "engine.worker" in process.cmdline()
    except psutil.Error:
        return False
