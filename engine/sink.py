"""The output: records out of the store into a file that appears whole, or streamed to standard output.

Rules of this file:
1. A reader of the output's name sees the old file or the new one, never half of one.
2. The output belongs to the user: it gets the mode that any new file of theirs gets.
"""

import gzip
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from engine.core.errors import EngineError, ExitCode, StoreFailure, UsageError
from engine.formats import format_named
from engine.formats.base import Format, UnknownColumn, Writer

BATCH = 512
GZIP_LEVEL = 6


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
    if source and source != "-" and path.exists() and Path(source).exists() and path.samefile(source):
        raise UsageError(
            f"The output {output} is the input. Give another name: inputs are never overwritten."
        )
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
) -> int:
    """Write all records to ``output`` and let it appear; how many there were.

    ``records`` is called once for each pass: formats that need to know all columns first make two.
    Raises StoreFailure when the disk does not take it; the name is untouched then.
    """
    path = Path(output)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    kind = format_named(format_name)
    try:
        with _create(temporary) as file:
            zipped = kind.text and output.lower().endswith(".gz")
            try:
                count = _pass(kind, file, zipped, records, columns, notes, escape_cells)
            except UnknownColumn:
                # A record has more columns than the header told of: a first pass over all of them finds these.
                file.seek(0)
                file.truncate()
                count = _pass(kind, file, zipped, records, (), notes, escape_cells)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreFailure(
            f"The output {output} could not be written ({error.strerror or error}). All results are safe in the run's "
            "state: make room and give the same command again, or write them elsewhere with engine export."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return count


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
    writer = kind.writer(stream, columns=columns, notes=notes, escape_cells=escape_cells)
    count = _write_all(writer, records())
    if stream is not file:
        stream.close()
    return count


def _create(path: Path) -> BinaryIO:
    return path.open("xb", buffering=1024 * 1024)


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
    """Standard output, for records in the order they complete."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = sys.stdout.buffer if stream is None else stream

    def write(self, records: list[bytes]) -> None:
        """Write records and flush. Raises ReaderLeft when nobody reads any more."""
        if not records:
            return
        try:
            self._stream.write(b"\n".join(records) + b"\n")
            self._stream.flush()
        except BrokenPipeError:
            # Python flushes standard output once more at exit; it would fail again, loudly.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            raise ReaderLeft("nobody reads the output any more; the run stops") from None


__all__ = ["ReaderLeft", "StreamOut", "check_output", "publish"]
