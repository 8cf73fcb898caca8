"""The rules of the house, held by walking its sources: floors, homes of packages, banned calls, tables, words."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from engine import config
from engine.core.errors import POLICY, ErrorKind
from engine.formats import FORMATS
from engine.launchers import LAUNCHERS
from engine.providers import PROVIDERS
from engine.schedules import ARRIVALS
from engine.steps import STEPS
from engine.worker.wires import WIRES

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "engine"
FLOORS = {
    "core": 1, "credentials": 1, "launchers": 1, "mock": 1, "schedules": 1,
    "config": 2, "wire": 2, "providers": 2, "formats": 2, "store": 2,
    "settingtable": 2, "vocabulary": 2, "text": 2,
    "steps": 3, "limiter": 3, "observe": 3, "source": 3, "sink": 3, "endpoints": 3, "jobsteps": 3, "keys": 3, "handover": 3,
    "settings": 4, "rows": 4, "worker": 4, "coordinator": 4, "loadtest": 5, "api": 5, "cli": 6, "__main__": 7, "__init__": 7,
}  # fmt: skip
# Neighbours on one floor that may see each other, and why.
ALLOWED = {
    ("mock", "launchers"),  # the mock is started like any other child
    ("schedules", "core"),  # refusals and quantities; both floors are pure
}
HOMES = {
    "aiohttp": {
        "worker/connections.py",
        "worker/failures.py",
        "worker/resolving.py",
        "worker/wires/aiohttp.py",
        "worker/wires/lean.py",
        "worker/wires/lean_channel.py",
    },
    "zmq": {"wire/link.py"},
    "msgpack": {"wire/messages.py"},
    "sqlite3": {"store/store.py", "store/opening.py", "store/writing.py", "store/reopening.py"},
    "jinja2": {"steps/naming.py", "steps/template.py"},
    "httptools": {"mock/server.py", "worker/wires/lean.py", "worker/wires/lean_channel.py"},
    "pyarrow": {"api/frames.py", "formats/parquet.py"},
    "pandas": {"api/frames.py"},
    "polars": {"api/frames.py"},
    "IPython": {"api/showing.py"},
}
IMPURE = {
    "time",
    "random",
    "os",
    "socket",
    "asyncio",
    "zmq",
    "aiohttp",
    "msgpack",
    "logging",
    "pathlib",
    "subprocess",
}
REVEALS = {"handover.py", "worker/fetch.py", "credentials.py"}
LINES_MAX = 400
WALL_CLOCKS = {
    "time.time",
    "time.time_ns",
    "datetime.now",
    "datetime.utcnow",
}  # they jump; waits and limits never ask them
MAY_ASK_THE_WALL_CLOCK = {
    "observe/log.py",  # a line of the log says when, for people
    "limiter/registry.py",  # the age of a folder: file systems keep wall-clock times
    "mock/brain.py",  # one provider states its resets as dates
}
PRODUCED_BY_WHOLE_RUNS = ("faults", "integration")
PRODUCED_ELSEWHERE = {
    ErrorKind.STORE_FAILURE,  # ends a run and no row, and its name is not shown: exit 5, see faults/test_disk.py
}
# What turns bytes into objects of whoever wrote them.
UNPICKLERS = {
    "pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "copyreg", "multiprocessing", "yaml", "jsonpickle", "dbm",
    "imp", "xmlrpc",
}  # fmt: skip
# A program's own functions travel pickled, where they have no name that a worker could import them by: written by one file,
# read by the other, out of a process's start-up pipe and nothing else.
MAY_PICKLE = {"steps/pickling.py": "Pickler", "steps/finding.py": "loads"}
DECODERS = {
    "unpackb",
    "unpack",
    "recv",
    "recv_multipart",
    "recv_pyobj",
    "recv_json",
    "recv_string",
    "recv_serialized",
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ENGINE.rglob("*.py")):
        yield path.relative_to(ENGINE).as_posix(), ast.parse(path.read_text())


def place_of(name: str) -> str:
    """The part of the house a file or a dotted name belongs to."""
    return name.split("/")[0].removesuffix(".py")


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def wrong_floor(name: str, tree: ast.Module) -> list[str]:
    here = place_of(name)
    found = []
    for module in imports(tree):
        if not module.startswith("engine."):
            continue
        there = module.split(".")[1]
        if there == here or (here, there) in ALLOWED or FLOORS[there] < FLOORS[here]:
            continue
        found.append(f"{name} imports {module}")
    return found


def banned_calls(name: str, tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if isinstance(node.func, ast.Name) and called in ("eval", "exec"):
                found.append(f"{name}: {called}")
            if called == "reveal" and name not in REVEALS:
                found.append(f"{name}: reveals a secret")
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                if (keyword.arg == "verify" and off) or (keyword.arg == "shell" and on):
                    found.append(f"{name}: {keyword.arg}")
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"{name}: a bare except")
    unpicklers = UNPICKLERS - {"cloudpickle"} if name in MAY_PICKLE else UNPICKLERS
    found += [f"{name} imports {module}" for module in imports(tree) if module.split(".")[0] in unpicklers]
    return found


def pickle_calls(tree: ast.Module) -> set[str]:
    """What a module has of ``cloudpickle``, but for which modules it takes by value."""
    found = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "cloudpickle"
    }
    return found - {"register_pickle_by_value", "unregister_pickle_by_value"}


def test_imports_run_only_downwards() -> None:
    assert [line for name, tree in sources() for line in wrong_floor(name, tree)] == []
    assert wrong_floor("core/x.py", ast.parse("from engine.worker import fetch"))


def test_the_coordinator_never_imports_the_worker() -> None:
    for name, tree in sources():
        if place_of(name) == "coordinator":
            assert not [module for module in imports(tree) if module.startswith("engine.worker")], name


def test_core_is_pure() -> None:
    allowed = {"core/retry.py": {"random"}}  # a seeded generator is its argument's type
    for name, tree in sources():
        if place_of(name) == "core":
            found = {module.split(".")[0] for module in imports(tree)} & IMPURE
            assert found <= allowed.get(name, set()), (name, found)


@pytest.mark.parametrize("package", HOMES)
def test_every_package_of_weight_has_one_home(package: str) -> None:
    users = {
        name for name, tree in sources() if package in {module.split(".")[0] for module in imports(tree)}
    }
    assert users <= HOMES[package], users


def clocks_asked(tree: ast.Module) -> set[str]:
    """The wall clocks a module asks, by the names they have at home, however they were imported."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            whole = names.get(first, "") + dot + rest
            found.add(whole.replace("datetime.datetime", "datetime"))
    return found & WALL_CLOCKS


def test_the_wall_clock_is_asked_in_few_places_and_for_no_wait() -> None:
    users = {name for name, tree in sources() if clocks_asked(tree)}
    assert users == MAY_ASK_THE_WALL_CLOCK
    for sample in (
        "import time\ntime.time()",
        "import time as t\nt.time_ns()",
        "from time import time\ntime()",
        "from time import time as now\nf(clock=now)",
        "from datetime import datetime\ndatetime.now(UTC)",
        "import datetime\ndatetime.datetime.utcnow()",
    ):
        assert clocks_asked(ast.parse(sample)), sample
    assert not clocks_asked(ast.parse("import time\ntime.monotonic()\nself.loop.time()"))


def test_nothing_unsafe_is_called() -> None:
    assert [line for name, tree in sources() for line in banned_calls(name, tree)] == []
    for sample in ("eval('1')", "import pickle", "f(shell=True)", "g(verify=False)", "key.reveal()"):
        assert banned_calls("core/x.py", ast.parse(sample)), sample


def test_functions_are_pickled_in_one_place_and_unpickled_in_one() -> None:
    calls = {name: pickle_calls(tree) for name, tree in sources() if "cloudpickle" in imports(tree)}
    assert calls == {name: {call} for name, call in MAY_PICKLE.items()}
    for name, tree in sources():  # under no other name
        renamed = [node for node in ast.walk(tree) if isinstance(node, ast.alias) and node.asname]
        assert not [node for node in renamed if node.name == "cloudpickle"], name
    assert banned_calls("core/x.py", ast.parse("import cloudpickle"))
    assert banned_calls("steps/finding.py", ast.parse("import pickle"))


def test_frames_are_received_in_one_place_and_decoded_in_one_as_plain_values() -> None:
    calls: dict[str, set[str]] = {}
    for name, tree in sources():
        for node in ast.walk(tree):
            called = node.attr if isinstance(node, ast.Attribute) else ""
            if called in DECODERS:
                calls.setdefault(called, set()).add(name)
            if isinstance(node, ast.Call) and called in ("unpackb", "Unpacker"):
                assert not {keyword.arg for keyword in node.keywords} & {"object_hook", "ext_hook"}, name
            hooks = (keyword.arg for keyword in getattr(node, "keywords", ()))
            assert "dec_hook" not in hooks, f"{name}: a hook makes objects of what was sent"
    assert calls.get("unpackb", set()) <= {"wire/messages.py"}
    assert calls.pop("recv_multipart") == {"wire/link.py"}
    assert not [calls[call] for call in calls if call.startswith("recv")]


def test_the_environment_is_read_in_five_places() -> None:
    allowed = {"settings.py", "keys.py", "credentials.py", "launchers/local.py", "launchers/process.py"}
    for name, tree in sources():
        reads = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
        ]
        assert not reads or name in allowed, name


@pytest.mark.parametrize(
    ("folder", "table", "helpers"),
    [
        ("providers", PROVIDERS, None),
        ("formats", FORMATS, None),
        ("steps", STEPS, None),
        ("launchers", LAUNCHERS, None),
        ("worker.wires", WIRES, None),
        ("schedules", ARRIVALS, None),
    ],
)
def test_every_entry_of_a_table_is_there(folder: str, table: dict[str, str], helpers: None) -> None:
    for place in table.values():
        module, _, attribute = place.partition(":")
        assert module.startswith(f"engine.{folder}.")
        assert hasattr(import_module(module), attribute), place


def test_the_wires_that_can_be_asked_for_are_those_there_are() -> None:
    assert set(config.WIRES) == set(WIRES)


def test_every_kind_of_failure_has_one_line_of_policy_that_says_what_it_is() -> None:
    assert set(POLICY) == set(ErrorKind)
    assert all(policy.says for policy in POLICY.values())


def test_every_kind_of_failure_is_one_that_some_whole_run_ended_with() -> None:
    named: set[str] = set()
    for folder in PRODUCED_BY_WHOLE_RUNS:
        for path in (ROOT / "tests" / folder).glob("test_*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    named.add(node.value)
                elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ErrorKind":
                    named.add(node.attr.lower())
    assert {kind for kind in ErrorKind if kind not in named} == PRODUCED_ELSEWHERE


def test_every_module_says_what_it_is_and_none_is_long() -> None:
    for name, tree in sources():
        assert ast.get_docstring(tree), f"{name} has no docstring"
        length = len((ENGINE / name).read_text().splitlines())
        assert length <= LINES_MAX, f"{name} has {length} lines"
        assert "util" not in name


def test_nothing_is_left_unfinished_and_no_machine_is_named() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b|pragma: no cover")
    paths = re.compile(r"/(?:wor)k/|/(?:roo)t/|/(?:op)t/v/")
    for path in [*ROOT.rglob("*.py"), *ROOT.rglob("*.md"), *ROOT.glob("scripts/*"), ROOT / ".ci" / "run"]:
        if ".venv" in str(path) or "build" in path.parts:
            continue
        text = path.read_text()
        assert not paths.search(text), path
        if ENGINE in path.parents:
            assert not marks.search(text), path


def test_the_readme_names_every_exit_code_and_every_command() -> None:
    text = (ROOT / "README.md").read_text()
    for word in (
        "engine run",
        "engine status",
        "engine export",
        "engine retry",
        "engine mock",
        "engine doctor",
    ):
        assert word in text
    assert "Exit codes" in text
