"""When a load test sends: counts, evenness, chance and ownership, by example and by measure."""

import math
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from itertools import islice, pairwise
from random import Random

import msgspec
import pytest

from engine.core.errors import UsageError
from engine.schedules import ARRIVALS, Schedule, arrivals, length_s, numbered_arrivals, process_of
from engine.schedules.gamma import gaps
from engine.schedules.profile import Piece, Profile, steady
from engine.schedules.trace import from_stamps

WORKERS = [1, 2, 8]


def union(schedule: Schedule, workers: int) -> list[float]:
    """The times of all workers together, in the order of their indices."""
    found = [pair for worker in range(workers) for pair in numbered_arrivals(schedule, worker, workers)]
    return [at_s for _, at_s in sorted(found)]


def dispersion(times_s: list[float], window_s: float, length_s: float) -> float:
    """Variance over mean of the counts in windows: 1 for a Poisson process, 0 for an even one."""
    counts = [0] * round(length_s / window_s)
    for at_s in times_s:
        if at_s < len(counts) * window_s:
            counts[int(at_s / window_s)] += 1
    mean = sum(counts) / len(counts)
    return sum((count - mean) ** 2 for count in counts) / (len(counts) - 1) / mean


def moments(times_s: list[float]) -> tuple[float, float, float]:
    """Mean of the gaps, their squared coefficient of variation, and their correlation from one to the next."""
    gaps = [later - earlier for earlier, later in pairwise(times_s)]
    mean = sum(gaps) / len(gaps)
    off = [gap - mean for gap in gaps]
    square = sum(gap * gap for gap in off)
    return mean, square / len(gaps) / mean**2, sum(a * b for a, b in pairwise(off)) / square


@pytest.mark.slow
@pytest.mark.parametrize("workers", WORKERS)
def test_poisson_counts_are_dispersed_as_chance_is_for_the_union_and_for_each_worker(workers: int) -> None:
    length = 1_500.0
    schedule = Schedule("poisson", steady(100.0), seed=7, duration_s=length)
    times_s = union(schedule, workers)
    assert abs(len(times_s) - 100 * length) < 4 * math.sqrt(100 * length)
    for window_s in (0.1, 1.0):
        assert dispersion(times_s, window_s, length) == pytest.approx(1.0, abs=0.1)
        mine = list(arrivals(schedule, workers - 1, workers))
        assert dispersion(mine, window_s, length) == pytest.approx(1.0, abs=0.1)
    for one in (times_s, mine):
        _, variation, correlation = moments(one)
        assert variation == pytest.approx(1.0, abs=0.05)
        assert abs(correlation) < 4 / math.sqrt(len(one))


def test_the_parts_of_two_workers_are_independent() -> None:
    schedule = Schedule("poisson", steady(200.0), seed=3, duration_s=500.0)
    counts = [[0] * 500 for _ in range(2)]
    for worker in range(2):
        for at_s in arrivals(schedule, worker, 2):
            counts[worker][int(at_s)] += 1
    off = [[count - sum(part) / 500 for count in part] for part in counts]
    covariance = sum(a * b for a, b in zip(*off, strict=True))
    correlation = covariance / math.sqrt(math.prod(sum(a * a for a in part) for part in off))
    assert abs(correlation) < 4 / math.sqrt(500)


@pytest.mark.parametrize("workers", WORKERS)
def test_constant_requests_are_even_for_the_union_and_for_each_worker(workers: int) -> None:
    schedule = Schedule("constant", steady(100.0), duration_s=200.0)
    assert dispersion(union(schedule, workers), 1.0, 200.0) < 0.02
    mean, variation, _ = moments(list(arrivals(schedule, 0, workers)))
    assert mean == pytest.approx(workers / 100)
    assert variation < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_the_gaps_of_gamma_vary_as_much_as_burstiness_says(burstiness: float) -> None:
    schedule = Schedule("gamma", steady(50.0), seed=11, burstiness=burstiness, requests=150_000)
    mean, variation, correlation = moments(list(arrivals(schedule)))
    assert mean == pytest.approx(1 / 50, rel=0.02)
    assert variation == pytest.approx(1 / burstiness, rel=0.04)
    assert abs(correlation) < 4 / math.sqrt(150_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "distribution"),
    [
        (0.5, lambda x: math.erf(math.sqrt(x / 2))),
        (1.0, lambda x: -math.expm1(-x)),
        (4.0, lambda x: 1 - math.exp(-4 * x) * sum((4 * x) ** n / math.factorial(n) for n in range(4))),
    ],
)
def test_the_gaps_of_gamma_have_its_distribution(
    shape: float, distribution: Callable[[float], float]
) -> None:
    many = 60_000
    drawn = sorted(islice(gaps(Random(5), shape), many))
    furthest = max(abs(distribution(x) - (place + 0.5) / many) for place, x in enumerate(drawn))
    assert furthest < 1.63 / math.sqrt(many)  # Kolmogorov: 1 % of samples are further off


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("arrival", ["constant", "poisson", "gamma"])
def test_a_count_is_sent_exactly(arrival: str, workers: int) -> None:
    schedule = Schedule(arrival, steady(1_000.0), seed=1, requests=10_007)
    found = [pair for worker in range(workers) for pair in numbered_arrivals(schedule, worker, workers)]
    assert sorted(index for index, _ in found) == list(range(10_007))


@pytest.mark.parametrize("arrival", ["poisson", "gamma", "constant"])
def test_a_seed_gives_the_same_requests_for_any_number_of_workers_and_another_seed_others(
    arrival: str,
) -> None:
    schedule = Schedule(arrival, (Piece(0.0, 500.0, 10.0),), seed=5, duration_s=12.0, burstiness=0.5)
    assert union(schedule, 1) == union(schedule, 2) == union(schedule, 8) == union(schedule, 5)
    differs = Schedule(arrival, (Piece(0.0, 500.0, 10.0),), seed=6, duration_s=12.0, burstiness=0.5)
    assert (union(differs, 1) == union(schedule, 1)) == (arrival == "constant")


def test_a_seed_gives_the_same_requests_in_another_process() -> None:
    code = (
        "from engine.schedules import *\nfrom engine.schedules.profile import steady\n"
        "print([sum(arrivals(Schedule(a, steady(9.0), seed=4, requests=99))) for a in ('poisson', 'gamma')])"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = [sum(arrivals(Schedule(a, steady(9.0), seed=4, requests=99))) for a in ("poisson", "gamma")]
    assert there.strip() == str(here)


@pytest.mark.parametrize(
    ("rate", "duration_s", "count"), [(0.1, 30.0, 3), (100.0, 0.3, 30), (1 / 3, 9.0, 3), (1_000.0, 36.0, 36_000), (0.1, 5.0, 1)]
)  # fmt: skip
def test_a_constant_rate_over_a_duration_sends_its_integral(
    rate: float, duration_s: float, count: int
) -> None:
    schedule = Schedule("constant", steady(rate), duration_s=duration_s)
    assert len(union(schedule, 2)) == count
    assert length_s(schedule) == duration_s


def test_a_constant_rate_does_not_drift_in_a_day() -> None:
    schedule = Schedule("constant", steady(1_000.0), duration_s=86_400.0)
    last = process_of(schedule).numbered(0, 86_400_000 - 1)  # this worker owns the first index and the last
    assert list(last) == [(0, 0.0), (86_399_999, 86_399.999)]


def test_a_ramp_sends_at_the_rate_of_the_moment() -> None:
    schedule = Schedule("constant", (Piece(100.0, 1_000.0, 30.0),))
    times_s = list(arrivals(Schedule("constant", schedule.pieces, duration_s=30.0)))
    assert len(times_s) == 16_500
    for second in range(30):
        here = sum(second <= at_s < second + 1 for at_s in times_s)
        assert here == pytest.approx(100 + 30 * (second + 0.5), abs=1.01)
    after = list(islice(arrivals(schedule), 16_500, 17_000))
    assert after[0] == pytest.approx(30.0) and after[-1] == pytest.approx(30.499)


def test_a_poisson_ramp_sends_at_the_rate_of_the_moment() -> None:
    schedule = Schedule("poisson", (Piece(0.0, 2_000.0, 20.0),), seed=2, duration_s=20.0)
    times_s = list(arrivals(schedule))
    for second in range(20):
        expected = 100 * (second + 0.5)
        here = sum(second <= at_s < second + 1 for at_s in times_s)
        assert abs(here - expected) < 4.5 * math.sqrt(expected)


def test_stairs_have_a_pause_in_which_nothing_is_sent() -> None:
    pieces = (Piece(10.0, 10.0, 0.3), Piece(0.0, 0.0, 5.0), Piece(20.0, 20.0, 0.2))
    times_s = list(arrivals(Schedule("constant", pieces, duration_s=5.5)))
    assert times_s == pytest.approx([0.0, 0.1, 0.2, 5.3, 5.35, 5.4, 5.45])


def test_a_ramp_down_to_nothing_ends_by_itself() -> None:
    pieces = (Piece(10.0, 0.0, 2.0),)
    for arrival in ("constant", "poisson", "gamma"):
        times_s = list(arrivals(Schedule(arrival, pieces, requests=500)))
        assert len(times_s) == 10 or arrival != "constant"
        assert times_s[-1] < 2.0
    assert length_s(Schedule("constant", pieces, requests=500)) == math.inf


def test_without_an_end_a_schedule_goes_on_in_constant_memory() -> None:
    schedule = Schedule("poisson", steady(1_000.0))
    assert length_s(schedule) == math.inf
    walk = arrivals(schedule, 1, 2)
    next(walk)
    tracemalloc.start()
    for _ in range(20_000):
        next(walk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000


def test_a_trace_is_replayed_at_its_own_pace_or_another() -> None:
    offsets_s = from_stamps([1_000.5, 1_000.0, 1_003.0])
    assert offsets_s == (0.0, 0.5, 3.0)
    schedule = Schedule("trace", offsets_s=offsets_s, speed=2.0)
    assert union(schedule, 2) == [0.0, 0.25, 1.5]
    assert length_s(schedule) == 1.5
    assert list(arrivals(Schedule("trace", offsets_s=offsets_s, duration_s=3.0))) == [0.0, 0.5]
    assert list(arrivals(Schedule("trace", offsets_s=offsets_s, requests=1))) == [0.0]


@pytest.mark.parametrize("arrival", ARRIVALS)
def test_a_schedule_crosses_processes_as_json(arrival: str) -> None:
    schedule = Schedule(
        arrival, (Piece(1.0, 2.0, 3.0),), seed=9, requests=5, burstiness=0.7, offsets_s=(0.0, 1.1)
    )
    there = msgspec.json.decode(msgspec.json.encode(schedule), type=Schedule)
    assert there == schedule
    assert union(there, 2) == union(schedule, 2)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"arrival": "even", "pieces": steady(1.0)}, "Known: constant, poisson, gamma, trace."),
        ({"arrival": "constant"}, "A rate of 0 sends nothing"),
        ({"arrival": "poisson", "pieces": steady(0.0)}, "A rate of 0 sends nothing"),
        ({"arrival": "gamma", "pieces": steady(1.0), "burstiness": 0.0}, "--burstiness 0 must be from 0.01"),
        ({"arrival": "gamma", "pieces": steady(1.0), "burstiness": math.nan}, "--burstiness nan"),
        ({"arrival": "constant", "pieces": steady(1.0), "requests": 0}, "0 requests are none"),
        ({"arrival": "constant", "pieces": steady(1.0), "duration_s": 0.0}, "A duration of 0 s"),
        ({"arrival": "trace"}, "The trace has no requests"),
        ({"arrival": "trace", "offsets_s": (1.0, 0.5)}, "ascending order"),
        ({"arrival": "trace", "offsets_s": (0.0, math.nan)}, "ascending order"),
        ({"arrival": "trace", "offsets_s": (-1.0,)}, "ascending order"),
        ({"arrival": "trace", "offsets_s": (1.0,), "speed": 0.0}, "a speed of 0"),
    ],
)
def test_what_cannot_be_sent_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        process_of(Schedule(**fields))  # type: ignore[arg-type]


def test_a_worker_that_is_not_among_them_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="no worker 2 among 2"):
        arrivals(Schedule(pieces=steady(1.0)), 2, 2)


def test_the_length_of_a_count_is_when_the_profile_expects_it() -> None:
    assert length_s(Schedule("constant", steady(50.0), requests=500)) == 10.0
    assert length_s(Schedule("poisson", steady(50.0), requests=500, duration_s=4.0)) == 4.0
    assert Profile(steady(50.0)).rate_at(1e6) == 50.0
