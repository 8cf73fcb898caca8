"""Single calls to the disk that fail, one after the other: strace has the kernel refuse the n-th of its kind and all later ones.

Rules of this file:
1. Only the coordinator has the store and the output open, so that what fails is always its call.
2. Whatever fails: exit 5 (2 or 3 where the run could not even begin), a sentence, nothing lost that was kept, and the same
   command finishes the job.
"""

from pathlib import Path

import pytest
from history import acknowledged_rows, history_of
from runs import Run, ask_flags, write_rows
from scorecard import Promise, Scorecard
from servers import needs

from engine.core.errors import UsageError
from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROWS = 300
CALLS = {  # the kernel's call, its error, which of them in the quick set
    "commits that cannot be made durable": ("fdatasync", "EIO", (1, 8)),
    "an output or a folder that cannot be made durable": ("fsync", "EIO", (3,)),
    "a disk without room": ("pwrite64", "ENOSPC", (20,)),
    "a disk that fails": ("pwrite64", "EIO", ()),
    "a disk that became read-only": ("openat,pwrite64", "EROFS", (8, 30)),
    "an output that may not take its name": ("rename,renameat,renameat2", "EACCES", (1,)),
    "no more open files": ("open,openat", "EMFILE", (5,)),
}
NIGHTLY_MAX = 40  # calls of a kind, should a run make more


def kept_rows(output: Path) -> set[int]:
    try:
        return acknowledged_rows(output)
    except UsageError:
        return set()  # it failed before the store was one


@pytest.mark.quick(what=["commits that cannot be made durable", "a disk without room"])
@pytest.mark.parametrize("what", CALLS)
def test_a_call_to_the_disk_may_fail_at_any_time(
    tmp_path: Path, what: str, scorecard: Scorecard, pytestconfig: pytest.Config
) -> None:
    strace = needs("strace")
    calls, error, few = CALLS[what]
    is_short = pytestconfig.getoption("--trials") != "nightly"
    if is_short and not few:
        pytest.skip("in the nightly set")
    source, prompts = write_rows(tmp_path / "in.jsonl", ROWS), [f"row {n} says hello" for n in range(ROWS)]
    for nth in few if is_short else range(1, NIGHTLY_MAX):
        folder = tmp_path / str(nth)
        folder.mkdir()
        output, log = folder / "out.jsonl", folder / "strace.log"
        state = Path(f"{output}.run")
        prefix = [strace, "-D", "-f", "--seccomp-bpf", "-qq", "-o", str(log)]
        for path in (folder, output, state, state / "store.db", state / "store.db-wal"):
            if "rename" not in calls:  # the names that it is renamed from and to are made up
                prefix += ["-P", str(path)]
        prefix += ["-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={nth}+"]
        with MockProcess(MockSettings(latency="5ms", log=True, row_key="prompt")) as mock:
            flags = ask_flags(mock.base_url, source, output, "--procs", "1", "--in-flight", "32")
            stopped = Run(*flags, prefix=tuple(prefix))
            code = stopped.wait()
            struck = log.read_text().count("INJECTED")
            kept = kept_rows(output)
            was_whole = output.exists()  # a store's last clearing up may fail without a loss: its log stays
            again = Run(*flags)
            assert again.wait() == 0, again.err
            history = history_of(mock, prompts, output)
        if not struck:
            assert not is_short, "the call was never reached"
            break  # a whole run makes no more of them
        wrong = {
            "lost": history.lost(kept),
            "unaccounted": history.unaccounted(),
            "duplicated": history.duplicated(),
            "wrong_bodies": history.wrong_bodies(),
            "exit code": code not in ((0, 5) if was_whole else (5,) if kept else (2, 3, 5)),
            "no sentence": "Traceback" in stopped.err or ("engine: " not in stopped.err and not was_whole),
        }
        wrong = {name: value for name, value in wrong.items() if value}
        scorecard.add(Promise.P1_NO_LOSS, "failing disk calls", 1, int(bool(wrong)), call=what)
        assert not wrong, f"{calls} number {nth}: exit code {code}: {stopped.err}"
