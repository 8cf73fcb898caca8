"""The search for the knee against endpoints whose capacity is known, noisy, flaky or without end."""

import asyncio
import json
import math
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from modelled import Endpoint, Lasting, LoadTest, progress_of, run

from engine.core.errors import ExitCode, UsageError
from engine.core.search import PROBES_MAX, Why
from engine.core.thresholds import Objective, parse_slo
from engine.loadtest.findmax import Found, find_max, judge
from engine.loadtest.reading import results_of
from engine.loadtest.resting import Rest, Trial
from engine.loadtest.verdict import exit_code_of
from engine.loadtest.watching import Beat, Stop, Watch

SLO = (parse_slo("response_time.p99<500ms"),)
QUEUE = Endpoint(10, lambda draw: draw.expovariate(10.0))  # 100/s; its p99 is 500 ms a little below
PROBE_S = 30.0


class Prober:
    """Probes of an endpoint. ``sent``: how many requests all of them took; ``seconds``: how long each was."""

    def __init__(
        self, endpoint: Endpoint, objectives: tuple[Objective, ...] = SLO, seed: int = 0,
        verdict: Callable[[float], str] = lambda rate: "VALID", probe_s: float = PROBE_S,
    ) -> None:  # fmt: skip
        self.endpoint, self.objectives, self.verdict, self.probe_s = endpoint, objectives, verdict, probe_s
        self.seed = seed * 1_000
        self.rates: list[float] = []
        self.seconds: list[float] = []

    def test(self, rate: float) -> LoadTest:
        self.seed += 1
        return run(self.endpoint, rate, self.probe_s, self.seed, self.objectives, verdict=self.verdict(rate))

    async def probe(self, rate: float, watch: Watch) -> Trial:
        test = self.test(rate)
        at, expected = progress_of(test), round(rate * self.probe_s)
        self.rates.append(rate)
        for second in range(1, int(self.probe_s) + 1):
            intended, ended, met, failed = at(float(second))
            if watch.stop(Beat(float(second), intended, ended, met, intended - ended, expected, failed)):
                self.seconds.append(second)
                self.over(test, float(second))
                return Trial(test.results(until_s=float(second)))
        self.seconds.append(self.probe_s)
        self.over(test, math.inf)
        return Trial(test.results())

    def over(self, test: LoadTest, until_s: float) -> None:
        """It was ended then, or never."""

    def search(self, start: float = 20.0, **more: Any) -> Found:
        return asyncio.run(find_max(self.probe, self.objectives, start=start, **more))


class Backlogged(Prober):
    """Probes of an endpoint that finishes whatever it accepted: 5 servers of 50 ms, arrivals evenly spaced."""

    def __init__(self, objectives: tuple[Objective, ...], probe_s: float) -> None:
        super().__init__(Endpoint(5, lambda draw: 0.05), objectives, probe_s=probe_s)
        self.lasting = Lasting(self.endpoint)
        self.rested_s: list[float] = []
        self.canaries = 0

    def test(self, rate: float) -> LoadTest:
        return self.lasting.run(rate, self.probe_s, 1, self.objectives, is_even=True)

    def over(self, test: LoadTest, until_s: float) -> None:
        ended_s = min(until_s, max(test.duration_s, *(one.end_s for one in test.sent)))
        self.lasting.passed(ended_s, test)

    async def pause(self, seconds: float) -> None:
        self.rested_s.append(seconds)
        self.lasting.passed(seconds)

    async def canary(self, rate: float, lasts_s: float, ended_s: float) -> Trial:
        self.canaries += 1
        test = self.lasting.run(rate, lasts_s, 1, is_even=True)
        self.over(test, ended_s)
        return Trial(test.results(until_s=ended_s))

    @property
    def rest(self) -> Rest:
        return Rest(self.pause, self.canary)


def mm_c_p99_s(rate: float, servers: int, each: float) -> float:
    """The 99th percentile of the time in an M/M/c queue (Erlang's C), by bisection. For the test's truth."""
    load = rate / each
    waits = (load**servers / math.factorial(servers)) / (1 - load / servers)
    wait = waits / (waits + sum(load**k / math.factorial(k) for k in range(servers)))
    drain = servers * each - rate

    def longer(t: float) -> float:
        """P(time > t): served at once, or waited first."""
        served = math.exp(-each * t)
        both = wait * each / (each - drain) * (math.exp(-drain * t) - served)
        return served + both

    low, high = 0.0, 1_000.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if longer(middle) > 0.01 else (low, middle)
    return low


def true_knee(bound_s: float) -> float:
    low, high = 1.0, 99.999
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mm_c_p99_s(middle, 10, 10.0) < bound_s else (low, middle)
    return low


@pytest.mark.slow
def test_the_knee_of_a_queue_is_found_near_its_true_one() -> None:
    bound = (parse_slo("response_time.p99<600ms"),)
    truth = true_knee(0.6)
    assert 85 < truth < 95
    found = [Prober(QUEUE, bound, seed).search() for seed in range(12)]
    knees = [one.knee.held or 0.0 for one in found]
    assert all(one.is_sure and one.knee.why is Why.CONFIRMED for one in found)
    assert all(0.75 * truth < knee < 1.06 * truth for knee in knees), knees
    assert 0.85 * truth < sorted(knees)[6] < 1.02 * truth
    assert all(one.knee.probes <= 20 for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("objectives", [SLO, ()], ids=["objective", "none"])
@pytest.mark.parametrize("start", [2.0, 150.0, 2_000.0])
def test_wherever_it_starts_it_ends_near_the_capacity(
    start: float, objectives: tuple[Objective, ...]
) -> None:
    tests = Prober(Endpoint(20, lambda draw: draw.uniform(0.15, 0.25)), objectives, 3)  # 100/s
    found = tests.search(start)
    assert found.knee.held is not None and 80 < found.knee.held < 106
    assert found.knee.probes <= 18


def test_probes_far_above_the_knee_are_stopped_early() -> None:
    tests = Prober(QUEUE)
    tests.search(2_000.0)
    times = dict(zip(tests.rates, tests.seconds, strict=True))
    assert max(seconds for rate, seconds in times.items() if rate >= 250) <= 5
    assert max(times.values()) == PROBE_S


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_an_endpoint_whose_every_tenth_probe_fails_is_still_bounded_and_never_overrated(seed: int) -> None:
    draw = Random(seed)
    tests = Prober(Endpoint(20, lambda one: one.uniform(0.15, 0.25)), (), seed)
    tests.verdict = lambda rate: "INVALID" if draw.random() < 0.1 else "VALID"
    found = tests.search()
    assert found.knee.probes <= PROBES_MAX
    assert found.knee.held is None or found.knee.held < 106
    tries = [probe.judged.passed for probe in found.probes if probe.rate == found.knee.held]
    assert all(tries) and len(tries) == (found.knee.confirmations + 1 if tries else 0)


def test_an_endpoint_that_fails_five_in_a_hundred_holds_nothing() -> None:
    found = Prober(Endpoint(50, lambda draw: 0.01, fail=0.05), (), probe_s=20.0).search(50.0, rate_min=10.0)
    assert found.knee.held is None and found.knee.why is Why.NOTHING_HELD and not found.is_sure
    results = found.to_results()
    assert results["find_max"]["rate"] is None and results["verdict"] == "VALID"
    assert found.conclusion().startswith("No rate held, down to 10/s")


def test_where_the_client_is_the_limit_the_search_goes_no_higher_and_says_so() -> None:
    tests = Prober(QUEUE, verdict=lambda rate: "CLIENT-LIMITED" if rate > 60 else "VALID")
    found = tests.search()
    assert found.is_client_limited and not found.is_sure
    assert found.knee.held is not None and 55 < found.knee.held <= 60
    assert max(tests.rates) == 80.0
    plain = found.to_results()["find_max"]
    assert plain["client_limited"] and not plain["sure"] and plain["rate"] == found.knee.held
    assert "The client was the limit: the endpoint may hold more." in found.text()


def test_where_the_client_was_the_limit_only_above_the_knee_the_knee_is_the_endpoints() -> None:
    found = Prober(QUEUE, verdict=lambda rate: "CLIENT-LIMITED" if rate > 150 else "VALID").search()
    assert not found.is_client_limited and found.is_sure
    assert any(probe.judged.is_client_limited for probe in found.probes)


def test_an_endpoint_without_a_limit_is_confirmed_at_the_highest_rate() -> None:
    found = Prober(Endpoint(5_000, lambda draw: 0.05), (), probe_s=20.0).search(50.0, rate_max=300.0)
    assert (found.knee.held, found.knee.failed, found.knee.why) == (300.0, None, Why.RATE_MAX)
    assert found.is_sure and found.knee.confirmations == 2
    assert "all of 3 tries: with 95 % confidence a try there passes more than 37%" in found.conclusion()


def test_the_results_are_those_of_the_rate_that_held_and_tell_each_probe() -> None:
    notes: list[str] = []
    found = Prober(QUEUE, (*SLO,)).search(note=notes.append, confirmations=1)
    results = json.loads(json.dumps(found.to_results(), allow_nan=False))
    assert results["asked_rate"] == found.knee.held == results["find_max"]["rate"]
    assert results_of(results).find_max is not None
    probes = results["find_max"]["probes"]
    assert len(probes) == len(notes) == found.knee.probes
    assert [probe["passed"] for probe in probes[:2]] == [True, True] and not all(
        probe["passed"] for probe in probes
    )
    table = found.text().splitlines()
    assert len(table) == len(probes) + 2 and max(len(row) for row in table[:-1]) <= 80
    assert "held" in table[1] and "failed" in "\n".join(table)


@pytest.mark.parametrize("start", [12.0, 50.0, 1_600.0])
def test_the_backlog_of_a_probe_that_failed_does_not_fail_the_next(start: float) -> None:
    tests = Backlogged((parse_slo("response_time.p95<200ms"),), 10.0)
    found = tests.search(start, rest=tests.rest)
    assert found.is_sure and found.knee.held is not None and 95 <= found.knee.held <= 100
    assert [probe.judged.passed for probe in found.probes] == [probe.rate <= 100 for probe in found.probes]
    assert max(tests.rested_s) <= 30 and tests.canaries < 20


def test_without_a_rest_the_backlog_of_one_probe_fails_others() -> None:
    found = Backlogged((parse_slo("response_time.p95<200ms"),), 10.0).search(50.0)
    assert found.knee.held is not None and found.knee.held < 60


def test_there_is_a_rest_after_each_failure_and_none_after_the_last_probe() -> None:
    tests = Backlogged((), 10.0)
    found = tests.search(80.0, rest=tests.rest, confirmations=0)
    failures = [probe.judged.passed for probe in found.probes].count(False)
    rests = failures - (not found.probes[-1].judged.passed)
    assert tests.canaries == len(tests.rested_s) == rests > 0


@pytest.mark.parametrize("probe_s", [3.0, 10.0])
@pytest.mark.parametrize("start", [20.0, 101.0])
def test_a_queue_that_grows_without_an_end_does_not_hold_however_loose_the_objective(
    start: float, probe_s: float
) -> None:
    tests = Backlogged((parse_slo("response_time.p95<5s"),), probe_s)
    found = tests.search(start, rest=tests.rest)
    assert found.knee.held is not None and 95 <= found.knee.held <= 100
    assert any("latency went on growing" in probe.judged.why for probe in found.probes)


@pytest.mark.parametrize("load", [0.5, 0.8])
@pytest.mark.parametrize("endpoint", [QUEUE, Endpoint(20, lambda draw: draw.uniform(0.15, 0.25))])
def test_an_endpoint_that_holds_the_rate_is_not_taken_for_one_that_grows(
    endpoint: Endpoint, load: float
) -> None:
    loose = (parse_slo("response_time.p95<5s"),)
    tests = [
        run(endpoint, 100 * load, probe_s, seed, loose).results() for seed in range(15) for probe_s in (3, 10)
    ]
    passed = [judge(results_of(one), loose).passed for one in tests]
    assert passed.count(False) <= 1


def test_one_hiccup_of_the_client_bounds_nothing() -> None:
    draws = iter(["VALID", "CLIENT-LIMITED", "CLIENT-LIMITED"])
    found = Prober(QUEUE, verdict=lambda rate: next(draws, "VALID")).search()
    assert found.knee.held is not None and found.knee.held > 60
    assert found.is_sure and not found.is_client_limited
    plain = found.to_results()["find_max"]["probes"]
    assert [(one["rate"], one["counted"]) for one in plain[:4]] == [
        (20.0, True), (40.0, False), (40.0, False), (40.0, True),
    ]  # fmt: skip
    assert len(plain) == found.knee.probes


def test_a_rate_that_the_endpoint_failed_after_a_hiccup_of_the_client_is_the_endpoints_limit() -> None:
    seen: set[float] = set()

    def verdict(rate: float) -> str:
        is_first = rate not in seen
        seen.add(rate)
        return "CLIENT-LIMITED" if is_first else "VALID"

    found = Prober(QUEUE, verdict=verdict, probe_s=10.0).search(40.0)
    assert found.knee.failed is not None and not found.is_client_limited


def test_the_client_is_asked_three_times_before_it_bounds_the_search() -> None:
    tests = Prober(QUEUE, verdict=lambda rate: "CLIENT-LIMITED" if rate > 60 else "VALID")
    found = tests.search()
    assert tests.rates.count(80.0) == 3 and found.is_client_limited
    assert [probe.is_counted for probe in found.probes if probe.rate == 80.0] == [False, False, True]


def ended_at(last: int, **end: Any) -> Found:
    """A search whose probe of that number, from 1, was interrupted (``results``) or broke (``faults``)."""
    inner = Prober(QUEUE)

    async def probe(rate: float, watch: Watch) -> Trial:
        trial = await inner.probe(rate, watch)
        results = {**trial.results, "thresholds": [{"broken": False}]}
        if len(inner.rates) < last:
            return Trial(results)
        assert len(inner.rates) == last
        return Trial({**results, **end.get("results", {})}, end.get("faults", ()))

    return asyncio.run(find_max(probe, SLO, start=20.0))


def test_an_interrupted_probe_ends_the_search_without_a_verdict_on_its_rate() -> None:
    found = ended_at(2, results={"interrupted": True})
    assert (found.knee.why, found.knee.held, len(found.probes)) == (Why.UNFINISHED, 20.0, 1)
    results = found.to_results()
    assert not found.is_sure and results["asked_rate"] == 20.0 and results["verdict"] == "VALID"
    assert results["interrupted"] and exit_code_of(results) is ExitCode.INTERRUPTED
    assert "interrupted" in results["reasons"][-1]
    assert results["find_max"]["why"] == "the search was not finished"


def test_a_search_that_is_interrupted_in_its_first_probe_reports_that_one() -> None:
    results = ended_at(1, results={"interrupted": True, "reasons": ["so it was"]}).to_results()
    assert exit_code_of(results) is ExitCode.INTERRUPTED
    assert results["reasons"] == ["so it was"] and results["find_max"]["probes"] == []


def test_an_interrupted_probe_that_was_ended_early_as_well_ends_the_search() -> None:
    tests = Prober(QUEUE)

    async def probe(rate: float, watch: Watch) -> Trial:
        trial = await tests.probe(rate, watch)
        return Trial({**trial.results, "interrupted": watch.stopped is not None})

    found = asyncio.run(find_max(probe, SLO, start=1_000.0))
    assert len(tests.rates) == 1 and found.to_results()["interrupted"] and found.knee.why is Why.UNFINISHED


@pytest.mark.parametrize(("last", "held", "best"), [(1, None, 20.0), (3, 40.0, 40.0)])
def test_a_worker_that_died_ends_the_search_and_what_had_held_is_kept(
    last: int, held: float | None, best: float
) -> None:
    found = ended_at(
        last, results={"verdict": "INVALID"}, faults=("worker 1 ended by signal 9: \x1b[2JKilled",)
    )
    results = found.to_results()
    assert (results["verdict"], results["interrupted"], results["asked_rate"]) == ("INVALID", False, best)
    assert exit_code_of(results) is ExitCode.THRESHOLD
    plain = results["find_max"]
    assert (plain["rate"], plain["sure"], len(plain["probes"])) == (held, False, last - 1)
    assert (
        plain["why"].startswith("a worker failed: worker 1 ended by signal 9") and "\x1b" not in plain["why"]
    )
    assert plain["why"] in results["reasons"][0] and plain["why"] in plain["says"]


@pytest.mark.parametrize("broken", [False, True])
def test_a_canary_that_was_interrupted_or_broke_ends_the_search_too(broken: bool) -> None:
    tests = Backlogged((), 10.0)

    async def canary(rate: float, lasts_s: float, ended_s: float) -> Trial:
        trial = await tests.canary(rate, lasts_s, ended_s)
        return Trial({**trial.results, "interrupted": not broken}, ("worker 0 ended",) if broken else ())

    found = tests.search(80.0, rest=Rest(tests.pause, canary))
    results = found.to_results()
    assert len(tests.rates) == 2 and found.knee.held == 80.0 and results["asked_rate"] == 80.0
    assert (results["interrupted"], results["verdict"]) == (not broken, "INVALID" if broken else "VALID")


@pytest.mark.parametrize(("start", "rate_max"), [(0.0, 10.0), (-1.0, 10.0), (20.0, 10.0), (math.nan, 10.0)])
def test_a_start_beyond_the_bounds_is_refused(start: float, rate_max: float) -> None:
    with pytest.raises(UsageError):
        Prober(QUEUE).search(start, rate_max=rate_max)


def test_a_start_below_the_lowest_rate_is_tried() -> None:
    assert Prober(QUEUE, probe_s=10.0).search(0.0005, rate_max=0.0005).probes[0].rate == 0.0005


def test_a_probe_is_judged_by_its_verdict_first_then_by_its_objectives() -> None:
    good = run(QUEUE, 20.0, 30.0, 1, SLO).results()
    assert judge(results_of(good), SLO).passed
    limited = judge(results_of({**good, "verdict": "CLIENT-LIMITED"}), SLO, Stop.SATURATED)
    assert not limited.passed and limited.is_client_limited and not limited.is_saturated
    assert judge(results_of(good), SLO, Stop.SATURATED).is_saturated
    assert not judge(results_of({**good, "verdict": "INVALID"}), SLO).passed
    assert not judge(results_of({**good, "slo": []}), SLO).passed
    missed = judge(results_of({**good, "slo": [{"text": "a\x1b", "holds": False, "attainment": 0.5}]}), SLO)
    assert (missed.passed, missed.why) == (False, "met a by 50.00%")


def test_without_objectives_drops_and_failures_above_one_in_a_hundred_fail() -> None:
    good = run(QUEUE, 20.0, 30.0, 1).results()
    many = good["intended"]
    assert judge(results_of(good), ()).passed
    assert judge(results_of({**good, "dropped": many // 200, "failed": many // 200}), ()).passed
    assert not judge(results_of({**good, "dropped": many // 150, "failed": many // 150}), ()).passed
    assert not judge(results_of({**good, "intended": 0}), ()).passed
