"""The store: what was committed is there, whole and in order, whatever happened to the process or the file."""

import itertools
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.core.commit import checksum, pack_rows, sums_by_kind, unpack_rows
from engine.core.errors import ErrorKind, ExitCode, StoreFailure, UsageError
from engine.store import Commit, Counts, OutcomeRow, Store, move_aside
from engine.store import store as store_module
from engine.store.faults import store_failure


def outcome(row: int, *, kind: str = "", size: int = 0, cost: int = 1) -> OutcomeRow:
    record = b'{"row":%d,"text":"%s"}' % (row, b"x" * size)
    return OutcomeRow(row, not kind, kind, row * 31 - 7, record, cost, 12.5, 10 * cost, 20 * cost)


def finished(*rows: int) -> Commit:
    return Commit(outcomes=[outcome(row) for row in rows])


def rows_in(store: Store) -> list[int]:
    return [row for row, _, _ in store.finished()]


def raw(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "store.db", isolation_level=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl.run"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with Store.open(folder, durability="os") as opened:
        yield opened


# --- what goes in comes out -------------------------------------------------------------------------------


def test_a_new_store_is_empty(store: Store) -> None:
    assert rows_in(store) == list(store.records()) == []
    assert store.counts() == Counts(0, {}, 0, 0, 0)
    assert (store.identity(), store.total_rows(), store.get_meta("job")) == (None, None, None)
    assert (store.is_finished(), store.in_doubt_total(), store.recover()) == (False, 0, 0)


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_outcomes_come_back_by_row_whatever_order_they_were_committed_in(
    folder: Path, durability: str
) -> None:
    with Store.open(folder, durability=durability) as store:
        store.apply([finished(5, 3), Commit(outcomes=[outcome(4, kind="timeout")])])
        store.apply([finished(0)])
    with Store.open(folder, durability=durability) as store:
        assert list(store.finished()) == [(0, -7, True), (3, 86, True), (4, 117, False), (5, 148, True)]
        assert list(store.records()) == [outcome(row).record for row in (0, 3, 4, 5)]


@pytest.mark.parametrize(("durability", "level"), [("fsync", 2), ("os", 1)])  # SQLite: 2 is FULL, 1 is NORMAL
def test_every_commit_is_synced_unless_the_user_asked_otherwise(
    folder: Path, durability: str, level: int
) -> None:
    with Store.open(folder, durability=durability) as store:
        assert store._writer is not None
        assert store._writer.execute("PRAGMA synchronous").fetchone() == (level,)
        assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("count", [1, 4, 63, 64, 65, 85, 149])
def test_groups_of_every_size_are_written_whole(store: Store, count: int) -> None:
    store.apply([finished(*range(count))])
    assert rows_in(store) == list(range(count))
    assert store.counts().ok == count


@pytest.mark.parametrize("digest", [-(2**63), -1, 0, 2**63 - 1])
def test_a_digest_is_any_signed_64_bit_number(store: Store, digest: int) -> None:
    store.apply([Commit(outcomes=[outcome(2**40)._replace(digest=digest)])])
    assert list(store.finished()) == [(2**40, digest, True)]
    assert list(store.records()) == [outcome(2**40).record]
    assert list(store.records(before=2**40)) == []
    assert list(store.records(before=2**40 + 1)) == [outcome(2**40).record]


def test_records_are_bytes_and_come_back_unchanged(store: Store) -> None:
    records = [b"", b"\x00\xff'\"\n", "\u2028é".encode(), b"x" * 3_000_000]
    store.apply(
        [Commit(outcomes=[outcome(row)._replace(record=record) for row, record in enumerate(records)])]
    )
    assert list(store.records()) == records


def test_counts_add_up_by_kind_and_unknown_tokens_add_nothing(store: Store) -> None:
    store.apply([Commit(outcomes=[outcome(0, cost=2), outcome(1, kind="timeout", cost=5)])])
    store.apply([Commit(outcomes=[outcome(2, kind=ErrorKind.TIMEOUT), outcome(3, kind="poison", cost=0)])])
    store.apply([Commit(outcomes=[outcome(4)._replace(tokens_in=-1, tokens_out=-1)])])
    counts = store.counts()
    assert counts == Counts(2, {"timeout": 2, "poison": 1}, 9, 80, 160)
    assert counts.rows == 5


def test_identity_meta_and_totals_are_kept(folder: Path) -> None:
    with Store.open(folder, durability="os") as store:
        store.set_identity({"target": {"model": "m"}, "n": [1, None]})
        store.set_meta("job", "one")
        store.set_meta("job", "two")
        store.apply([Commit(total_rows=7)])
    with Store.open(folder, durability="os") as store:
        assert store.identity() == {"target": {"model": "m"}, "n": [1, None]}
        assert (store.get_meta("job"), store.get_meta("other"), store.total_rows()) == ("two", None, 7)
        store.set_total_rows(9)
        assert store.total_rows() == 9


def test_a_run_is_finished_when_it_says_so(folder: Path) -> None:
    with Store.open(folder, durability="os") as store:
        store.finish()
    with Store.view(folder) as store:
        assert store.is_finished()


def test_reading_goes_page_by_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_FINISHED_PAGE", 3)
    monkeypatch.setattr(store_module, "_RECORDS_PAGE", 3)
    monkeypatch.setattr(store_module, "_RECORDS_PAGE_BYTES", 150)
    rows = [0, 1, 2, 3, 7, 8, 9, 20, 21]
    store.apply([Commit(outcomes=[outcome(row, size=60) for row in rows])])
    assert rows_in(store) == rows
    assert list(store.records()) == [outcome(row, size=60).record for row in rows]


def test_a_reader_that_pauses_sees_later_rows_and_does_not_keep_the_log_from_being_emptied(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_FINISHED_PAGE", 1)
    store.apply([finished(0, 1)])
    cursor, records = store.finished(), store.records()
    assert (next(cursor)[0], next(records)) == (0, outcome(0).record)
    for row in range(2, 34):
        store.apply([Commit(outcomes=[outcome(row, size=500_000)])])
    assert (folder / "store.db-wal").stat().st_size < 10_000_000
    assert [row for row, _, _ in cursor] == list(range(1, 34))


# --- leases and doubt -------------------------------------------------------------------------------------


def test_rows_leased_and_not_finished_are_in_doubt_after_an_interruption(folder: Path) -> None:
    with Store.open(folder, durability="os") as store:
        store.apply([Commit(opened=[(1, [0, 1, 2]), (2, [3, 4])])])
        store.apply([finished(0, 3)])
    with Store.open(folder, durability="os") as store:
        assert store.recover() == 3
        assert store.recover() == 0
        store.apply([Commit(opened=[(1, [1])])])
    with Store.open(folder, durability="os") as store:
        assert (store.recover(), store.in_doubt_total()) == (1, 4)


def test_closed_leases_and_released_rows_are_not_in_doubt(store: Store) -> None:
    store.apply([Commit(opened=[(1, [0, 1]), (2, [2, 3, 4]), (3, [5])])])
    store.apply([Commit(outcomes=[outcome(0), outcome(1)], closed=[1]), Commit(released=[(2, [2, 4])])])
    store.apply([Commit(released=[(3, [5])], closed=[3])])
    assert store.recover() == 1  # row 3


def test_a_lease_may_be_opened_shrunk_and_closed_within_one_group(store: Store) -> None:
    store.apply(
        [Commit(opened=[(1, [0, 1]), (2, [2, 3])]), Commit(released=[(1, [0]), (2, [3])]), Commit(closed=[2])]
    )
    assert store.recover() == 1  # row 1


def test_a_released_row_that_is_leased_again_in_the_same_group_is_in_doubt(store: Store) -> None:
    store.apply([Commit(opened=[(1, [0, 1])])])
    store.apply([Commit(released=[(1, [0, 1])], closed=[1]), Commit(opened=[(2, [0, 1])])])
    assert store.recover() == 2


def test_rows_of_dead_workers_are_added_to_the_total(store: Store) -> None:
    store.apply([Commit(opened=[(1, [0, 1, 2])])])
    store.apply([Commit(closed=[1], in_doubt=3), Commit(in_doubt=2)])
    assert (store.in_doubt_total(), store.recover(), store.in_doubt_total()) == (5, 0, 5)


# --- failed rows again ------------------------------------------------------------------------------------


def test_forgotten_failures_are_open_again_and_what_they_cost_stays_counted(store: Store) -> None:
    failures = [outcome(1, kind="timeout", cost=5), outcome(2, kind="poison"), outcome(3, kind="timeout")]
    store.apply([Commit(outcomes=[outcome(0), *failures])])
    store.finish()
    assert store.forget_failed("timeout") == 2
    assert rows_in(store) == [0, 2]
    assert store.counts() == Counts(1, {"poison": 1}, 8, 80, 160)
    assert not store.is_finished()
    store.apply([finished(1, 3)])
    assert store.forget_failed() == 1
    assert store.counts() == Counts(3, {}, 10, 100, 200)


def test_forgetting_nothing_leaves_a_finished_run_finished(store: Store) -> None:
    store.apply([finished(0)])
    store.finish()
    assert (store.forget_failed(), store.forget_failed("timeout"), store.is_finished()) == (0, 0, True)


# --- whole or not at all ----------------------------------------------------------------------------------


def test_a_group_that_cannot_be_written_leaves_nothing_and_nothing_is_written_after_it(folder: Path) -> None:
    with Store.open(folder, durability="os") as store:
        store.apply([finished(0)])
        with pytest.raises(StoreFailure, match="written twice"):
            store.apply([finished(1), Commit(opened=[(1, [9])], in_doubt=4), finished(0)])
        with pytest.raises(StoreFailure, match="written twice"):
            store.apply([finished(2)])
        with pytest.raises(StoreFailure):
            store.finish()
    with Store.open(folder, durability="os") as store:
        assert (rows_in(store), store.recover(), store.in_doubt_total()) == ([0], 0, 0)
        assert store.counts().ok == 1
        store.apply([finished(2)])


def test_a_failed_outcome_without_a_kind_is_refused_whole(store: Store) -> None:
    with pytest.raises(ValueError):
        store.apply([finished(0), Commit(outcomes=[outcome(1)._replace(ok=False)])])
    assert rows_in(store) == []


def test_a_full_disk_is_said_with_what_to_do_and_what_was_committed_stays(folder: Path) -> None:
    with Store.open(folder, durability="fsync") as store:
        store.apply([finished(0)])
        assert store._writer is not None
        store._writer.execute("PRAGMA max_page_count = 20")
        with pytest.raises(
            StoreFailure, match=r"full.*Nothing committed before is lost.*make room"
        ) as caught:
            store.apply([Commit(outcomes=[outcome(1, size=500_000)])])
        assert caught.value.exit_code is ExitCode.STORE
        assert str(folder) in str(caught.value)
    with Store.open(folder, durability="fsync") as store:
        assert rows_in(store) == [0]
        store.apply([finished(1)])


IN_A_PROCESS = """
import os, resource, sys
from pathlib import Path
from engine.core.errors import StoreFailure
from engine.store import Commit, OutcomeRow, Store

def outcome(row, size):
    return OutcomeRow(row, True, "", row, b"x" * size, 1, 1.0, 1, 1)

folder, what = Path(sys.argv[1]), sys.argv[2]
store = Store.open(folder, durability="fsync")
store.recover()
if what == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
try:
    for row in range(100 if what == "limit" else 10):
        store.apply([Commit(opened=[(row, [row, row + 1000])], outcomes=[outcome(row, 40_000)])])
        print(row, flush=True)
except StoreFailure as error:
    print("failed:", error, flush=True)
    os._exit(5)
print("ready", flush=True)
sys.stdin.read()
"""


def start(folder: Path, what: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", IN_A_PROCESS, str(folder), what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_file_that_may_not_grow_stops_the_run_and_every_acknowledged_row_is_kept(folder: Path) -> None:
    process = start(folder, "limit")
    said, _ = process.communicate(timeout=60)
    lines = said.splitlines()
    assert process.returncode == 5 and lines[-1].startswith("failed: ")
    acknowledged = [int(line) for line in lines[:-1]]
    assert acknowledged == list(range(len(acknowledged))) and 3 < len(acknowledged) < 100
    with Store.open(folder, durability="fsync") as store:
        kept = rows_in(store)
        assert kept[: len(acknowledged)] == acknowledged
        assert len(kept) <= len(acknowledged) + 1  # the commit that failed may have reached the disk, whole
        assert len(list(store.records())) == len(kept)
        store.apply([finished(5000)])


def test_a_killed_process_loses_no_committed_row_and_lets_the_folder_go(folder: Path) -> None:
    process = start(folder, "run")
    try:
        assert process.stdout is not None
        while process.stdout.readline() != "ready\n":
            assert process.poll() is None
        with pytest.raises(UsageError, match=rf"already running \(pid {process.pid}\)"):
            Store.open(folder, durability="os")
        with pytest.raises(UsageError, match=rf"already running \(pid {process.pid}\)"):
            move_aside(folder)
        with Store.view(folder) as view:
            assert rows_in(view) == list(range(10))
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (folder / "store.db-wal").exists()
    with Store.view(folder) as view:
        assert rows_in(view) == list(range(10))
        assert len(list(view.records())) == 10
    with Store.open(folder, durability="os") as store:
        assert rows_in(store) == list(range(10))
        assert store.recover() == 10


def test_a_log_cut_off_anywhere_gives_whole_groups_from_the_beginning(folder: Path, tmp_path: Path) -> None:
    with Store.open(folder, durability="os") as store:
        for group in range(6):
            store.apply([Commit(outcomes=[outcome(row) for row in range(group * 3, group * 3 + 3)])])
        log = (folder / "store.db-wal").read_bytes()
        database = (folder / "store.db").read_bytes()
    seen: list[int] = []
    for number, length in enumerate(range(0, len(log) + 1, max(1, len(log) // 60))):
        cut = tmp_path / f"cut{number}"
        cut.mkdir(mode=0o700)
        (cut / "store.db").write_bytes(database)
        (cut / "store.db-wal").write_bytes(log[:length])
        with Store.open(cut, durability="os") as store:
            rows = rows_in(store)
            assert rows == list(range(len(rows))) and len(rows) % 3 == 0
            assert list(store.records()) == [outcome(row).record for row in rows]
            assert store.counts().ok == len(rows)
        seen.append(len(rows))
        shutil.rmtree(cut)
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] >= 15


def test_a_flipped_bit_is_noticed_or_without_effect_on_any_record(folder: Path) -> None:
    records = [outcome(row, size=300).record for row in range(40)]
    with Store.open(folder, durability="os") as store:
        store.apply([Commit(outcomes=[outcome(row, size=300) for row in range(40)])])
    database = folder / "store.db"
    whole = database.read_bytes()
    noticed = 0
    for position in range(0, len(whole), 131):
        broken = bytearray(whole)
        broken[position] ^= 1 << (position % 8)
        database.write_bytes(broken)
        try:
            with Store.view(folder) as view:
                assert list(view.records()) == records
        except (StoreFailure, UsageError):
            noticed += 1
    assert noticed > 20


def test_a_record_that_is_not_what_was_written_is_named(folder: Path, store: Store) -> None:
    store.apply([finished(*range(5))])
    with raw(folder) as connection:
        connection.execute("UPDATE outcome SET record = 'other' WHERE row = 3")
    connection.close()
    records = store.records()
    assert list(itertools.islice(records, 3)) == [outcome(row).record for row in range(3)]
    with pytest.raises(StoreFailure, match=r"the record of row 3.*engine export.*--fresh"):
        next(records)


@pytest.mark.parametrize(
    ("statement", "call"),
    [
        ("UPDATE run SET identity = '{'", Store.identity),
        ("UPDATE run SET identity = CAST(x'ff' AS TEXT)", Store.identity),
        ("UPDATE run SET total_rows = 'many'", Store.total_rows),
        ("UPDATE tally SET attempts = 'many'", Store.counts),
        ("INSERT INTO lease VALUES (1, x'0102')", Store.recover),
        ("DELETE FROM outcome WHERE row = 1", lambda store: list(store.records())),
        ("DELETE FROM outcome WHERE row = 1", lambda store: list(store.finished())),
        ("UPDATE outcome SET digest = 'x' WHERE row = 1", lambda store: list(store.records())),
        ("UPDATE outcome SET record = 5 WHERE row = 1", lambda store: list(store.records())),
    ],
)
def test_other_damage_is_a_store_failure_too(
    folder: Path, store: Store, statement: str, call: Callable[[Store], object]
) -> None:
    store.apply([finished(0, 1, 2)])
    with raw(folder) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(StoreFailure, match=r"damaged|not decode"):
        call(store)


# --- the folder -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_folder_and_files_are_private_whatever_the_umask(folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with Store.open(folder, durability="fsync") as store:
            store.apply([finished(0)])
            files = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in folder.iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert files == dict.fromkeys(["lock", "store.db", "store.db-wal", "store.db-shm"], 0o600)


def test_what_was_there_before_is_made_private(folder: Path) -> None:
    Store.open(folder, durability="os").close()
    (folder / "engine.log").write_text("{}\n")
    for entry in folder.iterdir():
        entry.chmod(0o666)
    folder.chmod(0o777)
    Store.open(folder, durability="os").close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in folder.iterdir()} == {0o600}


def test_the_second_to_open_is_refused_until_the_first_has_closed(folder: Path) -> None:
    first = Store.open(folder, durability="os")
    with pytest.raises(UsageError, match=rf"already running \(pid {os.getpid()}\)"):
        Store.open(folder, durability="os")
    first.close()
    first.close()
    Store.open(folder, durability="os").close()


def test_a_lock_file_left_behind_by_another_process_does_not_matter(folder: Path) -> None:
    folder.mkdir()
    (folder / "lock").write_text("1\n")  # a process that surely runs, and has nothing to do with us
    Store.open(folder, durability="os").close()


def test_an_open_that_fails_lets_the_folder_go(folder: Path) -> None:
    folder.mkdir()
    (folder / "store.db").write_bytes(b"this is no database, it is a text " * 300)
    for _ in range(2):
        with pytest.raises(StoreFailure, match=r"not a database.*damaged.*--fresh"):
            Store.open(folder, durability="os")
    with pytest.raises(StoreFailure, match="not a database"):
        Store.view(folder)


def test_a_parent_that_is_missing_is_refused_not_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="parent has to exist"):
        Store.open(tmp_path / "no" / "such", durability="os")
    assert not (tmp_path / "no").exists()


def test_links_and_files_in_the_place_of_the_folder_are_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "link").symlink_to(elsewhere)
    (tmp_path / "file").write_text("mine")
    for name in ("link", "file"):
        with pytest.raises(UsageError, match="not a folder"):
            Store.open(tmp_path / name, durability="os")
    assert list(elsewhere.iterdir()) == []
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["store.db", "lock"])
def test_links_inside_the_folder_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    folder.mkdir()
    target = tmp_path / "precious"
    target.write_text("precious")
    (folder / name).symlink_to(target)
    for _ in range(2):
        with pytest.raises(UsageError):
            Store.open(folder, durability="os")
    assert target.read_text() == "precious"


def test_a_database_of_another_program_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    with raw(folder) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = (folder / "store.db").read_bytes()
    for use in (lambda: Store.open(folder, durability="os"), lambda: Store.view(folder)):
        with pytest.raises(UsageError, match="another program"):
            use()
    assert (folder / "store.db").read_bytes() == before


def test_a_newer_store_is_refused_with_both_versions(folder: Path) -> None:
    Store.open(folder, durability="os").close()
    with raw(folder) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    for use in (lambda: Store.open(folder, durability="os"), lambda: Store.view(folder)):
        with pytest.raises(UsageError, match=r"newer version.*store version 7.*reads 4"):
            use()


def test_a_store_of_before_moments_were_kept_is_read_and_gone_on_with(folder: Path) -> None:
    with Store.open(folder, durability="os") as store:
        store.apply([finished(0, 1)])
    with raw(folder) as connection:
        connection.executescript(
            "DROP TABLE step; DROP TABLE step_name; ALTER TABLE outcome DROP COLUMN sent_s; PRAGMA user_version = 1;"
        )
    connection.close()
    with Store.view(folder) as store:
        assert list(store.sent_moments()) == []
        assert rows_in(store) == [0, 1]
    with Store.open(folder, durability="os") as store:
        store.apply([Commit(outcomes=[outcome(2)._replace(sent_s=7.5)])])
        assert list(store.sent_moments()) == [7.5]
        assert len(list(store.records())) == 3


def test_a_start_cut_off_before_the_tables_were_made_is_taken_up_again(folder: Path) -> None:
    folder.mkdir()
    (folder / "store.db").touch()
    with pytest.raises(UsageError, match="There is no run"):
        Store.view(folder)
    with Store.open(folder, durability="os") as store:
        store.apply([finished(0)])
        assert rows_in(store) == [0]


# --- looking on -------------------------------------------------------------------------------------------


def test_a_view_follows_a_run_that_writes_and_cannot_write_itself(folder: Path, store: Store) -> None:
    with Store.view(folder) as view:
        for row in range(3):
            store.apply([finished(row)])
            assert rows_in(view) == list(range(row + 1))
            assert view.counts().ok == row + 1
        with pytest.raises(TypeError):
            view.apply([finished(9)])
    store.apply([finished(3)])


def test_a_view_of_a_run_that_ended_well_leaves_the_folder_as_it_is(folder: Path) -> None:
    with Store.open(folder, durability="os") as store:
        store.apply([finished(0, 1)])
    assert sorted(entry.name for entry in folder.iterdir()) == ["lock", "store.db"]
    with Store.view(folder) as view:
        assert rows_in(view) == [0, 1]
    for entry in folder.iterdir():
        assert stat.S_IMODE(entry.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["nowhere", "empty", "file", "strange %41 ?#é"])
def test_a_view_of_what_is_no_run_is_refused(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    if name == "file":
        place.write_text("")
    elif name != "nowhere":
        place.mkdir()
    with pytest.raises(UsageError, match="There is no run"):
        Store.view(place)


def test_any_folder_name_will_do(tmp_path: Path) -> None:
    folder = tmp_path / "strange %41 ?mode=memory#é"
    with Store.open(folder, durability="os") as store:
        store.apply([finished(0)])
    assert (folder / "store.db").stat().st_size > 0
    with Store.view(folder) as view:
        assert rows_in(view) == [0]


# --- moving aside -----------------------------------------------------------------------------------------


def test_old_states_are_moved_aside_one_after_the_other_and_kept(folder: Path) -> None:
    assert move_aside(folder) is None
    for number in (1, 2):
        with Store.open(folder, durability="os") as store:
            store.apply([finished(number)])
        assert move_aside(folder) == folder.with_name(f"out.jsonl.run.old-{number}")
        assert not folder.exists()
    for number in (1, 2):
        with Store.view(folder.with_name(f"out.jsonl.run.old-{number}")) as view:
            assert rows_in(view) == [number]


def test_a_state_in_use_is_not_moved(folder: Path, store: Store) -> None:
    with pytest.raises(UsageError, match="already running"):
        move_aside(folder)
    store.apply([finished(0)])
    assert rows_in(store) == [0]


# --- sentences and sums -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (sqlite3.SQLITE_FULL, "make room"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "make the folder writable"),
        (sqlite3.SQLITE_IOERR_FSYNC, "look at the disk"),
        (sqlite3.SQLITE_CORRUPT, "damaged"),
        (sqlite3.SQLITE_NOTADB, "damaged"),
        (sqlite3.SQLITE_CANTOPEN, "still there"),
        (sqlite3.SQLITE_PERM, "still there"),
        (sqlite3.SQLITE_BUSY, "another program"),
        (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, "fault of the engine"),
        (0, "same command again"),
    ],
)
def test_every_fault_of_sqlite_says_what_to_do(code: int, says: str) -> None:
    message = str(store_failure(code, "what it said", Path("/run/here")))
    assert "what it said" in message and "/run/here" in message
    assert says.lower() in message.lower()


def test_a_checksum_belongs_to_its_row_digest_and_fate() -> None:
    known = checksum(5, True, 77, b"record")
    others = [
        (6, True, 77, b"record"),
        (5, False, 77, b"record"),
        (5, True, 78, b"record"),
        (5, True, 77, b"recorD"),
    ]
    assert known == checksum(5, True, 77, b"record")
    assert known not in [checksum(*other) for other in others]


def test_rows_of_a_lease_are_packed_and_unpacked() -> None:
    assert unpack_rows(pack_rows([0, 3, 2**62])) == (0, 3, 2**62)
    assert unpack_rows(pack_rows([])) == ()
    with pytest.raises(ValueError):
        unpack_rows(b"123456789")


def test_sums_of_nothing_are_empty() -> None:
    assert sums_by_kind([]) == {}
