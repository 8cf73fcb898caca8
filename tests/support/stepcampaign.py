"""A job of several steps under fire: two calls with a Python function between them, and one call beside.

Rules of this file:
1. Before every death, and after every one of a coordinator, what is durable is looked at first and what was begun after it: what
   is begun more often at the end than that was begun again.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from campaign import IN_FLIGHT, VICTIMS, Campaign, Told
from history import History
from runs import until
from stephistory import (
    Look,
    StepHistory,
    begun_of,
    calls_in,
    kept_steps,
    places_of,
    step_history_of,
)

JOB = """
[[steps]]
name = "draft"
prompt = "draft of {{{{ text }}}}"
[[steps]]
name = "marked"
function = "marking:mark"
mode = "{mode}"
take = {{ row = "id", draft = "draft" }}
[[steps]]
name = "final"
model = "other"
prompt = "final of {{{{ marked }}}}"
[[steps]]
name = "tone"
prompt = "tone of {{{{ text }}}}"
"""
FUNCTION = """
import os
from pathlib import Path

_witness = os.open(Path(__file__).with_name("called"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def mark(row, draft):
    os.write(_witness, b"%d\\n" % row)
    return f"marked {row}: {draft}"
"""
MODES = ("", "process", "loop")
REQUESTS_MAX = 150  # from one death to the next
# A run holds twice as many rows as calls in flight, and a batch: rows whose calls wait hold no room.
DOUBT_MAX = {
    "worker": 2 * IN_FLIGHT,
    "coordinator": 4 * IN_FLIGHT,
    "limiter": 0,
    "all": 4 * IN_FLIGHT,
    "named": 4 * IN_FLIGHT,
}


class StepCampaign(Campaign):
    """See the module. ``mode``: where the function is called."""

    def __init__(
        self,
        folder: Path,
        limiters: Path,
        rows: int,
        *flags: str,
        mode: str = "",
        latency: str = "lognormal:60:0.4",
    ) -> None:
        self._folder, self._rows = folder, rows
        (folder / "job.toml").write_text(JOB.format(mode=mode))
        (folder / "marking.py").write_text(FUNCTION)
        self._called = folder / "called"
        self._looks: list[Look] = []
        super().__init__(folder, limiters, rows, *flags, latency=latency)

    def _command(self) -> tuple[str, ...]:
        self._paths = (self._folder,)
        self._places = places_of(self._prompts)
        return (
            "run", str(self._source), "-o", str(self.output), "--job", str(self._folder / "job.toml"),
            "--base-url", self.mock.base_url, "--model", "mock", "--json", "--no-progress",
        )  # fmt: skip

    def _begin_story(self) -> Told:
        return Told(StepHistory([], [], 0, None), doubt_max=DOUBT_MAX)

    def _history(self) -> History:
        return step_history_of(self.mock, self._prompts, self.output, self._called, self._looks)

    def look(self) -> None:
        super().look()
        durable = frozenset(kept_steps(self.output, self._rows))
        self._looks.append(Look(durable, begun_of(self.mock.log(), self._places) + calls_in(self._called)))

    def kill(self, who: str, random: Random) -> bool:
        self.look()
        return super().kill(who, random)

    def go_on_killing(self, kills: int, random: Random, victims: Sequence[str] = VICTIMS) -> None:
        """As of rows; three in four strike after so many requests more, wherever the steps of the rows are then."""
        for _ in range(kills):
            if random.random() < 0.25:
                time.sleep(random.uniform(0.0, 1.2))  # it may not have begun yet
            else:
                self._go_on_for(random.randint(1, REQUESTS_MAX))
            if self.run.is_over() and self.output.exists():
                return
            self.kill(random.choice(victims), random)
            self.go_on_if_dead()

    def _go_on_for(self, requests: int) -> None:
        enough = self.mock.stats()["requests"] + requests
        until(lambda: self.mock.stats()["requests"] >= enough or self.run.is_over(), 60.0)

    def looked_at(self) -> int:
        """How many durable steps all looks together saw."""
        return sum(len(look.durable) for look in self._looks)

    def die_half_way(self, steps: int = 40) -> None:
        """Kill the first run once so many steps are durable, so that the next one finds rows with finished steps."""
        until(lambda: len(kept_steps(self.output, self._rows)) >= steps, 60.0)
        self.kill("all", Random(0))
        self.bury()
