"""The output: records out of the store into a file that appears whole, or streamed to standard output.

Rules of this file:
1. A reader of the output's name sees the old file or the new one, never half of one.
2. The output belongs to the user: a new file gets the mode that any new file of theirs gets, one that is
   replaced keeps its mode, and a symbolic link stays one. Until it appears nobody else can read it.
3. Only regular files are replaced: a device or a pipe under the output's name is refused.
"""

import glob
import gzip
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import psutil

from engine.core.errors import EngineError, ExitCode, StoreFailure, UsageError
from engine.formats import format_named
from engine.formats.base import Format, UnknownColumn, Writer

BATCH = 512
GZIP_LEVEL = 6
PASSES_MAX = 5  # a running run that is exported may bring forth new columns between two passes


class ReaderLeft(EngineError):
    """Whoever read our standard output has closed it. Nothing is lost that was committed."""

    exit_code = ExitCode.INTERRUPTED


def check_output(output: str, state: str, source: str) -> None:
    """Refuse, before anything is sent, an output that cannot be written in the end. Raises UsageError."""
    path = Path(output)
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(
            f"The output's folder {folder} does not exist. Make it first, or choose another output."
        )
    if path.is_dir():
        raise UsageError(f"The output {output} is a folder. Give a file's name.")
    if path.exists():
        if not path.is_file():
            raise UsageError(
                f"The output {output} is a device or a pipe. Give a file's name, or - to stream."
            )
        if not os.access(path, os.W_OK):
            raise UsageError(f"The output {output} exists and is read-only. Give another name.")
    if source and source != "-" and path.exists() and Path(source).exists() and path.samefile(source):
        raise UsageError(
            f"The output {output} is the input. Give another name: inputs are never overwritten."
        )
    folder = Path(os.path.realpath(path)).parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"The output's folder {folder} is not writable.")


def publish(
    records: Callable[[], Iterable[bytes]],
    output: str,
    format_name: str,
    *,
    columns: tuple[str, ...],
    notes: Mapping[str, Any],
    escape_cells: bool,
    rows: int | None = None,
) -> int:
    """Write all records to ``output`` and let it appear; how many there were.

    ``rows``: how many there have to be. Another number is a fault of ours, and the output does not appear.

    ``records`` is called once for each pass: formats that need to know all columns first make two.
    Raises StoreFailure when the disk does not take it; the name is untouched then.
    """
    path = Path(os.path.realpath(output))
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    kind = format_named(format_name)
    try:
        _forget_abandoned(path)
        with _create(temporary) as file:
            mode = _private(file, path)
            zipped = kind.text and output.lower().endswith(".gz")
            count = _passes(kind, file, zipped, records, columns, notes, escape_cells)
            if rows is not None and count != rows:
                raise EngineError(
                    f"The output {output} would have {count} rows where {rows} were read. It was not written. This is "
                    "a fault of the engine: please report it. engine export writes the rows that there are."
                )
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreFailure(
            f"The output {output} could not be written ({error.strerror or error}). All results are safe in the run's "
            "state: make room or mend the disk and give the same command again, or write them elsewhere with engine export."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _forget_abandoned(path: Path) -> None:
    """Remove what a process that was killed while it wrote this output has left behind."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        pid = left.name.removeprefix(f".{path.name}.").partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            left.unlink(missing_ok=True)


def _passes(
    kind: Format,
    file: BinaryIO,
    zipped: bool,
    records: Callable[[], Iterable[bytes]],
    columns: tuple[str, ...],
    notes: Mapping[str, Any],
    escape_cells: bool,
) -> int:
    for _ in range(PASSES_MAX):
        try:
            return _pass(kind, file, zipped, records, columns, notes, escape_cells)
        except UnknownColumn:
            # A record has more columns than we were told of: a first pass over all of them finds these.
            file.seek(0)
            file.truncate()
            columns = ()
    raise StoreFailure(
        "The records keep changing while they are written. Nothing was written; try again when the run is over."
    )


def _pass(
    kind: Format,
    file: BinaryIO,
    zipped: bool,
    records: Callable[[], Iterable[bytes]],
    columns: tuple[str, ...],
    notes: Mapping[str, Any],
    escape_cells: bool,
) -> int:
    surveyor = kind.surveyor(columns=columns, notes=notes)
    if surveyor is not None:
        for batch in _batches(records()):
            surveyor.see(batch)
        columns, notes = surveyor.result()
    stream = _zipped(file) if zipped else file
    try:
        writer = kind.writer(stream, columns=columns, notes=notes, escape_cells=escape_cells)
        return _write_all(writer, records())
    finally:
        # Also after a failed pass: a compressor that is collected later would write its end into the next one.
        if stream is not file:
            stream.close()


def _create(path: Path) -> BinaryIO:
    return path.open("xb", buffering=1024 * 1024)


def _private(file: BinaryIO, path: Path) -> int:
    """Make a new file readable for its owner alone; the mode it is to have when it appears."""
    mode = os.fstat(file.fileno()).st_mode  # the kernel has applied the umask
    if path.exists():
        mode = path.stat().st_mode
    os.fchmod(file.fileno(), 0o600)
    return stat.S_IMODE(mode)


def _zipped(file: BinaryIO) -> BinaryIO:
    # No name and no time in the header: the same records give the same bytes.
    return cast(
        BinaryIO, gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=GZIP_LEVEL, mtime=0)
    )


def _batches(records: Iterable[bytes]) -> Iterator[list[bytes]]:
    iterator = iter(records)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def _write_all(writer: Writer, records: Iterable[bytes]) -> int:
    count = 0
    for batch in _batches(records):
        writer.write(batch)
        count += len(batch)
    writer.finish()
    return count


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class StreamOut:
    """Standard output, for records in the order they complete.

    Raises UsageError for a format that cannot begin before all records are known: Parquet, and CSV without a
    header to tell the columns.
    """

    def __init__(
        self,
        stream: BinaryIO | None = None,
        *,
        format_name: str = "jsonl",
        columns: tuple[str, ...] = (),
        escape_cells: bool = True,
    ) -> None:
        self._stream = sys.stdout.buffer if stream is None else stream
        kind = format_named(format_name)
        if not kind.text or kind.surveyor(columns=columns, notes={}) is not None:
            raise UsageError(
                f"Records cannot be streamed as {format_name}: its columns are only known at the end. "
                "Give a file as the output, or use jsonl."
            )
        self._writer: Writer | None = None
        self._kind, self._columns, self._is_escaping = kind, columns, escape_cells

    def write(self, records: list[bytes]) -> None:
        """Write records and flush. Raises ReaderLeft when nobody reads any more, else StoreFailure."""
        if not records:
            return
        try:
            if self._writer is None:
                self._writer = self._kind.writer(
                    self._stream, columns=self._columns, notes={}, escape_cells=self._is_escaping
                )
            self._writer.write(records)
            self._stream.flush()
        except BrokenPipeError:
            self._abandon()
            raise ReaderLeft("nobody reads the output any more; the run stops") from None
        except OSError as error:
            self._abandon()
            raise StoreFailure(
                f"Standard output could not be written ({error.strerror or error}). Make room, or give a file "
                "as the output, and start again."
            ) from None

    def _abandon(self) -> None:
        # Python flushes standard output once more at exit; it would fail again, loudly.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


__all__ = ["ReaderLeft", "StreamOut", "check_output", "publish"]
