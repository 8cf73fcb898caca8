"""Several steps and functions of the program's own, through the Python API."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import Chain, Pool, RowFailed, UsageError, ask, call, request
from engine.mock.answers import expected_answer
from engine.mock.settings import MockSettings, parse_fault
from engine.mock.spawn import MockProcess

pytestmark = pytest.mark.slow

MOCK: dict[str, Any] = {"provider": "mock", "base_url": "mock:latency=5ms", "procs": 1}


def shout(text: str) -> str:
    return text.upper()


async def halve(row: dict[str, int]) -> float:
    await asyncio.sleep(0.01)
    return row["n"] / 2


def refuse(row: dict[str, int]) -> int:
    if row["n"] == 3:
        raise ValueError("three is not taken")
    return row["n"]


def test_a_chain_gives_a_dict_of_what_its_steps_came_to() -> None:
    chain = Chain(
        [
            call(shout, take={"text": "text"}, into="loud"),
            ask("Say {{ loud }}", into="said"),
            ask("Sing {{ text }}", into="sung"),
        ]
    )
    with Pool(chain, ["a", "b"], **MOCK) as pool:
        results = pool.run()
    assert [result.value for result in results] == [
        {
            "loud": text.upper(),
            "said": expected_answer(f"Say {text.upper()}"),
            "sung": expected_answer(f"Sing {text}"),
        }
        for text in "ab"
    ]
    assert [(result.row, result.attempts) for result in results] == [("a", 3), ("b", 3)]


def test_a_step_that_is_done_is_not_repeated_when_its_row_is_run_again() -> None:
    with MockProcess(MockSettings(faults=(parse_fault("400,match=Second row 1 "),))) as mock:
        steps = [ask("First {{ text }}", name="first"), ask("Second {{ text }} {{ first }}", name="second")]
        with Pool(steps, ["row 0 x", "row 1 x"], base_url=mock.base_url, model="mock", procs=1) as pool:
            good, bad = pool.run()
            assert (good.ok, bad.ok) == (True, False)
            assert bad.error.startswith("bad_request: step second: ")
            mock.control({"faults": []})
            before = mock.stats()["requests"]
            (again,) = pool.retry_failed()
            assert mock.stats()["requests"] - before == 1
    assert again.value["second"] == expected_answer(f"Second row 1 x {again.value['first']}")


def test_a_function_is_mapped_over_rows_of_any_kind() -> None:
    factor = 3
    assert [result.value for result in engine.map(halve, [{"n": 1}, {"n": 4}], procs=1)] == [0.5, 2.0]
    numbers = engine.map(lambda n: n * factor, (n for n in range(100)), procs=2)
    assert [result.value for result in numbers] == [n * 3 for n in range(100)]
    assert [result.row for result in numbers] == list(range(100))
    assert [result.value for result in engine.map("json:dumps", ["a"], procs=1)] == ['{"text": "a"}']
    assert engine.map(halve, [], procs=1) == []


def test_an_exception_fails_its_row_alone_with_the_traceback_at_hand(tmp_path: Path) -> None:
    rows = [{"n": n} for n in range(10)]
    for _ in range(2):  # the second time out of the store
        results = engine.map(refuse, rows, procs=1, state=tmp_path / "state")
        assert [result.ok for result in results] == [n != 3 for n in range(10)]
        failed = results[3]
        assert failed.error.split(": ")[0] == "function_error"
        assert "ValueError: three is not taken" in failed.error
        assert failed.traceback.startswith("Traceback (most recent call last):")
        assert "in refuse" in failed.traceback and "ValueError: three is not taken" in failed.traceback
        assert not any(result.traceback for result in results if result.ok)
    with pytest.raises(RowFailed, match="three is not taken") as caught:
        engine.map(refuse, rows, procs=1, on_error="raise")
    assert "in refuse" in caught.value.result.traceback


def test_what_cannot_travel_is_refused_before_anything_is_read() -> None:
    lock = threading.Lock()
    read: list[int] = []
    with pytest.raises(UsageError, match="cannot be sent to worker processes"):
        Pool(call(lambda row: lock.locked()), (read.append(n) for n in range(3)))
    assert read == []


def test_a_frame_goes_through_a_chain() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b"]})
    steps = Chain([call(shout, take={"text": "text"}, into="loud"), ask("Say {{ loud }}", into="said")])
    found = engine.enrich(frame, steps, **MOCK)
    assert list(found.columns) == ["text", "loud", "said"]
    assert list(found["said"]) == [expected_answer("Say A"), expected_answer("Say B")]


def test_a_page_is_fetched_and_read() -> None:
    with MockProcess() as mock:
        chain = Chain(
            [
                request(mock.origin + "/stats?{{ value }}", into="page", select="requests"),
                call(lambda row: row["page"] + row["value"], into="sum"),
            ]
        )
        with Pool(chain, [1, 2], procs=1) as pool:
            assert [result.value for result in pool.run()] == [{"page": 0, "sum": 1}, {"page": 0, "sum": 2}]


SCRIPT = """
import engine
from helper import grow

def double(row):
    return grow(row["n"]) * 2

print([result.value for result in engine.map(double, [{"n": 1}, {"n": 2}], procs=2)])

def late(row):
    return -double(row)

print([result.value for result in engine.map(late, [{"n": 1}], procs=1)])
print("the end")
"""


def test_a_scripts_functions_are_found_without_a_guard_and_it_runs_once(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "script.py").write_text(SCRIPT)
    (tmp_path / "scripts" / "helper.py").write_text("def grow(n):\n    return n + 10\n")
    done = subprocess.run(
        [sys.executable, "scripts/script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["[22, 24]", "[-22]", "the end"]


def test_two_hundred_sources_are_fetched_and_summed_up_in_the_time_that_their_flows_allow() -> None:
    """Two calls of a second each, twenty at once: 20 s, where one after the other takes 400."""
    with MockProcess(MockSettings(latency="1s")) as mock:
        chain = Chain(
            [
                request(f"{mock.origin}/plain?n={{{{ n }}}}", name="page", keep=False),
                ask("Sum up: {{ page }}", name="summary"),
            ]
        )
        rows = [{"n": number} for number in range(200)]
        with Pool(chain, rows, model="mock", base_url=mock.base_url, max_flows=20, procs=2) as pool:
            results = pool.run()
        stats = mock.stats()
    assert all(result.ok for result in results) and stats["ok"] == 400
    assert 19.0 <= stats["last_s"] - stats["first_s"] + 1.0 < 24.0
