"""Stores that were cut or changed while nobody looked: refused with a sentence, or read as far as they are whole.

Rules of this file:
1. Every kind of damage begins with the same state: a run's, killed half-way and copied aside.
2. Either the same command says what is wrong, and goes on once the copy was put back; or it ends well, and its output is
   right and whole. What was cut off a log is a shorter history, whose rows are asked again.
3. What was committed is in the log alone until that is emptied, so that damage to the store itself comes after that.
"""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from history import acknowledged_rows, history_of
from runs import Run, ask_flags, until, write_rows
from scorecard import Promise, Scorecard

from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROWS = 300
PROMPTS = [f"row {number} says hello" for number in range(ROWS)]
HEAD_BYTES = 100  # what SQLite writes of the whole file at its beginning
NIGHTLY = 20  # cases of a kind


def cut(data: bytes, case: int, _: Random) -> bytes:
    """Ends early: at half, within the last page, a page short, within the first page, and then anywhere."""
    places = (len(data) // 2, len(data) - 1, len(data) - 4096, 1000, 50)
    return data[: places[case]] if case < len(places) else data[: Random(case).randrange(len(data))]


def flipped(data: bytes, case: int, random: Random) -> bytes:
    """Some bits are others: many, a few, one. Only where something was written, for most of a page may be empty."""
    changed = bytearray(data)
    written = [at for at in range(HEAD_BYTES, len(data)) if data[at]]
    for at in random.sample(written, (16, 4, 1)[case % 3]):
        changed[at] ^= 1 << random.randrange(8)
    return bytes(changed)


def head_flipped(data: bytes, _: int, random: Random) -> bytes:
    """One bit of what says what kind of file it is."""
    changed = bytearray(data)
    changed[random.randrange(HEAD_BYTES)] ^= 1 << random.randrange(8)
    return bytes(changed)


class Damage(NamedTuple):
    """What is done to which file, how often in the quick set, and whether somebody has to notice."""

    file: str
    change: Callable[[bytes, int, Random], bytes]
    few: int
    is_noticed: bool  # a shorter log is a shorter history; there is nothing to be seen of it


DAMAGES = {
    "a store that was cut": Damage("store.db", cut, 2, True),
    "a store with other bits": Damage("store.db", flipped, 2, True),
    "a store with another head": Damage("store.db", head_flipped, 1, False),
    "a log that was cut": Damage("store.db-wal", cut, 1, False),
    "a log with other bits": Damage("store.db-wal", flipped, 1, False),
}


def empty_the_log(store: Path) -> None:
    """Bring all that was committed from the log into the store."""
    with closing(sqlite3.connect(store)) as connection:
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy
    assert store.stat().st_size > 8 * 4096


def wrong_with(mock: MockProcess, output: Path, kept: set[int]) -> dict[str, Any]:
    """What is not as it must be after a run that ended well; {} is a pass."""
    history = history_of(mock, PROMPTS, output)
    found: dict[str, Any] = {
        "unaccounted": history.unaccounted(),
        "duplicated": history.duplicated(),
        "out_of_order": history.out_of_order(),
        "wrong_bodies": history.wrong_bodies(),
        "not ok": [record["id"] for record in history.output or [] if record["_status"] != "ok"],
        "lost": history.lost(kept),
    }
    return {what: value for what, value in found.items() if value}


@pytest.mark.quick(what=["a store that was cut", "a log that was cut"])
@pytest.mark.parametrize("what", DAMAGES)
def test_a_store_that_was_cut_or_changed_is_never_read_as_if_it_were_whole(
    tmp_path: Path, what: str, scorecard: Scorecard, pytestconfig: pytest.Config
) -> None:
    damage = DAMAGES[what]
    cases = damage.few if pytestconfig.getoption("--trials") != "nightly" else NIGHTLY
    source, output = write_rows(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    state, aside = Path(f"{output}.run"), tmp_path / "aside"
    damaged_file = state / damage.file

    def put_back() -> None:
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(aside, state)
        output.unlink(missing_ok=True)

    codes = []
    with MockProcess(MockSettings(latency="50ms", log=True, row_key="prompt")) as mock:
        flags = ask_flags(mock.base_url, source, output, "--procs", "1", "--in-flight", "32")
        first = Run(*flags)
        until(lambda: mock.stats()["ok"] > ROWS // 2)
        first.kill()
        first.wait()
        shutil.copytree(state, aside)
        kept = acknowledged_rows(output)
        assert 30 < len(kept) < ROWS
        for case in range(cases):
            put_back()
            if damage.file == "store.db":
                empty_the_log(damaged_file)
            whole = damaged_file.read_bytes()
            broken = damage.change(whole, case, Random(f"{what} {case}"))
            assert broken != whole
            damaged_file.write_bytes(broken)
            second = Run(*flags)
            code = second.wait()
            codes.append(code)
            assert "Traceback" not in second.err
            wrong: dict[str, Any] = {}
            if code == 0:
                wrong = wrong_with(mock, output, kept)
            else:
                # 2 is for a change of the words that say whose store it is, of which version, of which job and input.
                if code not in (2, 5) or "engine: " not in second.err:
                    wrong["end"] = code
                put_back()
                again = Run(*flags)
                if again.wait():
                    wrong["end with the copy"] = again.err
                else:
                    wrong |= wrong_with(mock, output, kept)
            scorecard.add(Promise.P1_NO_LOSS, "damaged store", 1, int(bool(wrong)), damage=what)
            assert not wrong, f"{what}, case {case}: exit code {code}: {second.err}"
    assert 5 in codes or not damage.is_noticed
