"""Connections to a run's database, and whose database it is.

Rules of this file:
1. Every fault of SQLite leaves this folder as a StoreFailure that says what to do: ``named_faults``.
2. A file of another program, or of a newer version, is never written to.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.core.errors import UsageError
from engine.store.faults import damaged, store_failure
from engine.store.folder import folder_trouble
from engine.store.schema import APPLICATION_ID, MIGRATIONS, SCHEMA, SCHEMA_VERSION

DATABASE_NAME = "store.db"

# fsync: a committed row survives power loss, as far as the disk honours a sync. os: it survives the death of
# any process; power loss takes back what the kernel had not written yet (on Linux about the last 30 s), and
# what is left is still whole.
SYNCHRONOUS = {"fsync": "FULL", "os": "NORMAL"}

_PAGE_BYTES = 4096
_LOG_BYTES = 4 * 1024 * 1024  # past this the write-ahead log is emptied; more would make that pause longer
_CACHE_KIB = 16 * 1024
_BUSY_S = 10.0  # only recovery after a crash holds a lock that others wait for


def connect(folder: Path, *, mode: str) -> sqlite3.Connection:
    """``mode``: rw or ro, as SQLite's URIs name them; neither creates the file."""
    address = f"{(folder / DATABASE_NAME).absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(
        address, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA cell_size_check = ON")  # a damaged page is an error, not a wrong value
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(writer: sqlite3.Connection, folder: Path, *, synchronous: str) -> None:
    """Set a connection up to write, and make the tables where there are none. Raises UsageError."""
    version = version_of(writer, folder)
    if version == 0:
        writer.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    mode = writer.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise UsageError(
            f"The file system of {folder} cannot hold a run's state: SQLite's write-ahead log does not work there "
            "(network file systems are the usual reason). Choose a folder on a local disk with --state."
        )
    writer.execute(f"PRAGMA synchronous = {synchronous}")
    writer.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    writer.execute(f"PRAGMA wal_autocheckpoint = {_LOG_BYTES // _PAGE_BYTES}")
    writer.execute(f"PRAGMA journal_size_limit = {4 * _LOG_BYTES}")
    writer.execute("PRAGMA temp_store = MEMORY")
    if version == 0:
        writer.executescript(SCHEMA)
    for old in range(max(1, version), SCHEMA_VERSION if version else 0):
        writer.executescript(MIGRATIONS[old])


def version_of(connection: sqlite3.Connection, folder: Path) -> int:
    """The schema's version, 0 for an empty file. Raises UsageError for a newer one and for somebody else's."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    owner: int = connection.execute("PRAGMA application_id").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if owner != APPLICATION_ID and (tables or owner):
        raise UsageError(
            f"{folder / DATABASE_NAME} is a database of another program. Choose another folder with --state."
        )
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"The run in {folder} was written by a newer version of engine (store version {version}, this one "
            f"reads {SCHEMA_VERSION}). Use that version, or start over with --fresh."
        )
    return version


@contextmanager
def named_faults(folder: Path) -> Iterator[None]:
    """What SQLite or the operating system says of the folder, as a sentence for the user."""
    try:
        yield
    except sqlite3.Error as error:
        raise store_failure(getattr(error, "sqlite_errorcode", 0), str(error), folder) from error
    except UnicodeDecodeError as error:
        raise damaged("a text is not what was written", folder) from error
    except OSError as error:
        raise folder_trouble(error, folder) from error
