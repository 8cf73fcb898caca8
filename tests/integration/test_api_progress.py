"""What a person sees of a pool's run: on a terminal by itself, elsewhere nothing."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
import engine
rows = [str(number) for number in range(40)]
shown = {"yes": True, "no": False, "": None}[sys.argv[1]]
step = engine.ask("{{ text }}")
with engine.Pool(
    step, rows, provider="mock", base_url="mock:latency=600ms", procs=1, max_flows=20, progress=shown
) as pool:
    print(len(pool.run()))
"""


PRINTS = """
import engine
rows = [str(number) for number in range(40)]
mock = {"provider": "mock", "base_url": "mock:latency=600ms", "procs": 1, "max_flows": 20}
with engine.Pool(engine.ask("{{ text }}"), rows, **mock) as pool:
    for result in pool.stream():
        print("result", result.index)
try:
    engine.Pool(engine.ask("{{ txet }}"), rows, **mock).run()
except engine.UsageError:
    print("refused")
"""


def on_a_terminal(folder: Path, script: str, *arguments: str) -> tuple[str, str]:
    """What the script prints into a file, and what its standard error shows on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # how Linux says that nobody is at the other end any more
        pass
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.decode(), seen.decode()


def seen_on_a_terminal(folder: Path, argument: str) -> str:
    out, seen = on_a_terminal(folder, SCRIPT, argument)
    assert out.strip() == "40"
    return seen


def test_what_a_script_prints_into_a_file_gets_there_beside_the_live_view(tmp_path: Path) -> None:
    out, seen = on_a_terminal(tmp_path, PRINTS)
    *results, refused = out.splitlines()
    assert sorted(results) == sorted(f"result {number}" for number in range(40))
    assert "of 40" in seen and "result" not in seen
    assert refused == "refused"
    assert seen.rfind("\x1b[?25h") > seen.rfind("\x1b[?25l"), "the cursor is shown again"


def test_a_terminal_shows_how_it_goes_unless_that_is_switched_off(tmp_path: Path) -> None:
    shown = seen_on_a_terminal(tmp_path, "")
    assert "rows" in shown and "of 40" in shown and "in flight" in shown
    assert seen_on_a_terminal(tmp_path, "no") == ""


def test_elsewhere_nothing_is_shown_unless_it_is_asked_for(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, ""], cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
