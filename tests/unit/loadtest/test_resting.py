"""The rest after a probe that failed: what is waited for, and that it ends. Nothing here has a clock."""

import asyncio
from collections.abc import Callable
from typing import Any

from engine.loadtest.resting import BACKLOG_MAX_S, CANARIES_MAX, REST_MAX_S, Rest, Trial


def trial(p50_ms: float | None = 50.0, **more: Any) -> Trial:
    """Of ten seconds and 1,000 requests unless told."""
    faults = more.pop("faults", ())
    results = {
        "interrupted": False, "lasted_s": 10.0, "intended": 1_000, "completed": 1_000, "errors": {},
        "latency_ms": {"p50": p50_ms},
    }  # fmt: skip
    return Trial(results | more, faults)


class Asked:
    """A rest, and what it asked for. ``answers``: the canaries, in order; the last one again and again."""

    def __init__(self, *answers: Trial | Callable[[float], Trial]) -> None:
        self.answers = answers
        self.pauses: list[float] = []
        self.canaries: list[tuple[float, float, float]] = []
        self.rest = Rest(self.pause, self.canary)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def canary(self, rate: float, lasts_s: float, ended_s: float) -> Trial:
        answer = self.answers[min(len(self.canaries), len(self.answers) - 1)]
        self.canaries.append((rate, lasts_s, ended_s))
        return answer if isinstance(answer, Trial) else answer(ended_s)

    def after(self, failed: Trial) -> Trial | None:
        return asyncio.run(self.rest.after(failed))

    def held(self, rate: float = 100.0) -> "Asked":
        self.rest.learn(rate, trial(), passed=True)
        return self


WELL = trial(52.0, lasted_s=1.0)
BEHIND = trial(2_000.0, lasted_s=3.0)


def test_what_was_given_up_is_waited_for_at_the_best_rate_of_completions() -> None:
    asked = Asked(WELL).held()
    asked.rest.learn(200.0, trial(completed=200, lasted_s=4.0), passed=False)
    assert asked.after(trial(errors={"cancelled": 300, "timeout_total": 100, "http_5xx": 500})) is WELL
    assert asked.pauses == [4.0] and len(asked.canaries) == 1


def test_the_warm_up_does_not_count_as_time_in_which_nothing_was_completed() -> None:
    asked = Asked(WELL)
    asked.rest.learn(100.0, trial(lasted_s=15.0, warmup_s=5.0), passed=True)
    asked.after(trial(errors={"cancelled": 500}))
    assert asked.pauses == [5.0]


def test_a_backlog_that_nobody_can_wait_for_or_measure_is_waited_for_so_long_only() -> None:
    for completed in (1_000, 0):
        asked = Asked(WELL)
        asked.rest.learn(100.0, trial(completed=completed), passed=False)
        asked.after(trial(errors={"timeout_first_token": 1_000_000}))
        assert asked.pauses[0] == BACKLOG_MAX_S


def test_where_nothing_was_given_up_the_rest_is_short() -> None:
    asked = Asked(WELL).held()
    asked.after(trial(errors={"http_5xx": 900}))
    assert asked.pauses == [0.5]


def test_canaries_are_of_a_tenth_of_the_lowest_rate_that_held_and_of_some_requests() -> None:
    asked = Asked(WELL).held(200.0).held(100.0).held(400.0)
    asked.rest.learn(20.0, trial(), passed=False)
    asked.after(trial())
    assert asked.canaries == [(10.0, 1.0, REST_MAX_S - 0.5)]
    slow = Asked(WELL).held(20.0)
    slow.after(trial())
    assert slow.canaries[0][:2] == (2.0, 2.5)
    slowest = Asked(WELL).held(0.1)
    slowest.after(trial())
    assert slowest.canaries[0][1] == 5.0


def test_a_canary_is_sent_again_until_latency_is_near_that_of_the_first_probe_that_held() -> None:
    asked = Asked(BEHIND, trial(150.0, lasted_s=1.0), trial(104.0, lasted_s=1.0), BEHIND).held()
    asked.rest.learn(150.0, trial(1_900.0), passed=True)  # not the first
    last = asked.after(trial())
    assert last is not None and last.median_ms == 104.0
    assert len(asked.canaries) == 3 and asked.pauses == [0.5, 0.5, 1.0]


def test_before_any_rate_held_two_canaries_in_a_row_have_to_agree() -> None:
    asked = Asked(BEHIND, trial(50.0, lasted_s=1.0), trial(48.0, lasted_s=1.0), BEHIND)
    asked.rest.learn(200.0, trial(completed=100), passed=False)
    last = asked.after(trial())
    assert last is not None and last.median_ms == 48.0 and len(asked.canaries) == 3
    assert asked.canaries[0][0] == 20.0


def test_a_canary_that_was_not_answered_is_no_sign_of_health() -> None:
    refused = trial(40.0, completed=499, lasted_s=1.0)
    asked = Asked(refused, trial(None, intended=0, completed=0, lasted_s=0.0), WELL).held()
    assert asked.after(trial()) is WELL
    assert len(asked.canaries) == 3


def test_canaries_are_bounded_in_number() -> None:
    asked = Asked(trial(2_000.0, lasted_s=1.0)).held()
    asked.after(trial())
    assert len(asked.canaries) == CANARIES_MAX and asked.pauses == [0.5, 0.5, 1.0, 2.0, 4.0]


def test_an_endpoint_that_hangs_is_rested_for_a_minute_and_no_longer() -> None:
    asked = Asked(lambda ended_s: trial(None, completed=0, lasted_s=ended_s)).held()
    asked.after(trial(errors={"cancelled": 1_000}))
    assert asked.canaries == [(10.0, 1.0, REST_MAX_S - 10.0)]
    slow = Asked(lambda ended_s: trial(2_000.0, lasted_s=min(25.0, ended_s))).held()
    slow.after(trial(errors={"cancelled": 1_000}))
    assert sum(slow.pauses) + sum(min(25.0, ended_s) for _, _, ended_s in slow.canaries) <= REST_MAX_S


def test_a_canary_that_was_interrupted_or_broke_is_the_last() -> None:
    for end in (trial(2_000.0, interrupted=True), trial(2_000.0, faults=("worker 0 ended",))):
        asked = Asked(end).held()
        assert asked.after(trial()) is end and len(asked.canaries) == 1
