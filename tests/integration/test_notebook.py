"""In a notebook: a real kernel of Jupyter, whose event loop is running, runs cells against the mock provider."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from notebooks import Notebook
from pools import provider
from runs import is_alive, until

from engine.mock.answers import expected_answer
from engine.mock.spawn import MockProcess

pytestmark = pytest.mark.slow

START = """
import os
os.environ["ENGINE_LIMITER_DIR"] = {limiters!r}
import engine
from engine import Pool, ask, call
K = dict(base_url={base_url!r}, model="mock", procs=1)
ROWS = [f"row {{n}}" for n in range(12)]
"""
HELPER = """
def grow(n):
    return n + 10
"""
FIGURES = re.compile(r"rows +12 of 12   0 failed\n.*latency +p50 \d+ ms", re.DOTALL)


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with provider("100ms") as one:
        yield one


@pytest.fixture(scope="module")
def limiters() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="el-") as folder:
        yield folder


def begun(notebook: Notebook, mock: MockProcess, limiters: str) -> Notebook:
    assert not notebook.run(START.format(limiters=limiters, base_url=mock.base_url)).error
    return notebook


@pytest.fixture(scope="module")
def notebook(
    tmp_path_factory: pytest.TempPathFactory, mock: MockProcess, limiters: str
) -> Iterator[Notebook]:
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "helper.py").write_text(HELPER)
    with Notebook(folder) as one:
        yield begun(one, mock, limiters)
        assert one.processes() == []


def answers(count: int = 12) -> list[str]:
    return [expected_answer(f"row {number}") for number in range(count)]


def test_a_cell_runs_a_pool(notebook: Notebook) -> None:
    found = notebook.value("[r.value for r in Pool(ask('{{ text }}'), ROWS, progress=False, **K).run()]")
    assert found == answers()


def test_a_cell_awaits_a_pool_and_the_kernels_loop_goes_on(notebook: Notebook) -> None:
    found = notebook.value("""
import asyncio
ticks = 0
async def tick():
    global ticks
    while True:
        await asyncio.sleep(0.01)
        ticks += 1
ticking = asyncio.create_task(tick())
pool = Pool(ask("{{ text }}"), ROWS, max_flows=2, **K)
results = await pool.arun()
ticking.cancel()
[r.value for r in results], ticks > 5, pool.status["completed"]
""")
    assert found == (answers(), True, 12)


def test_a_cell_takes_results_as_they_come(notebook: Notebook) -> None:
    cell = notebook.run("""
seen = []
async for result in Pool(ask("{{ text }}"), ROWS, max_flows=3, **K).astream():
    print("came", result.index)
    seen.append(result.index)
len(seen)
""")
    assert cell.value == 12
    assert sorted(cell.printed().splitlines()) == sorted(f"came {n}" for n in range(12))
    assert len(cell.shown) == 1


WITHOUT_WIDGETS = "import sys; kept = sys.modules.get('ipywidgets'); sys.modules['ipywidgets'] = None"
WITH_WIDGETS = "import sys; sys.modules.pop('ipywidgets', None); import ipywidgets"


@pytest.mark.parametrize("widgets", [WITH_WIDGETS, WITHOUT_WIDGETS], ids=["with", "without"])
def test_a_run_has_one_output_that_is_redrawn_and_takes_nothing_in(notebook: Notebook, widgets: str) -> None:
    notebook.value(widgets)
    cell = notebook.run("""
print("before")
pool = Pool(ask("{{ text }}"), ROWS, max_flows=1, **K)
for number, result in enumerate(pool.stream()):
    if number % 6 == 0:
        print("meanwhile", number)
print("after")
"last"
""")
    notebook.value("del sys.modules['ipywidgets']")
    assert cell.printed().split() == ["before", "meanwhile", "0", "meanwhile", "6", "after"]
    assert cell.value == "last"
    (shown,) = cell.shown
    assert FIGURES.fullmatch(shown.split("   p99")[0])
    assert len(shown.splitlines()) < 10
    assert cell.printed("stderr") == ""
    kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
    assert kinds == {"text/plain"}


def test_two_runs_of_a_cell_have_an_output_each_and_a_silent_one_none(notebook: Notebook) -> None:
    cell = notebook.run("""
for _ in range(2):
    Pool(ask("{{ text }}"), ROWS, **K).run()
Pool(ask("{{ text }}"), ROWS, progress=False, **K).run()[0].status
""")
    assert len(cell.shown) == 2 and all(FIGURES.match(shown) for shown in cell.shown)
    assert cell.value == "ok"


def test_a_run_in_the_background_belongs_to_the_cell_that_started_it(notebook: Notebook) -> None:
    notebook.run("""
import asyncio
def rows():
    for text in ROWS:
        print("made", text)
        yield text
task = asyncio.create_task(Pool(ask("{{ text }}"), rows(), max_flows=1, **K).arun())
""")
    other = notebook.run("len(await task)")
    assert (other.value, other.shown, other.printed()) == (12, [], "")


def test_functions_of_cells_travel_with_what_they_refer_to(notebook: Notebook) -> None:
    source = """
import math
from dataclasses import dataclass
import helper
from helper import grow

FACTOR = 3

@dataclass
class Side:
    length: float
    def scaled(self):
        return self.length * FACTOR

def scaled(row):
    return Side(math.sqrt(row["x"])).scaled() + helper.grow(0) + grow(0)

async def later(row):
    await asyncio.sleep(0)
    return scaled(row)

steps = [
    call(scaled, into="in_thread", mode="thread"),
    call(scaled, into="in_process", mode="process"),
    call(later, into="on_loop"),
    call(lambda row: FACTOR + row["x"], into="plus"),
]
[list(r.value.values()) for r in Pool(steps, [{"x": 4}, {"x": 9}], procs=1, progress=False).run()]
"""
    assert notebook.value(source) == [[26.0, 26.0, 26.0, 7], [29.0, 29.0, 29.0, 12]]


def test_a_function_that_was_defined_anew_is_the_one_that_is_called(notebook: Notebook) -> None:
    cell = "def f(n):\n    return n + {add}\n[r.value for r in engine.map(f, [1, 2], procs=1, progress=False{state})]"
    assert notebook.value(cell.format(add=1, state="")) == [2, 3]
    assert notebook.value(cell.format(add=5, state=", state='kept'")) == [6, 7]
    refused = notebook.run(cell.format(add=7, state=", state='kept'"))
    assert "UsageError" in refused.error and "fresh" in refused.error
    assert notebook.value(cell.format(add=7, state=", state='kept', fresh=True")) == [8, 9]


def test_an_error_in_a_function_is_shown_with_its_line(notebook: Notebook) -> None:
    notebook.value("def inverse(n):\n    return 1 / (n - 1)  # the line\n")
    cell = notebook.run("""
bad, good = engine.map(inverse, [1, 2], procs=1, progress=False)
print(bad.error)
print(bad.traceback)
good.value
""")
    assert cell.value == 1.0
    assert "ZeroDivisionError: division by zero" in cell.printed().splitlines()[0]
    assert "return 1 / (n - 1)  # the line\n" in cell.printed()
    assert "engine/" not in cell.printed()
    raised = notebook.run("engine.map(inverse, [1, 2], procs=1, progress=False, on_error='raise')").error
    assert "RowFailed: Row 0 failed: function_error" in raised
    assert "return 1 / (n - 1)  # the line\n" in raised


def test_what_cannot_work_is_one_sentence_and_the_next_run_works(notebook: Notebook) -> None:
    refused = notebook.run("Pool(ask('{{ txet }}'), ROWS, **K).run()")
    assert "UsageError: The template names 'txet'" in refused.error and refused.shown == []
    locked = notebook.run(
        "import threading\nlock = threading.Lock()\nengine.map(lambda n: lock.locked(), [1])"
    )
    assert "cannot be sent to worker processes" in locked.error
    assert notebook.value("len(Pool(ask('{{ text }}'), ROWS, **K).run())") == 12


def test_a_frame_is_enriched_and_shown_as_a_table(notebook: Notebook) -> None:
    cell = notebook.run("""
import pandas
frame = pandas.DataFrame({"text": ["row 0", "row 1"]}, index=[7, 9])
found = engine.enrich(frame, prompt="{{ text }}", into="answer", progress=False, **K)
print(list(found["answer"]), list(found.index))
found
""")
    assert cell.printed().strip() == f"{answers(2)} [7, 9]"
    (table,) = [output for output in cell.outputs if output.output_type == "execute_result"]
    assert "<table" in table.data["text/html"]


def test_the_rows_generator_prints_into_the_cell_that_reads_it(notebook: Notebook) -> None:
    cell = notebook.run("""
def rows():
    for n in range(3):
        print("made", n)
        yield f"row {n}"
len(Pool(ask("{{ text }}"), rows(), **K).run())
""")
    assert cell.value == 3 and cell.printed().splitlines() == ["made 0", "made 1", "made 2"]


INTERRUPTED = {
    "run": "pool.run()",
    "stream": "for result in pool.stream(): pass",
    "arun": "await pool.arun()",
    "astream": "async for result in pool.astream(): pass",
}


@pytest.mark.few(way=("run", "astream"))
@pytest.mark.parametrize("way", INTERRUPTED)
def test_an_interrupt_drains_and_the_next_cell_goes_on(
    notebook: Notebook, mock: MockProcess, way: str
) -> None:
    notebook.value("pool = Pool(ask('{{ text }}'), [f'row {n}' for n in range(100)], max_flows=5, **K)")
    before = mock.stats()

    def interrupt() -> None:
        until(lambda: mock.stats()["ok"] >= before["ok"] + 10)
        notebook.interrupt()

    cell = notebook.run(INTERRUPTED[way], meanwhile=interrupt)
    assert "KeyboardInterrupt" in cell.error or "CancelledError" in cell.error
    after = mock.stats()
    done = after["ok"] - before["ok"]
    assert after["requests"] - before["requests"] == done < 100
    assert notebook.processes() == []
    status = {"total": 100, "completed": done, "failed": 0, "running": 0, "pending": 100 - done}
    assert notebook.value("pool.status") == status
    assert notebook.value("[r.value for r in pool.run()]") == answers(100)
    assert mock.stats()["requests"] - before["requests"] == 100


def test_an_interrupt_is_heeded_while_no_answer_comes(notebook: Notebook) -> None:
    with provider("2s") as slow:

        def interrupt() -> None:
            until(lambda: slow.stats()["requests"])
            notebook.interrupt()

        url = f"K | {{'base_url': {slow.base_url!r}}}"
        cell = notebook.run(
            f"pool = Pool(ask('{{{{ text }}}}'), ROWS, max_flows=2, **({url}))\nawait pool.arun()", interrupt
        )
        assert "CancelledError" in cell.error or "KeyboardInterrupt" in cell.error
        assert slow.stats()["requests"] == slow.stats()["ok"] <= 2
    assert notebook.processes() == []


@pytest.mark.parametrize("at_once", [True, False], ids=["killed", "asked"])
def test_a_kernel_that_is_shut_down_leaves_no_process(
    tmp_path: Path, mock: MockProcess, limiters: str, at_once: bool
) -> None:
    left: list[psutil.Process] = []
    with Notebook(tmp_path) as own:
        begun(own, mock, limiters)
        before = mock.stats()["ok"]

        def end() -> None:
            until(lambda: mock.stats()["ok"] >= before + 10)
            left.extend(own.processes())
            own.end(at_once=at_once)

        with pytest.raises(RuntimeError, match="[Kk]ernel"):
            own.run("Pool(ask('{{ text }}'), (f'row {n}' for n in range(10**6)), **K).run()", meanwhile=end)
    assert left
    until(lambda: not any(is_alive(process.pid) for process in left), 10.0)
