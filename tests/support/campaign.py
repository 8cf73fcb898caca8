"""A job under fire: started, killed in parts or whole, started again, until it is done; then its history is judged.

Rules of this file:
1. One seed decides everything that is random here: who dies, and when.
2. A run that is killed whole leaves no process behind within ``ORPHANS_MAX_S``.
"""

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
from history import History, acknowledged_rows, history_of, leftovers
from runs import Run, ask_flags, until, write_rows
from scorecard import Promise, Scorecard

from engine.mock.settings import MockSettings, QuotaSettings
from engine.mock.spawn import MockProcess

RPM = 12_000
LIMITS = tuple(QuotaSettings(kind=kind, rpm=RPM, tolerance=0.1) for kind in ("sliding", "second"))
ORPHANS_MAX_S = 2.0
CRASH = Path(__file__).parent.parent / "faults" / "crash"
PROCS = (3, 5, 2)  # of the first run, the second, the third, and so on again
VICTIMS = ("worker", "coordinator", "limiter", "all")


@dataclass
class Told:
    """How a campaign went."""

    history: History
    kills: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    orphans: int = 0
    throttled: int = 0
    acknowledged: set[int] = field(default_factory=set)
    pids: list[int] = field(default_factory=list)  # of its coordinators
    leftovers: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)  # of the run that finished
    seconds: float = 0.0

    @property
    def wrong(self) -> dict[str, Any]:
        """Everything that should not be; {} is a pass."""
        found = self.history.faults(acknowledged=self.acknowledged)
        if self.orphans:
            found["orphans"] = self.orphans
        if self.leftovers:
            found["leftovers"] = self.leftovers
        if self.throttled:
            found["throttled"] = self.throttled
        return found

    def count(self, scorecard: Scorecard, test: str) -> None:
        """Put it on the scorecard: its deaths as trials of what deaths endanger."""
        deaths, history, wrong = sum(self.kills.values()), self.history, self.wrong
        beyond = wrong.pop("repeated_beyond_doubt", 0) + wrong.pop("unrecorded_attempts", 0)
        ill = wrong.pop("orphans", 0) + len(wrong.pop("leftovers", ()))
        over = wrong.pop("throttled", 0)
        scorecard.add(Promise.P1_NO_LOSS, test, deaths, int(bool(wrong)), runs=1)
        scorecard.add(
            Promise.P4_TOLD, test, deaths, int(bool(beyond)),
            repeated=history.repeated(), in_doubt=history.in_doubt,
        )  # fmt: skip
        scorecard.add(Promise.P5_LIMITS, test, history.requests, over)
        scorecard.add(Promise.P6_ENDS, test, self.starts, int(bool(ill)))


class Campaign:
    """One job, its mock provider, and the means to kill what works on it."""

    def __init__(
        self, folder: Path, limiters: Path, rows: int, *flags: str, latency: str = "lognormal:120:0.4"
    ) -> None:
        self._limiters = limiters
        self.output = folder / "out.jsonl"
        source = write_rows(folder / "in.jsonl", rows)
        self._prompts = [json.loads(line)["text"] for line in source.read_text().splitlines()]
        self.mock = MockProcess(MockSettings(latency=latency, quota=LIMITS, log=True, row_key="prompt"))
        self._flags = ask_flags(self.mock.base_url, source, self.output, "--rpm", str(RPM), *flags)
        self._environment: dict[str, str] = {}
        self._began = time.monotonic()
        self.told = Told(History([], [], 0, None))
        self.run = self.start()

    def __enter__(self) -> "Campaign":
        return self

    def __exit__(self, *_: object) -> None:
        self.run.clear_away()
        self.mock.close()

    def start(self, crash_at: str = "") -> Run:
        """Start the job, or go on with it. ``crash_at``: see tests/faults/crash."""
        self.told.starts += 1
        environment = dict(self._environment)
        if crash_at:
            environment = {"ENGINE_CRASH_AT": crash_at, "PYTHONPATH": str(CRASH)}
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
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if pids:
            self.told.kills[who] = self.told.kills.get(who, 0) + 1
        return bool(pids)

    def limiters(self) -> list[int]:
        """The limiters of this job."""
        found = []
        for path in self._limiters.glob("*/info.json"):
            try:
                pid = json.loads(path.read_text())["pid"]
            except (OSError, ValueError):
                continue
            if psutil.pid_exists(pid):
                found.append(pid)
        return found

    def bury(self, children: Sequence[psutil.Process]) -> None:
        """The coordinator is dead: its workers have to be gone soon, and what was done stays done."""
        self.run.wait()
        _, alive = psutil.wait_procs([one for one in children if _is_worker(one)], ORPHANS_MAX_S)
        self.told.orphans += len(alive)
        self.told.acknowledged |= acknowledged_rows(self.output)

    def go_on_killing(self, kills: int, random: Random, victims: Sequence[str] = VICTIMS) -> None:
        """So many deaths at random instants, in the resumed runs too; ends early when the job is done."""
        for _ in range(kills):
            time.sleep(random.uniform(0.0, 1.2))
            if self.run.is_over() and self.output.exists():
                return
            children = self.run.children()
            self.kill(random.choice(victims), random)
            self.go_on_if_dead(children)

    def go_on_if_dead(self, children: Sequence[psutil.Process]) -> None:
        """Start the same command again if its coordinator was killed."""
        time.sleep(0.01)
        if self.run.is_over() and not self.output.exists():
            self.bury(children)
            self.start()

    # --- the end ------------------------------------------------------------------------------------------

    def finish(self, timeout_s: float = 90.0) -> Told:
        """Let the job end in peace, and judge it."""
        while True:
            children = self.run.children()
            code = self.run.wait(timeout_s)
            if code >= 0 or self.told.starts > 200:
                break
            self.bury(children)
            self.start()
        self.told.seconds = time.monotonic() - self._began
        assert code == 0, f"exit code {code}: {self.run.out} {self.run.err}"
        until(lambda: not self.limiters(), 5.0)
        self.told.leftovers = leftovers(self.output, self._limiters, self.told.pids)
        self.told.summary = self.run.last_json()
        self.told.history = history_of(self.mock, self._prompts, self.output)
        self.told.throttled = int(self.mock.stats()["throttled"])
        return self.told


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "engine.worker" in process.cmdline()
    except psutil.Error:
        return False
