"""What a load worker makes of a Begin, and how many connections it may have."""

from pathlib import Path

import pytest

from engine.schedules.base import Schedule
from engine.schedules.profile import steady
from engine.wire.load_messages import Begin, PieceLine
from engine.worker.load import worker
from engine.worker.load.worker import left_after, ports, schedule_of


def begin(concurrency: int = 0, duration_s: float = 5.0, requests: int = 0) -> Begin:
    return Begin(1, 100.0, [PieceLine(10.0, 20.0, 5.0)], 7, duration_s, requests, 0.0, concurrency)


def test_a_test_has_its_own_rates_and_end_and_the_kind_of_its_crew() -> None:
    made = schedule_of(begin(requests=3), Schedule("gamma", steady(1.0), burstiness=0.5))
    assert made is not None
    assert (made.arrival, made.burstiness, made.seed) == ("gamma", 0.5, 7)
    assert (made.duration_s, made.requests, made.pieces[0].rate_to_per_s) == (5.0, 3, 20.0)


def test_a_closed_loop_has_no_schedule() -> None:
    assert schedule_of(begin(concurrency=4), None) is None
    assert schedule_of(begin(), None) is None


def test_what_is_left_is_each_workers_part_of_the_integral() -> None:
    schedule = Schedule("poisson", steady(1000.0), duration_s=10.0)
    assert left_after(schedule, 4.0, 2) == 3000
    assert left_after(schedule, 10.0, 2) == 0
    assert left_after(Schedule("trace", offsets_s=(0.0, 9.0)), 1.0, 2) == 0, "a trace is walked to its end"


def test_ports_are_those_the_system_gives_out_or_the_usual_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text, number in (("1000\t1099\n", 100), ("none", 28_232)):
        (tmp_path / "range").write_text(text)
        monkeypatch.setattr(worker, "_PORTS", tmp_path / "range")
        assert ports() == number
