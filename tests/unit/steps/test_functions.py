"""Functions of a program, on their way to a process that is not it."""

import base64
import functools
import importlib.util
import json
import operator
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elsewhere import elsewhere

from engine.core.errors import UsageError
from engine.steps import functions
from engine.steps.functions import PICKLED_BYTES_MAX, ScriptEnd, begin_run, travelling
from engine.text import html_to_markdown

STRANGER = """
import functools

FACTOR = 10

def times(row):
    return row["x"] * FACTOR

class Adder:
    def __init__(self, more):
        self.more = more

    def __call__(self, row):
        return row["x"] + self.more

    def twice(self, row):
        return 2 * self(row)

part = functools.partial(lambda more, row: times(row) + more, 4)
"""


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Any]:
    """A module that no other process can import."""
    path = tmp_path / "stranger.py"
    path.write_text(STRANGER)
    spec = importlib.util.spec_from_file_location("stranger", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["stranger"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["stranger"]


def adding(more: int) -> Any:
    def add(row: dict[str, Any]) -> int:
        return int(row["x"]) + more

    return add


def there(function: Any) -> Any:
    """What another process makes of a row."""
    spec, data = travelling(function)
    (value,) = elsewhere(spec, [{"x": 3}], pickled=data, import_path=tuple(sys.path))
    return value


def test_a_function_that_can_be_imported_goes_by_its_name() -> None:
    assert travelling(html_to_markdown) == ("engine.text:html_to_markdown", None)
    assert travelling(json.dumps) == ("json:dumps", None)
    assert travelling(json.JSONEncoder) == ("json.encoder:JSONEncoder", None)
    assert there(json.dumps) == '{"x": 3}'


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (lambda row: row["x"] - 1, 2),
        (adding(5), 8),
        (functools.partial(operator.getitem), "TypeError: getitem expected 2 arguments, got 1"),
        (functools.partial(lambda more, row: row["x"] + more, 4), 7),
    ],
    ids=["lambda", "closure", "partial of a builtin", "partial"],
)
def test_any_other_function_travels_as_it_is(function: Any, value: Any) -> None:
    spec, data = travelling(function)
    assert spec.startswith("pickled:") and data is not None
    assert there(function) == value


def test_functions_and_objects_of_a_module_that_nobody_can_import_take_it_along(stranger: Any) -> None:
    functions = [stranger.times, stranger.Adder(7), stranger.Adder(7).twice, stranger.part]
    assert [there(function) for function in functions] == [30, 10, 20, 34]


def test_what_is_pickled_is_named_by_what_it_does_not_by_where_it_stands() -> None:
    first, second = travelling(adding(5))[0], travelling(adding(6))[0]
    assert first != second
    assert first == travelling(adding(5))[0]
    assert first.startswith("pickled:add-")


def test_what_cannot_travel_is_refused_with_what_to_do() -> None:
    lock = threading.Lock()

    def locked(row: dict[str, Any]) -> int:
        with lock:
            return 1

    with pytest.raises(
        UsageError, match=r"The function locked cannot be sent .* Make that inside the function"
    ):
        travelling(locked)
    large = b"x" * (PICKLED_BYTES_MAX + 1)
    with pytest.raises(UsageError, match="too large to be sent .* Let it read that data from a file"):
        travelling(lambda row: len(large))
    with pytest.raises(UsageError, match="int cannot be called"):
        travelling(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is a generator"):
        travelling(lambda row: (yield 1))


def test_a_run_within_a_script_that_is_only_read_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "is_importing_script", True)
    with pytest.raises(ScriptEnd):
        begin_run()
    assert not issubclass(ScriptEnd, Exception)


SCRIPT = """
import base64, json, sys
from engine.steps.functions import begin_run, travelling

EVENTS = []

def plain(row):
    return [row["x"], helper(), sys.argv]

def helper():
    return len(EVENTS)

class Kept:
    @staticmethod
    def method(row):
        return "method"

if sys.argv[-1] == "--flag":
    def conditional(row):
        return "conditional"

small = lambda row: helper()
specs = [travelling(one) for one in (plain, Kept.method, conditional, small)]
begin_run()
EVENTS.append("as it is then")

def later(row):
    return ["later", helper()]

specs.append(travelling(later))
print(json.dumps([[spec, data and base64.b64encode(data).decode()] for spec, data in specs]))
"""


def told_by(script: Path, text: str) -> list[tuple[str, bytes | None]]:
    """How the functions travel that a script prints."""
    script.write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, str(script), "--flag"], capture_output=True, text=True, check=True, timeout=60
    )
    return [(spec, data and base64.b64decode(data)) for spec, data in json.loads(done.stdout)]


def test_functions_of_a_script_travel_as_they_are_with_what_they_refer_to(tmp_path: Path) -> None:
    told = told_by(tmp_path / "main.py", SCRIPT)
    (tmp_path / "main.py").unlink()  # nobody reads it
    assert [spec.partition("-")[0] for spec, _ in told] == [
        f"pickled:{name}" for name in ("plain", "Kept.method", "conditional", "lambda", "later")
    ]
    values = [elsewhere(spec, [{"x": 5}], pickled=data)[0] for spec, data in told]
    assert values == [[5, 0, ["program", "--flag"]], "method", "conditional", 0, ["later", 1]]


HELD = """
import base64, json, sys, threading
from engine.steps.functions import begin_run, travelling

LOCK = threading.Lock()
TABLE = bytes(5_000_000)
MARK = "{mark}"

def locked(row):
    with LOCK:
        return [row["x"], MARK]

def large(row):
    return [row["x"], len(TABLE)]

try:
    begin_run()
    print(json.dumps([travelling(locked), travelling(large)]))
finally:
    open("finally.txt", "a").write("x")
"""


def test_what_cannot_be_taken_along_is_found_by_reading_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "main.py"
    told = told_by(script, HELD.format(mark="a"))
    assert [spec.rpartition("-")[0] for spec, _ in told] == [
        f"script:{script}:locked",
        f"script:{script}:large",
    ]
    assert [data for _, data in told] == [None, None]
    end = HELD.splitlines().index("    begin_run()") + 1
    for known in (0, end):
        found = [elsewhere(spec, [{"x": 5}], script_end=known)[0] for spec, _ in told]
        assert found == [[5, "a"], [5, 5_000_000]]
    assert told_by(script, "\n\n" + HELD.format(mark="a")) == told
    (locked, _), large = told_by(script, HELD.format(mark="b"))
    assert locked != told[0][0] and large == told[1]  # another code or constant is another function
    assert (
        tmp_path / "finally.txt"
    ).read_text() == "xxx"  # of this process's three scripts, and of no worker


NAMED = """
import base64, functools, json, typing
from engine.steps.functions import travelling

Count = typing.NewType("Count", int)

@functools.lru_cache(maxsize=7)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

def counted(row) -> Count:
    return [fibonacci(10), fibonacci.cache_info().maxsize]

class Only:
    def __reduce__(self):
        return "ONLY"

ONLY = Only()

def only(row):
    return ONLY is not None

specs = [travelling(one) for one in (counted, only)]
print(json.dumps([[spec, data and base64.b64encode(data).decode()] for spec, data in specs]))
"""


def test_nothing_is_sent_that_a_worker_would_look_for_in_the_script(tmp_path: Path) -> None:
    """Pickle knows some things by their names: in a worker there is nothing of that name."""
    (counted, data), (only, nothing) = told_by(tmp_path / "main.py", NAMED)
    assert elsewhere(counted, [{"x": 5}], pickled=data) == [[55, 7]]
    assert only.startswith("script:") and nothing is None
