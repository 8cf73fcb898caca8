"""What a job of several steps left behind, step by step, and what must be true of it; rows are judged as in ``history``.

Rules of this file:
1. A place is a row and one of its steps. What begins it is known from who served it: the server's log, and for functions a file
   that each call appends a line to.
2. Every prompt holds what its step took, and no two are alike: a result that came to another row or step makes a prompt that is
   nobody's.
3. A row that was in doubt once has had each of its steps repeated once at most.
"""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from history import History, Witness, read_output, row_name, store_of
from scorecard import Promise

from engine.mock.answers import expected_answer
from engine.store import Store

Place = tuple[int, str]  # a row and the name of one of its steps

STEPS = ("draft", "marked", "final", "tone")
ASKED = ("draft", "final", "tone")
QUOTAS = (("draft", "tone"), ("final",))  # steps that ask one model share its limit


def questions(row: int, text: str) -> dict[str, str]:
    """What each asking step of a row asks."""
    told = results(row, text)
    return {"draft": f"draft of {text}", "final": f"final of {told['marked']}", "tone": f"tone of {text}"}


def results(row: int, text: str) -> dict[str, str]:
    """What each step of a row comes to."""
    draft = expected_answer(f"draft of {text}")
    marked = f"marked {row}: {draft}"
    return {
        "draft": draft, "marked": marked, "final": expected_answer(f"final of {marked}"),
        "tone": expected_answer(f"tone of {text}"),
    }  # fmt: skip


class Look(NamedTuple):
    """One look at a run, alive or dead: what was durable then, and after that how often each place had been begun."""

    durable: frozenset[Place]
    begun: Mapping[Place, int]


@dataclass
class StepHistory(History):
    """See the module. ``kept`` and ``output`` are rows', ``log`` and ``attempts`` those of all steps."""

    called: Counter[Place] = field(default_factory=Counter)  # functions
    places: dict[str, Place] = field(default_factory=dict)  # the server's name of a prompt: whose it is
    kept_steps: dict[Place, str] = field(default_factory=dict)  # results in the store
    looks: Sequence[Look] = ()

    more_kinds: ClassVar[Mapping[Promise, set[str]]] = {
        Promise.P12_STEPS: {"begun_again", "lost_steps", "never_begun", "nobodys_prompts", "wrong_results"}
    }

    def begun(self) -> Counter[Place]:
        """How often each place was begun."""
        return begun_of(self.log, self.places) + self.called

    def ended(self) -> Counter[Place]:
        """How often each place was answered whole, or called."""
        return begun_of([one for one in self.log if one["full"]], self.places) + self.called

    # --- what is asked, and of whom -----------------------------------------------------------------------

    def never_begun(self) -> set[Place]:
        """Steps of rows that are ok that nobody ever answered."""
        ended = self.ended()
        return {(row, step) for row, ok in self.kept.items() if ok for step in STEPS} - ended.keys()

    def nobodys_prompts(self) -> set[str]:
        """Requests whose prompt no step of no row has: something was mixed up."""
        return {one["row"] for one in self.log} - self.places.keys()

    # --- what is repeated ---------------------------------------------------------------------------------

    def begun_again(self) -> set[Place]:
        """Steps that were durable at some look, and were begun after it."""
        begun = self.begun()
        return {
            place for look in self.looks for place in look.durable if begun[place] > look.begun.get(place, 0)
        }

    def repeated(self) -> int:
        """How many doubts it takes for what was repeated."""
        most: Counter[int] = Counter()
        for (row, _), count in self.ended().items():
            most[row] = max(most[row], count - 1)
        return sum(most.values())

    def repeated_steps(self) -> int:
        """Steps that came to their end more often than once, each as often as that."""
        ended = self.ended()
        return sum(ended.values()) - len(ended)

    def recovered(self) -> set[int]:
        """Rows that are done although the fate of a call of theirs is not known to us. Not an error."""
        unanswered = {
            self.places[one["row"]][0] for one in self.log if not one["status"] and one["row"] in self.places
        }
        return {row for row, ok in self.kept.items() if ok} & unanswered

    def unrecorded_attempts(self) -> int:
        """Requests that nothing counts, beyond one for each asking step of the rows that were under way at a death."""
        return max(0, self.requests - self.attempts - len(ASKED) * self.in_doubt)

    # --- what is kept -------------------------------------------------------------------------------------

    def lost_steps(self) -> set[Place]:
        """Steps that were durable once, and those of rows that are ok, that are not kept any more."""
        owed = {place for look in self.looks for place in look.durable}
        owed |= {(row, step) for row, ok in self.kept.items() if ok for step in STEPS}
        return owed - self.kept_steps.keys()

    def wrong_results(self) -> set[Place]:
        """Steps whose result, in the store or in the output, is not their own for their own row."""
        wrong = set()
        own = {row: results(row, text) for row, text in enumerate(self.prompts)}
        for (row, step), value in self.kept_steps.items():
            if own[row][step] != value:
                wrong.add((row, step))
        for record in self.output or []:
            if record["_status"] == "ok" and record["id"] in own:
                wrong |= {(record["id"], step) for step in STEPS if record[step] != own[record["id"]][step]}
        return wrong

    # --- as in ``history`` --------------------------------------------------------------------------------

    def unexpected(self) -> set[int]:
        return {row for row, _ in self.never_begun()}

    def wrong_bodies(self, column: str = "") -> set[int]:
        return {row for row, _ in self.wrong_results()}

    def windows_over(self, limit: int, seconds: float = 60.0) -> list[float]:
        """As of rows, in each quota by itself."""
        over = []
        for steps in QUOTAS:
            times = [one["at_s"] for one in self.log if self.places.get(one["row"], (0, ""))[1] in steps]
            over += [
                start for at, start in enumerate(times) if bisect_left(times, start + seconds) - at > limit
            ]
        return over

    def faults(self, *, acknowledged: Iterable[int] = ()) -> dict[str, Any]:
        more: dict[str, Any] = {
            "begun_again": self.begun_again(),
            "lost_steps": self.lost_steps(),
            "never_begun": self.never_begun(),
            "nobodys_prompts": self.nobodys_prompts(),
            "wrong_results": self.wrong_results(),
        }
        return super().faults(acknowledged=acknowledged) | {
            name: value for name, value in more.items() if value
        }

    def more_figures(self) -> dict[str, int]:
        looked_at = sum(len(look.durable) for look in self.looks)
        return {
            "steps": len(self.kept_steps),
            "looked_at": looked_at,
            "repeated_in_doubt": self.repeated_steps(),
        }


def begun_of(log: Iterable[dict[str, Any]], places: Mapping[str, Place]) -> Counter[Place]:
    """How often each place is in a server's log."""
    return Counter(place for one in log if (place := places.get(one["row"])) is not None)


def places_of(prompts: Sequence[str]) -> dict[str, Place]:
    """The server's name of each prompt of a job, and whose it is."""
    return {
        row_name(asked): (row, step)
        for row, text in enumerate(prompts)
        for step, asked in questions(row, text).items()
    }


def calls_in(witness: Path) -> Counter[Place]:
    """The calls of the function that a file tells of."""
    lines = witness.read_text().split("\n")[:-1] if witness.exists() else []
    return Counter((int(line), "marked") for line in lines)


def kept_steps(output: Path, rows: int) -> dict[Place, str]:
    """The results that the store of a run holds, whether it runs or not."""
    store = store_of(output)
    if store is None:
        return {}
    with store:
        found = [one for one in store.steps_of(range(rows)) if one.ok]
        # The names are known once there is anything of them; to ask for them earlier would be to write.
        names = dict(zip(store.step_numbers(STEPS), STEPS, strict=True)) if found else {}
    return {(one.row, names[one.step]): json.loads(one.data)[names[one.step]] for one in found}


def step_history_of(
    mock: Witness, prompts: Sequence[str], output: Path, called: Path, looks: Sequence[Look]
) -> StepHistory:
    """The history of a job of ``STEPS`` that wrote to ``output``; ``called``: its function's file."""
    with Store.view(Path(f"{output}.run")) as store:
        counts, in_doubt = store.counts(), store.in_doubt_total()
        rows = {row: ok for row, _, ok in store.finished()}
    return StepHistory(
        prompts=list(prompts),
        log=mock.log(),
        requests=mock.stats()["requests"],
        output=read_output(output) if output.exists() else None,
        kept=rows,
        attempts=counts.attempts,
        in_doubt=in_doubt,
        called=calls_in(called),
        places=places_of(prompts),
        kept_steps=kept_steps(output, len(prompts)),
        looks=looks,
    )
