"""Jobs of several steps, whole: order, checkpoints, branches, shared quotas, and running again from a step."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from history import row_name
from runs import ROOT, Run, prompts_of, read_rows, run, until, write_rows

from engine.mock.answers import expected_answer
from engine.mock.settings import MockSettings, QuotaSettings, parse_fault
from engine.mock.spawn import MockProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LINEAR = """
[[steps]]
name = "first"
prompt = "first of {{ text }}"
[[steps]]
name = "second"
prompt = "second of {{ first }}"
[[steps]]
name = "third"
prompt = "third of {{ second }} and {{ text }}"
"""


def write_job(folder: Path, mock: MockProcess, steps: str, head: str = "") -> Path:
    path = folder / "job.toml"
    path.write_text(f'base_url = "{mock.base_url}"\nmodel = "mock"\n{head}\n{steps}')
    return path


def start(folder: Path, *more: str, source: str = "in.jsonl") -> Run:
    flags = ("--job", str(folder / "job.toml"), "--json", "--no-progress", *more)
    return Run("run", str(folder / source), "-o", str(folder / "out.jsonl"), *flags)


STEPS = ("first", "second", "third")


def moments(mock: MockProcess, prompts: list[str]) -> list[float]:
    """When each of these prompts was asked."""
    names = set(map(row_name, prompts))
    return [one["at_s"] for one in mock.log() if one["row"] in names]


def asked(mock: MockProcess) -> Counter[str]:
    """How often each prompt was asked, by its name in the mock's log."""
    return Counter(one["row"] for one in mock.log())


def answers(text: str) -> dict[str, str]:
    first = expected_answer(f"first of {text}")
    second = expected_answer(f"second of {first}")
    return {"first": first, "second": second, "third": expected_answer(f"third of {second} and {text}")}


def test_every_row_goes_through_all_steps_in_their_order(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", 400)
    with MockProcess(MockSettings(latency="lognormal:20:0.8")) as mock:
        write_job(tmp_path, mock, LINEAR)
        summary = start(tmp_path, "--procs", "2").summary()
        stats = mock.stats()
    assert (summary["ok"], summary["requests"], stats["requests"]) == (400, 1200, 1200)
    records = read_rows(tmp_path / "out.jsonl")
    assert [record["id"] for record in records] == list(range(400))
    for record in records:
        assert {name: record[name] for name in STEPS} == answers(record["text"])
    assert [one["name"] for one in summary["endpoints"]] == ["first", "second", "third"]
    assert [one["requests"] for one in summary["endpoints"]] == [400, 400, 400]


def test_rows_are_at_different_steps_at_the_same_time(tmp_path: Path) -> None:
    """Without a barrier three steps of a fifth of a second take as long as the slowest row, not as three passes."""
    write_rows(tmp_path / "in.jsonl", 200)
    with MockProcess(MockSettings(latency="200ms", log=True, row_key="prompt")) as mock:
        write_job(tmp_path, mock, LINEAR)
        assert start(tmp_path, "--procs", "1", "--in-flight", "40").summary()["ok"] == 200
        texts = prompts_of(200)
        first = moments(mock, [f"first of {text}" for text in texts])
        third = moments(mock, [f"third of {answers(text)['second']} and {text}" for text in texts])
    assert len(first) == len(third) == 200
    assert min(third) < max(first)


def test_steps_that_do_not_need_each_other_run_side_by_side(tmp_path: Path) -> None:
    steps = "".join(f'[[steps]]\nname = "c{n}"\nprompt = "c{n} of {{{{ text }}}}"\n' for n in range(5))
    write_rows(tmp_path / "in.jsonl", 1)
    with MockProcess(MockSettings(latency="400ms", log=True, row_key="prompt")) as mock:
        write_job(tmp_path, mock, steps)
        assert start(tmp_path, "--procs", "1").summary()["ok"] == 1
        arrivals = [one["at_s"] for one in mock.log()]
    assert len(arrivals) == 5 and max(arrivals) - min(arrivals) < 0.3
    (record,) = read_rows(tmp_path / "out.jsonl")
    assert {name: record[name] for name in ("c0", "c4")} == {
        name: expected_answer(f"{name} of {record['text']}") for name in ("c0", "c4")
    }


def test_a_condition_spares_a_row_its_step_and_what_needs_it(tmp_path: Path) -> None:
    steps = """
    [[steps]]
    name = "odd"
    when = "id % 2 == 1"
    prompt = "odd {{ text }}"
    [[steps]]
    name = "after"
    prompt = "after {{ odd }}"
    [[steps]]
    name = "told"
    when = "odd is none"
    prompt = "no odd {{ text }}"
    """
    write_rows(tmp_path / "in.jsonl", 20)
    with MockProcess(MockSettings(latency="10ms")) as mock:
        write_job(tmp_path, mock, steps)
        assert start(tmp_path, "--procs", "1").summary()["requests"] == 10 + 10 + 10
    for record in read_rows(tmp_path / "out.jsonl"):
        has = {name for name in ("odd", "after", "told") if record[name] is not None}
        assert has == ({"odd", "after"} if record["id"] % 2 else {"told"})


def test_intermediate_results_may_be_left_out_and_inputs_renamed(tmp_path: Path) -> None:
    steps = """
    [[steps]]
    name = "draft"
    prompt = "draft of {{ text }}"
    into = "draft_text"
    keep = false
    [[steps]]
    name = "final"
    prompt = "final of {{ body }}"
    take = { body = "draft_text" }
    """
    write_rows(tmp_path / "in.jsonl", 5)
    with MockProcess(MockSettings(latency="10ms")) as mock:
        write_job(tmp_path, mock, steps)
        assert start(tmp_path, "--procs", "1").summary()["ok"] == 5
    for record in read_rows(tmp_path / "out.jsonl"):
        assert list(record) == ["id", "text", "final", "_status", "_error"]
        draft = expected_answer(f"draft of {record['text']}")
        assert record["final"] == expected_answer(f"final of {draft}")


def test_a_step_that_fails_fails_its_row_and_what_does_not_need_it_is_there(tmp_path: Path) -> None:
    steps = """
    [[steps]]
    name = "bad"
    prompt = "bad {{ text }}"
    max_tokens = 7
    retries = 0
    [[steps]]
    name = "good"
    prompt = "good {{ text }}"
    [[steps]]
    name = "never"
    prompt = "never {{ bad }}"
    """
    write_rows(tmp_path / "in.jsonl", 10)
    fault = parse_fault("400")
    with (
        MockProcess(MockSettings(latency="10ms")) as mock,
        MockProcess(MockSettings(faults=(fault,))) as broken,
    ):
        address = f'base_url = "{broken.base_url}"\n    max_tokens = 7'
        write_job(tmp_path, mock, steps.replace("max_tokens = 7", address))
        summary = start(tmp_path, "--procs", "1").summary()
        assert (summary["failed"], summary["exit_code"]) == (10, 1)
        assert mock.stats()["requests"] == 10
    for record in read_rows(tmp_path / "out.jsonl"):
        assert record["_status"] == "failed" and record["_error"].startswith("bad_request: step bad:")
        assert record["good"] == expected_answer(f"good {record['text']}")
        assert record["bad"] is None and record["never"] is None


def test_rows_that_failed_are_tried_again_from_the_step_that_failed(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", 30)
    with MockProcess(MockSettings(latency="10ms", log=True, row_key="prompt")) as mock:
        write_job(tmp_path, mock, LINEAR.replace('"second of', '"{{ 1 // (id % 3) }}second of'))
        assert start(tmp_path, "--procs", "1").summary()["failed"] == 10
        before = asked(mock)
        job = (tmp_path / "out.jsonl.run", "--set", "second.prompt=second of {{ first }}")
        again = run("retry", str(job[0]), *job[1:], "--json", "--no-progress")
        summary = again.last_json()
        assert (summary["ok"], summary["failed"], summary["requests"]) == (30, 0, 20)
        later = asked(mock) - before
    assert not [text for text in prompts_of(30) if later[row_name(f"first of {text}")]]
    failed = [record for record in read_rows(tmp_path / "out.jsonl") if record["id"] % 3 == 0]
    assert [one["third"] for one in failed] == [answers(one["text"])["third"] for one in failed]


def test_a_finished_step_is_not_joined_to_a_row_that_has_changed_since(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", 3)
    with MockProcess(MockSettings(latency="10ms", log=True, row_key="prompt")) as mock:
        write_job(tmp_path, mock, LINEAR.replace('"second of', '"{{ 1 // id }}second of'))
        assert start(tmp_path, "--procs", "1").summary()["failed"] == 1
        source = (tmp_path / "in.jsonl").read_text()
        (tmp_path / "in.jsonl").write_text(source.replace("row 0 says hello", "row 0 says goodbye"))
        before = asked(mock)
        again = run("retry", str(tmp_path / "out.jsonl.run"), "--set", "second.prompt={{ first }}")
        assert again.wait() == 2 and "The input has changed: row 0 (line 1)" in again.err
        assert asked(mock) == before


@pytest.mark.parametrize("who", ["coordinator", "worker"])
def test_a_finished_step_is_never_repeated_whatever_dies(tmp_path: Path, who: str) -> None:
    rows = 300
    write_rows(tmp_path / "in.jsonl", rows)
    with MockProcess(MockSettings(latency="60ms", log=True, row_key="prompt")) as mock:
        write_job(tmp_path, mock, LINEAR)
        flags = ("--procs", "2", "--in-flight", "30")
        started = start(tmp_path, *flags)
        until(lambda: mock.stats()["ok"] > rows)
        kept: list[str] = []
        if who == "coordinator":
            started.kill()
            started.wait()
            kept = committed(tmp_path / "out.jsonl.run")
            assert len(kept) > rows / 2
            started = start(tmp_path, *flags)
        else:
            started.children("engine.worker")[0].kill()
        summary = started.summary()
        log = asked(mock)
    assert (summary["ok"], summary["failed"]) == (rows, 0)
    assert [name for name in kept if log[name] != 1] == [], "what is in the store is not asked again"
    # Of a row that was under way more than one step may have ended and not been kept: they are short here.
    assert sum(count - 1 for count in log.values()) <= 5 * 30
    assert summary["in_doubt"] <= 4 * 30  # leased: what was in flight and one batch
    for record in read_rows(tmp_path / "out.jsonl"):
        assert {name: record[name] for name in STEPS} == answers(record["text"])


def committed(state: Path) -> list[str]:
    """The names of the prompts of all steps that the store of a dead run holds."""
    with sqlite3.connect(state / "store.db") as connection:
        places = [place for (place,) in connection.execute("SELECT place FROM step WHERE ok = 1")]
    found = []
    for row, step in (divmod(place, 4096) for place in places):
        text = f"row {row} says hello"
        told = answers(text)
        found.append(
            (f"first of {text}", f"second of {told['first']}", f"third of {told['second']} and {text}")[step]
        )
    return list(map(row_name, found))


def test_an_interrupt_keeps_the_steps_that_were_finished(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", 200)
    with MockProcess(MockSettings(latency="80ms", log=True, row_key="prompt")) as mock:
        write_job(tmp_path, mock, LINEAR)
        started = start(tmp_path, "--procs", "2", "--in-flight", "20")
        until(lambda: mock.stats()["ok"] > 200)
        started.kill(signal.SIGINT)
        assert started.wait() == 4
        summary = start(tmp_path, "--procs", "2", "--in-flight", "20").summary()
        log = asked(mock)
    assert (summary["ok"], summary["in_doubt"]) == (200, 0)
    assert sum(log.values()) == 600 and max(log.values()) == 1, "a drain lets calls end, and loses none"


WAITS = """
import asyncio, os


async def waits(row):
    while not os.path.exists("gate"):
        await asyncio.sleep(0.05)
    return row["id"]
"""


def test_figures_in_the_output_are_the_same_with_and_without_an_interruption(tmp_path: Path) -> None:
    steps = """
    [[steps]]
    name = "shaped"
    function = "own_functions:shaped"
    [[steps]]
    name = "first"
    model = "small"
    prompt = "first of {{ shaped }}"
    [[steps]]
    name = "second"
    model = "large"
    prompt = "second of {{ first }}"
    [[steps]]
    name = "last"
    function = "own_functions:waits"
    """
    source = f"{WAITS}\n\nasync def shaped(row):\n    return row['text'].upper()\n"
    folders = (tmp_path / "whole", tmp_path / "interrupted")
    flags = (
        "in.jsonl",
        "-o",
        "out.jsonl",
        "--job",
        "job.toml",
        "--meta",
        "--json",
        "--no-progress",
        "--procs",
        "1",
    )
    with MockProcess(MockSettings(latency="150ms")) as mock:
        for folder in folders:
            folder.mkdir()
            (folder / "own_functions.py").write_text(source)
            write_rows(folder / "in.jsonl", 20)
            write_job(folder, mock, steps)
        (folders[0] / "gate").touch()
        assert run("run", *flags, folder=folders[0]).last_json()["ok"] == 20
        started = Run(
            "run", *flags, prefix=("env", "-C", str(folders[1])), environment={"PYTHONPATH": str(ROOT)}
        )
        until(lambda: steps_kept(folders[1]) == 60)
        started.kill()
        started.wait()
        (folders[1] / "gate").touch()
        again = run("run", *flags, folder=folders[1]).last_json()
        assert (again["ok"], mock.stats()["requests"]) == (20, 80)
    whole, interrupted = (read_rows(folder / "out.jsonl") for folder in folders)
    for record in (*whole, *interrupted):
        assert record.pop("_latency_ms") >= 300, "of all its steps together"
        assert (record["_attempts"], record["_model"]) == (4, "large")
    assert interrupted == whole


def steps_kept(folder: Path) -> int:
    """How many steps the store of a run holds by now."""
    path = folder / "out.jsonl.run" / "store.db"
    if not path.exists():
        return 0
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM step").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # its tables are being made


def test_a_changed_step_is_run_again_with_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", 50)
    with MockProcess(MockSettings(latency="10ms", log=True, row_key="prompt")) as mock:
        write_job(tmp_path, mock, LINEAR)
        assert start(tmp_path, "--procs", "1").summary()["ok"] == 50
        write_job(tmp_path, mock, LINEAR.replace("second of", "2nd of"))
        refused = start(tmp_path, "--procs", "1")
        assert refused.wait() == 2 and "engine retry" in refused.err and "--from second" in refused.err
        state = str(tmp_path / "out.jsonl.run")
        wrong = run("retry", state, "--from", "third", "--json", "--no-progress")
        assert wrong.wait() == 2 and "Give --from second" in wrong.err
        assert mock.stats()["requests"] == 150
        again = run("retry", state, "--from", "second", "--json", "--no-progress").last_json()
        assert (again["ok"], again["requests"]) == (50, 100)
        assert [prompt for prompt, count in asked(mock).items() if count > 1] == []
        unknown = run("retry", state, "--from", "fourth")
        assert unknown.wait() == 2 and "Known: first, second, third" in unknown.err
    for record in read_rows(tmp_path / "out.jsonl"):
        assert record["second"] == expected_answer(f"2nd of {record['first']}")


def test_an_earlier_step_is_corrected_for_the_rows_that_failed_and_for_no_others(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", 9)
    with MockProcess(MockSettings(latency="10ms")) as mock:
        write_job(tmp_path, mock, LINEAR.replace('"second of', '"{{ 1 // (id % 3) }}second of'))
        assert start(tmp_path, "--procs", "1").summary()["failed"] == 3
        changes = ("--set", "first.prompt=1st of {{ text }}", "--set", "second.prompt=second of {{ first }}")
        state = str(tmp_path / "out.jsonl.run")
        assert run("retry", state, *changes, "--json", "--no-progress").last_json()["requests"] == 9
    for record in read_rows(tmp_path / "out.jsonl"):
        word = "first" if record["id"] % 3 else "1st"
        assert record["first"] == expected_answer(f"{word} of {record['text']}")
        assert record["_status"] == "ok"


def test_another_choice_of_what_is_kept_costs_nothing(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", 10)
    with MockProcess(MockSettings(latency="10ms")) as mock:
        write_job(tmp_path, mock, LINEAR)
        assert start(tmp_path, "--procs", "1").summary()["ok"] == 10
        write_job(tmp_path, mock, LINEAR.replace('name = "second"', 'name = "second"\nkeep = false'))
        refused = start(tmp_path, "--procs", "1")
        assert refused.wait() == 2 and "--on-change redo" in refused.err
        assert start(tmp_path, "--procs", "1", "--on-change", "redo").summary()["ok"] == 10
        assert mock.stats()["requests"] == 30  # nothing was sent for it
    for record in read_rows(tmp_path / "out.jsonl"):
        told = answers(record["text"])
        assert "second" not in record
        assert (record["first"], record["third"]) == (told["first"], told["third"])


def test_going_again_from_a_step_that_was_interrupted_goes_on_with_the_same_command(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", 100)
    flags = ("--from", "second", "--json", "--no-progress")
    with MockProcess(MockSettings(latency="100ms", log=True, row_key="prompt")) as mock:
        write_job(tmp_path, mock, LINEAR)
        assert start(tmp_path, "--procs", "1", "--in-flight", "20").summary()["ok"] == 100
        write_job(tmp_path, mock, LINEAR.replace("second of", "2nd of"))
        begun = Run("retry", str(tmp_path / "out.jsonl.run"), *flags)
        until(lambda: mock.stats()["ok"] > 340)
        begun.kill(signal.SIGINT)
        assert begun.wait() == 4
        before = mock.stats()["ok"]
        again = run("retry", str(tmp_path / "out.jsonl.run"), *flags)
        assert again.last_json()["ok"] == 100 and "it goes on from there" in again.err
        assert 300 < before < 500 and mock.stats()["ok"] == 500
        assert max(asked(mock).values()) == 1


def test_steps_of_one_quota_share_it_and_use_it(tmp_path: Path) -> None:
    rpm = 12_000
    write_rows(tmp_path / "in.jsonl", 500)
    exact = QuotaSettings(kind="sliding", rpm=rpm)
    second = QuotaSettings(kind="second", rpm=rpm, tolerance=0.1)
    with MockProcess(MockSettings(latency="50ms", quota=(exact, second))) as mock:
        write_job(tmp_path, mock, LINEAR, f"rpm = {rpm}")
        summary = start(tmp_path, "--procs", "3").summary()
        stats = mock.stats()
    assert (summary["ok"], summary["throttled"], stats["throttled"]) == (500, 0, 0)
    assert stats["max_in_clock_second"] <= 220
    assert stats["requests"] / (stats["last_s"] - stats["first_s"]) > 0.9 * rpm / 60
    assert 0.85 < summary["quota"]["rpm_used"] <= 1.02


def test_each_step_has_limits_of_its_own(tmp_path: Path) -> None:
    steps = """
    [[steps]]
    name = "fast"
    prompt = "fast {{ text }}"
    [[steps]]
    name = "slow"
    model = "other"
    rpm = 3000
    prompt = "slow {{ fast }}"
    """
    write_rows(tmp_path / "in.jsonl", 150)
    with MockProcess(MockSettings(latency="10ms", log=True, row_key="prompt")) as mock:
        write_job(tmp_path, mock, steps)
        assert start(tmp_path, "--procs", "2").summary()["ok"] == 150
        slow = sorted(moments(mock, [f"slow {expected_answer(f'fast {text}')}" for text in prompts_of(150)]))
    assert 150 / (slow[-1] - slow[0]) < 1.1 * 50
    assert 150 / (slow[-1] - slow[0]) > 0.8 * 50


def test_a_page_is_fetched_and_asked_about(tmp_path: Path) -> None:
    steps = """
    [[steps]]
    name = "page"
    url = "{origin}/plain?n={{{{ id }}}}"
    into = "html"
    keep = false
    [[steps]]
    name = "summary"
    prompt = "summary of {{{{ html }}}}"
    """
    write_rows(tmp_path / "in.jsonl", 40)
    with MockProcess(MockSettings(latency="20ms")) as mock:
        write_job(tmp_path, mock, steps.format(origin=mock.origin))
        assert start(tmp_path, "--procs", "1").summary()["ok"] == 40
    records = read_rows(tmp_path / "out.jsonl")
    assert all(record["summary"].startswith("mock-") and "html" not in record for record in records)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (LINEAR.replace("{{ first }}", "{{ frist }}"), "names 'frist'"),
        (LINEAR.replace("{{ text }}", "{{ text"), "Step first: "),
        (LINEAR + '[[steps]]\nname = "x"\nprompt = "y"\nwhen = "a b"\n', "Step x: When"),
        (LINEAR + '[[steps]]\nname = "x"\nprompt = "y"\ninto = "_status"\n', "Step x: "),
        (LINEAR + '[[steps]]\nname = "x"\nprompt = "y"\ntake = { a = "nothing" }\n', "'nothing'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(tmp_path: Path, steps: str, says: str) -> None:
    write_rows(tmp_path / "in.jsonl", 3)
    with MockProcess(MockSettings()) as mock:
        write_job(tmp_path, mock, steps)
        refused = start(tmp_path, "--procs", "1")
        assert refused.wait() == 2 and says in refused.err, refused.err
        assert mock.stats()["requests"] == 0


def test_a_run_without_state_streams_what_is_finished(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", 60)
    with MockProcess(MockSettings(latency="20ms")) as mock:
        path = write_job(tmp_path, mock, LINEAR)
        streamed = run(
            "run", str(tmp_path / "in.jsonl"), "-o", "-", "--job", str(path), "--procs", "2", "--no-progress"
        )
    records: list[dict[str, Any]] = [json.loads(line) for line in streamed.out.splitlines()]
    assert sorted(record["id"] for record in records) == list(range(60))
    assert all(record["third"] == answers(record["text"])["third"] for record in records)


FUNCTIONS = """
import asyncio


async def doubled(row):
    await asyncio.sleep(0.05)
    return {"twice": row["id"] * 2}


def checked(pair, text):
    if pair["twice"] % 7 == 0:
        raise ValueError(f"sevens are not wanted: {text}")
    return [pair["twice"], text.upper()]
"""


def test_functions_of_the_users_are_steps_like_others(tmp_path: Path) -> None:
    (tmp_path / "own_functions.py").write_text(FUNCTIONS)
    steps = """
    [[steps]]
    name = "pair"
    function = "own_functions:doubled"
    [[steps]]
    name = "checked"
    function = "own_functions:checked"
    take = { pair = "pair", text = "text" }
    [[steps]]
    name = "asked"
    prompt = "asked {{ checked[1] }}"
    """
    write_rows(tmp_path / "in.jsonl", 70)
    with MockProcess(MockSettings(latency="10ms")) as mock:
        path = write_job(tmp_path, mock, steps)
        done = run(
            "run", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--job", str(path), "--procs", "2",
            "--json", "--no-progress", folder=tmp_path,
        )  # fmt: skip
        summary = done.last_json()
        assert (summary["ok"], summary["failures"], summary["requests"]) == (60, {"function_error": 10}, 60)
        assert mock.stats()["requests"] == 60
    for record in read_rows(tmp_path / "out.jsonl"):
        assert record["pair"] == {"twice": record["id"] * 2}
        if record["id"] % 7:
            assert record["checked"] == [record["id"] * 2, record["text"].upper()]
            assert record["asked"] == expected_answer(f"asked {record['text'].upper()}")
        else:
            wanted = f"function_error: step checked: ValueError: sevens are not wanted: {record['text']}"
            assert (record["_error"], record["checked"], record["asked"]) == (wanted, None, None)
    with sqlite3.connect(tmp_path / "out.jsonl.run" / "store.db") as connection:
        traces = [json.loads(data) for (data,) in connection.execute("SELECT data FROM step WHERE ok = 0")]
    assert len(traces) == 10
    assert all("own_functions.py" in one["traceback"] and "in checked" in one["traceback"] for one in traces)
    assert not any("engine/worker" in one["traceback"] for one in traces)


def test_pages_become_markdown_and_summaries_as_the_example_tells(tmp_path: Path) -> None:
    example = ROOT / "examples" / "pages"
    served = subprocess.Popen(
        [sys.executable, str(example / "serve.py"), "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert served.stdout is not None
        origin = "http://127.0.0.1:" + served.stdout.readline().strip().rstrip("/").rpartition(":")[2]
        rows = (example / "pages.jsonl").read_text().replace("http://127.0.0.1:8765", origin)
        (tmp_path / "pages.jsonl").write_text(rows + json.dumps({"url": f"{origin}/nothing-here"}) + "\n")
        done = run(
            "run", "pages.jsonl", "-o", "out.jsonl", "--job", str(example / "job.toml"), "--procs", "2", "--json",
            "--no-progress", folder=tmp_path,
        )  # fmt: skip
    finally:
        served.kill()
        served.communicate()
    summary = done.last_json()
    records = read_rows(tmp_path / "out.jsonl")
    assert (summary["ok"], summary["failures"]) == (len(records) - 1, {"not_found": 1}), done.err
    assert records[-1]["_error"].startswith("not_found: step page: ")
    for record in records[:-1]:
        assert list(record) == ["url", "text", "summary", "_status", "_error"]
        assert record["text"].startswith("# ") and "<" not in record["text"].split("\n")[0]
        assert "privacy" not in record["text"] and "dataLayer" not in record["text"]
        assert record["summary"] == expected_answer(f"Summarise:\n{record['text']}")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("no_such_module:f", "no_such_module"),
        ("own_functions:none", "none"),
        ("own_functions", "module:function"),
        ("own_functions:asyncio", "asyncio"),
    ],
)
def test_a_function_that_is_not_there_is_refused_before_anything_runs(
    tmp_path: Path, function: str, says: str
) -> None:
    (tmp_path / "own_functions.py").write_text(FUNCTIONS)
    (tmp_path / "job.toml").write_text(f'[[steps]]\nname = "x"\nfunction = "{function}"\n')
    write_rows(tmp_path / "in.jsonl", 3)
    refused = run("run", "in.jsonl", "-o", "out.jsonl", "--job", "job.toml", "--no-progress", folder=tmp_path)
    assert refused.wait() == 2 and "Step x: " in refused.err and says in refused.err
    assert not (tmp_path / "out.jsonl.run").exists()


def test_a_worker_that_a_function_kills_costs_that_row_alone(tmp_path: Path) -> None:
    (tmp_path / "own_functions.py").write_text(
        "import os, signal\n\n\ndef fatal(row):\n    if row['id'] == 5:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n    return row['id']\n"
    )
    (tmp_path / "job.toml").write_text(
        '[[steps]]\nname = "x"\nfunction = "own_functions:fatal"\nmode = "loop"\n'
    )
    write_rows(tmp_path / "in.jsonl", 40)
    done = run(
        "run",
        "in.jsonl",
        "-o",
        "out.jsonl",
        "--job",
        "job.toml",
        "--procs",
        "2",
        "--json",
        "--no-progress",
        folder=tmp_path,
    )
    summary = done.last_json()
    assert (summary["ok"], summary["failures"]) == (39, {"poison": 1})
    assert [one["id"] for one in read_rows(tmp_path / "out.jsonl") if one["_status"] == "failed"] == [5]


def test_a_later_step_whose_endpoint_is_not_there_stops_the_run_and_few_rows_are_begun(
    tmp_path: Path,
) -> None:
    steps = """
    [[steps]]
    name = "first"
    prompt = "first of {{ text }}"
    [[steps]]
    name = "dead"
    base_url = "http://127.0.0.1:9/v1"
    retries = 1000
    prompt = "dead {{ first }}"
    """
    write_rows(tmp_path / "in.jsonl", 3_000)
    with MockProcess(MockSettings(latency="5ms")) as mock:
        write_job(tmp_path, mock, steps)
        stopped = start(tmp_path, "--procs", "1", "--in-flight", "40")
        assert stopped.wait(90) == 3
        requests = mock.stats()["requests"]
    assert "step dead: the endpoint has not answered once" in stopped.last_json()["stopped"]
    # Twice what may be in flight, and what the first step does in a third of a second.
    assert requests < 1_000, "what cannot be finished is not begun without end"


def test_results_larger_together_than_any_message_arrive(tmp_path: Path) -> None:
    (tmp_path / "own_functions.py").write_text(
        "async def page(row):\n    return 'x' * 2_000_000\n\n\ndef size(page):\n    return len(page)\n"
    )
    (tmp_path / "job.toml").write_text(
        '[[steps]]\nname = "page"\nfunction = "own_functions:page"\nkeep = false\n'
        '[[steps]]\nname = "size"\nfunction = "own_functions:size"\ntake = { page = "page" }\n'
    )
    write_rows(tmp_path / "in.jsonl", 200)
    flags = ("--job", "job.toml", "--procs", "1", "--in-flight", "200", "--json", "--no-progress")
    done = run("run", "in.jsonl", "-o", "out.jsonl", *flags, folder=tmp_path)
    summary = done.last_json()
    assert (summary["ok"], summary["in_doubt"], summary["worker_deaths"]) == (200, 0, 0), done.err
    again = run(
        "retry", "out.jsonl", "--from", "size", "--json", "--no-progress", folder=tmp_path
    ).last_json()
    assert (again["ok"], again["in_doubt"], again["worker_deaths"]) == (200, 0, 0)


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_a_retry_finds_the_functions_of_a_run_from_any_folder(tmp_path: Path, mode: str) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "own_functions.py").write_text("def never(row):\n    raise ValueError('not yet')\n")
    (home / "job.toml").write_text(
        f'[[steps]]\nname = "x"\nfunction = "own_functions:never"\nmode = "{mode}"\n'
    )
    write_rows(home / "in.jsonl", 3)
    flags = ("--json", "--no-progress")
    first = run("run", "in.jsonl", "-o", "out.jsonl", "--job", "job.toml", *flags, folder=home)
    assert first.last_json()["failed"] == 3
    (home / "own_functions.py").write_text("def never(row):\n    return row['id']\n")
    again = run("retry", str(home / "out.jsonl"), *flags, folder=elsewhere)
    assert again.last_json()["ok"] == 3, again.err
    from_x = run("retry", str(home / "out.jsonl"), "--from", "x", *flags, folder=elsewhere)
    assert from_x.last_json()["ok"] == 3, from_x.err
