"""A script that is read for its functions: how far, and what it is kept from doing once more."""

import ast
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import UsageError
from engine.steps import finding
from engine.steps.finding import resolve
from engine.steps.reading import _before

LONG = """
import sys
first = 1
try:
    second = 2
    if first:
        third = 3
        RUN
    fourth = 4
except Exception:
    fifth = 5
finally:
    sixth = 6
seventh = 7
"""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finding, "_scripts", {})
    yield
    sys.modules.pop(finding.SCRIPT_MODULE, None)
    sys.modules.pop("beside", None)


def read(text: str, end: int = 0) -> Any:
    """The function ``f`` of a script."""
    Path("script.py").write_text(textwrap.dedent(text))
    return resolve(f"script:{Path('script.py').absolute()}:f-0123", script_end=end)


def assigned(body: list[ast.stmt]) -> set[str]:
    return {
        node.id for one in body for node in ast.walk(one)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }  # fmt: skip


def test_it_ends_before_the_statement_that_runs_rows_and_enters_no_clearing_up() -> None:
    line = LONG.splitlines().index("        RUN") + 1
    assert assigned(_before(ast.parse(LONG).body, line)) == {"first", "second", "third"}
    loop = "a = 1\nwith open('x', 'w') as b:\n    c = 1\n    RUN\nd = 1\n"
    assert assigned(_before(ast.parse(loop).body, 4)) == {"a"}
    other = "if a:\n    b = 1\nelse:\n    c = 1\n    RUN\n    d = 1\n"
    assert assigned(_before(ast.parse(other).body, 5)) == {"c"}
    assert assigned(_before(ast.parse("a = 1\nRUN(\n1\n)\nb = 2\n").body, 3)) == {"a"}


def test_lines_keep_their_numbers_and_no_compiled_file_is_left() -> None:
    found = read(
        "from __future__ import annotations\n\ndef f(row: nothing):\n    return 1 / 0\n\nRUN\n", end=6
    )
    with pytest.raises(ZeroDivisionError) as caught:
        found({})
    assert caught.traceback[-1].lineno + 1 == 4
    assert [path.name for path in Path().iterdir()] == ["script.py"]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # a socket that was not connected
@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("open('kept.txt', 'w')", "it opens kept.txt for writing"),
        ("open('kept.txt', 'a')", "it opens kept.txt for appending"),
        ("open('kept.txt', 'r+')", "it opens kept.txt for writing"),
        ("Path('kept.txt').write_text('x')", "it opens kept.txt for writing"),
        ("os.open('kept.txt', os.O_WRONLY)", "it opens kept.txt for writing"),
        ("os.remove('kept.txt')", "it removes kept.txt"),
        ("os.replace('kept.txt', 'other.txt')", "it renames kept.txt"),
        ("shutil.rmtree('folder')", "it removes folder"),
        ("os.rmdir('folder')", "it removes folder"),
        ("os.makedirs('new/one')", "it makes the folder new"),
        ("os.truncate('kept.txt', 0)", "it truncates kept.txt"),
        ("subprocess.run(['true'])", "it starts true"),
        ("os.system('true')", "it starts true"),
        ("threading.Thread(target=print).start()", "it starts a thread"),
        ("socket.create_connection(('127.0.0.1', PORT))", "it connects to 127.0.0.1:"),
        ("urllib.request.urlopen(f'http://127.0.0.1:{PORT}/', b'paid')", "it connects to 127.0.0.1:"),
        ("requests.post(f'http://127.0.0.1:{PORT}/', b'paid')", "it connects to 127.0.0.1:"),
        ("pandas.DataFrame({'a': [1]}).to_csv('kept.txt')", "it opens kept.txt for writing"),
    ],
)
def test_what_it_would_do_once_more_is_refused_with_its_line(does: str, told: str) -> None:
    for module in ("requests", "pandas"):
        if does.startswith(module):
            pytest.importorskip(module)
    Path("kept.txt").write_text("precious")
    Path("folder").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.0)
        text = f"""
            import os, shutil, socket, subprocess, threading, urllib.request
            from pathlib import Path
            PORT = {server.getsockname()[1]}
            def act():
                {"import " + does.partition(".")[0] if does.startswith(("requests", "pandas")) else "pass"}
                {does}
            try:
                act()
            except:
                pass
            def f(row): ...
            """
        with pytest.raises(UsageError) as caught:
            read(text)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert f"once more in every worker what it does in line 7: {told}" in str(caught.value)
    assert 'if __name__ == "__main__":' in str(caught.value)
    assert Path("kept.txt").read_text() == "precious"
    assert sorted(path.name for path in Path().iterdir()) == ["folder", "kept.txt", "script.py"]
    assert Path("again.txt").write_text("x")  # this process is free again


def test_what_does_no_harm_may_be_done() -> None:
    Path("beside.py").write_text("open('by_an_import.txt', 'w').close()\n")
    Path("folder").mkdir()
    sys.path.insert(0, "")
    try:
        text = """
            import contextlib, logging, os, tempfile
            import beside
            with open(__file__) as file:
                KEPT = file.read()
            os.makedirs("folder", exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.remove("nothing.txt")
            with tempfile.TemporaryDirectory() as folder:
                open(os.devnull, "w").close()
            logging.FileHandler("run.log").close()
            print("not shown", flush=True)
            def f(row):
                return len(KEPT)
            """
        assert read(text)({}) == len(Path("script.py").read_text())
    finally:
        sys.path.remove("")
    assert Path("by_an_import.txt").exists()


def test_nothing_that_it_prints_is_shown_and_later_words_are(tmp_path: Path) -> None:
    text = """
        import os, sys
        print("once")
        os.write(1, b"more")
        print("and again", file=sys.stderr)
        def f(row):
            print("heard")
        """
    (tmp_path / "script.py").write_text(textwrap.dedent(text))
    reader = "from engine.steps.finding import resolve; import sys; print('before'); resolve(sys.argv[1])({})"
    done = subprocess.run(
        [sys.executable, "-c", reader, f"script:{tmp_path}/script.py:f"],
        env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("before\nheard\n", "")


def test_a_module_beside_it_acts_for_it_when_it_is_called() -> None:
    Path("beside.py").write_text("def act():\n    open('kept.txt', 'w')\n")
    sys.path.insert(0, "")
    try:
        with pytest.raises(UsageError, match=r"in line 2 of .*beside\.py: it opens kept\.txt for writing"):
            read("import beside\nbeside.act()\ndef f(row): ...\n")
    finally:
        sys.path.remove("")


def test_other_threads_are_left_alone() -> None:
    reading, written = threading.Event(), threading.Event()

    def write() -> None:
        reading.wait(10)
        Path("other.txt").write_text("x")
        written.set()

    thread = threading.Thread(target=write)
    thread.start()
    own = type(sys)("of_the_other_thread")
    own.reading, own.written = reading, written  # type: ignore[attr-defined]
    sys.modules[own.__name__] = own
    try:
        read("import of_the_other_thread as o\no.reading.set()\no.written.wait(10)\ndef f(row): ...\n")
    finally:
        del sys.modules[own.__name__]
        thread.join()
    assert Path("other.txt").read_text() == "x"
    assert subprocess.run(["true"], check=False).returncode == 0
