"""Where limiters are found: private, without keys, and never two for one quota."""

import errno
import json
import multiprocessing
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from engine.core.errors import CannotStart
from engine.core.quota import Memory, Rates
from engine.credentials import Secret
from engine.limiter import registry
from engine.limiter.registry import Entry, Info, Registry, boot_id, born, seconds_since

KEYS = (Secret("sk-canary-1"),)


def info(pid: int = 0, **changes: object) -> Info:
    pid = pid or os.getpid()
    known: dict[str, object] = {
        "pid": pid, "born": born(pid), "version": 4, "origin": "http://h", "model": "m", "boot": boot_id(),
        "at": time.monotonic(), **changes,
    }  # fmt: skip
    return Info(**known)  # type: ignore[arg-type]


def test_the_same_origin_model_and_key_meet_and_any_other_do_not(limiter_dir: Path) -> None:
    places = Registry(str(limiter_dir))
    one = places.entry("http://h", "m", KEYS)
    assert Registry(str(limiter_dir)).entry("http://h", "m", KEYS).path == one.path
    others = [
        places.entry("http://h2", "m", KEYS),
        places.entry("http://h", "m2", KEYS),
        places.entry("http://h", "m", ()),
        places.entry("http://h", "m", (Secret("sk-canary-2"),)),
        places.entry("http://hm", "", KEYS),
    ]
    assert len({one.path, *(other.path for other in others)}) == 6


def test_the_key_is_nowhere_and_its_digest_is_worth_nothing_elsewhere(
    limiter_dir: Path, tmp_path: Path
) -> None:
    places = Registry(str(limiter_dir))
    entry = places.entry("http://h", "m", KEYS)
    entry.make()
    entry.register(os.getpid())
    entry.write(info())
    assert entry.token
    text = "".join(
        str(path) + (path.read_text() if path.is_file() else "") for path in limiter_dir.rglob("*")
    )
    assert "canary" not in text
    (tmp_path / "other").mkdir(mode=0o700)
    assert Registry(str(tmp_path / "other")).entry("http://h", "m", KEYS).path.name != entry.path.name


def test_everything_is_for_the_user_alone_whatever_the_umask(limiter_dir: Path) -> None:
    old = os.umask(0)
    try:
        entry = Registry(str(limiter_dir / "new")).entry("http://h", "m", KEYS)
        with entry.locked():
            entry.register(os.getpid())
            entry.write(info())
        assert entry.token
    finally:
        os.umask(old)
    for path in (limiter_dir / "new", *(limiter_dir / "new").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_folder_that_others_could_have_put_there_is_refused(limiter_dir: Path, tmp_path: Path) -> None:
    link = limiter_dir / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(CannotStart, match="not a folder of yours"):
        Registry(str(link))
    with pytest.raises(CannotStart, match="cannot be made"):
        Registry("/no/such/folder/here")
    if os.getuid() == 0:
        theirs = limiter_dir / "theirs"
        theirs.mkdir()
        os.chown(theirs, 65_534, 65_534)
        with pytest.raises(CannotStart, match="not a folder of yours"):
            Registry(str(theirs))


def test_a_folder_that_is_open_to_others_is_closed(limiter_dir: Path) -> None:
    limiter_dir.chmod(0o777)
    Registry(str(limiter_dir))
    assert stat.S_IMODE(limiter_dir.stat().st_mode) == 0o700


def test_the_lock_keeps_others_out_and_ends_with_its_holder(limiter_dir: Path) -> None:
    entry = Entry(limiter_dir / "q")
    with entry.locked() as mine, Entry(limiter_dir / "q").locked(wait=False) as theirs:
        assert (mine, theirs) == (True, False)
    with entry.locked(wait=False) as mine:
        assert mine


def test_a_lock_on_an_entry_that_was_removed_meanwhile_is_none(
    limiter_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry(limiter_dir / "q")
    real, calls = registry._is_same, []

    def removed_once(descriptor: int, path: Path) -> bool:
        if not calls:
            path.unlink()
        calls.append(path)
        return real(descriptor, path)

    monkeypatch.setattr(registry, "_is_same", removed_once)
    with entry.locked(), Entry(limiter_dir / "q").locked(wait=False) as theirs:
        assert not theirs
    assert len(calls) == 2


def test_a_process_is_known_by_its_birth_and_a_dead_or_unburied_one_is_not_alive(limiter_dir: Path) -> None:
    entry = Entry(limiter_dir / "q")
    assert entry.is_alive(info())
    assert not entry.is_alive(info(born=1.0))
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    seen = info(child.pid)
    assert entry.is_alive(seen)
    child.kill()
    end = time.monotonic() + 5
    while entry.is_alive(seen):  # nobody has waited for it: it is a zombie
        assert time.monotonic() < end
        time.sleep(0.01)
    assert child.wait() == -9
    assert child.stdin is not None
    child.stdin.close()
    assert not entry.is_alive(seen)


def test_marks_of_runs_that_died_are_removed(limiter_dir: Path) -> None:
    entry = Entry(limiter_dir / "q")
    entry.register(os.getpid())
    (entry.path / "runs" / "1").write_text("0.5")
    (entry.path / "runs" / "nonsense").write_text("x")
    assert entry.runs() == {os.getpid()}
    assert [mark.name for mark in (entry.path / "runs").iterdir()] == [str(os.getpid())]
    entry.unregister(os.getpid())
    assert entry.runs() == set()


def test_what_a_limiter_remembers_reaches_the_next_one_within_a_minute(
    limiter_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry(limiter_dir / "q")
    entry.make()
    entry.write(info())
    memory = Memory([(3, 7)], [(3, 700)], [], [], 100, 1.5)
    entry.leave(memory)
    assert entry.info() is None
    found = entry.left()
    assert found is not None
    assert found[0] == memory
    assert 0 <= found[1] < 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + registry.PERIOD_S + 1)
    assert entry.left() is None
    monkeypatch.setattr(registry, "boot_id", lambda: "another")
    assert entry.left() == (memory, 0.0)  # the clock began anew: nobody can tell


def test_files_that_cannot_be_read_tell_nothing(limiter_dir: Path) -> None:
    entry = Entry(limiter_dir / "q")
    entry.make()
    for name in ("info.json", "left.json"):
        (entry.path / name).write_bytes(b"{\xff")
    assert (entry.info(), entry.left()) == (None, None)


def test_times_of_another_boot_are_no_time_ago() -> None:
    now = time.monotonic()
    assert seconds_since(now - 5, boot_id()) == pytest.approx(5, abs=1)
    assert seconds_since(now - 5, "another") == 0.0
    assert seconds_since(now + 5, boot_id()) == 0.0


def test_entries_that_nobody_used_for_a_day_are_removed(limiter_dir: Path) -> None:
    places = Registry(str(limiter_dir))
    old, used, new = (places.entry("http://h", name, ()) for name in ("old", "used", "new"))
    for entry in (old, used, new):
        entry.make()
    used.register(os.getpid())
    past = time.time() - registry.STALE_S - 1
    for entry in (old, used):
        os.utime(entry.path, (past, past))
    places.tidy()
    assert not old.path.exists()
    assert used.path.exists()
    assert new.path.exists()


def _first(folder: str, tokens: "multiprocessing.Queue[str]") -> None:
    tokens.put(Registry(folder).entry("http://h", "m", ()).path.name + Entry(Path(folder) / "q").token)


def test_who_comes_at_the_same_time_reads_the_same_salt_and_token(limiter_dir: Path) -> None:
    context = multiprocessing.get_context("spawn")
    found: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=_first, args=(str(limiter_dir), found)) for _ in range(4)]
    for process in processes:
        process.start()
    assert len({found.get(timeout=30) for _ in processes}) == 1
    for process in processes:
        process.join()


def test_info_is_json_that_others_can_read(limiter_dir: Path) -> None:
    entry = Entry(limiter_dir / "q")
    entry.make()
    entry.write(info(limits=Rates(5)))
    assert json.loads((entry.path / "info.json").read_text())["limits"] == [5, 0, 0, 0]
    assert entry.info() == info(limits=Rates(5), at=entry.info().at)  # type: ignore[union-attr]


@pytest.mark.parametrize("failing", ["replace", "write"])
def test_what_cannot_be_written_whole_leaves_nothing_behind_and_what_was_there_stays(
    limiter_dir: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    entry = Entry(limiter_dir / "q")
    entry.make()
    entry.write(info(model="before"))
    there = sorted(path.name for path in entry.path.iterdir())

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def on_a_full_disk(descriptor: int, mode: str) -> IO[bytes]:
        os.close(descriptor)
        return open("/dev/full", mode)

    with monkeypatch.context() as patch:
        if failing == "replace":
            patch.setattr(os, "replace", full)
        else:
            patch.setattr(registry, "open", on_a_full_disk, raising=False)
        with pytest.raises(OSError, match="No space left"):
            entry.write(info(model="after"))
    assert sorted(path.name for path in entry.path.iterdir()) == there
    found = entry.info()
    assert found is not None and found.model == "before"
