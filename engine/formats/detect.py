"""Which format a file has: by its ending, else by how it begins.

Rules of this file:
1. Only the first bytes are looked at; nothing is consumed. A pipe under a name cannot be looked into without
   taking from it, so its format has to be given.
"""

import gzip
import stat
import zlib
from pathlib import Path

import msgspec

from engine.core.errors import UsageError
from engine.formats import FORMATS, format_named
from engine.formats.inputs import standard_input

PEEK_BYTES = 65_536
GZIP_MAGIC = b"\x1f\x8b"
_PARQUET_MAGIC = b"PAR1"
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_FOREIGN = {
    b"PK\x03\x04": "a ZIP or spreadsheet file; save it as CSV or Parquet",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it, or use gzip",
    b"\xfd7zXZ": "compressed with xz; unpack it, or use gzip",
    b"BZh": "compressed with bzip2; unpack it, or use gzip",
}


def detect(path: str, *, content: bool = True) -> tuple[str, bool]:
    """The format's name, and whether the file is gzipped. ``content``: look inside where the ending tells nothing.

    Raises UsageError where nothing tells. Standard input is told by its content, standard output is jsonl.
    """
    if path == "-":
        head = standard_input().peek(PEEK_BYTES) if content else b""
        return (by_content(head) if head else "jsonl"), head.startswith(GZIP_MAGIC)
    name = path.lower()
    zipped = name.endswith(".gz")
    stem = name.removesuffix(".gz")
    by_ending = next(
        (one for one in FORMATS if one != "openai-batch" and stem.endswith(_endings(one))),
        None,
    )
    head = _head(path) if content else b""
    if by_ending in (None, "jsonl") and head:
        found = by_content(head)
        if found == "openai-batch" or by_ending is None:
            return found, zipped or head.startswith(GZIP_MAGIC)
    if by_ending is None:
        known = ", ".join(ending for one in FORMATS for ending in _endings(one))
        raise UsageError(
            f"The format of {path} is not clear from its name. Use one of {known}, or give the format."
        )
    return by_ending, zipped


def _endings(name: str) -> tuple[str, ...]:
    if name == "parquet":  # its module needs an extra, its name does not
        return (".parquet", ".pq")
    return format_named(name).endings


def _head(path: str) -> bytes:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return b""
        with Path(path).open("rb") as file:
            return file.read(PEEK_BYTES)
    except OSError:
        return b""  # whoever opens it says why


def by_content(head: bytes) -> str:
    """The format of bytes. Raises UsageError for what is no stream of rows: one JSON document, an archive."""
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            raise UsageError(f"The input is {what}.")
    if head.startswith(_PARQUET_MAGIC):
        return "parquet"
    if head.startswith(GZIP_MAGIC):
        machine = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            head = machine.decompress(head, PEEK_BYTES)
        except (zlib.error, gzip.BadGzipFile):
            return "jsonl"
    text = head.removeprefix(_BOM).lstrip()
    line = text.split(b"\n", 1)[0].strip(_SPACE)
    # A line like [1, 2] is one bad row; an array of records, or one laid out over lines, is the whole input.
    if line.startswith(b"[") and line[1:].lstrip()[:1] in (b"", b"{"):
        raise UsageError("The input is one JSON array. Make lines of it first, for example with: jq -c '.[]'")
    if line == b"{":
        raise UsageError(
            "The input is JSON laid out over several lines. Make one line of each record: jq -c ."
        )
    if line.startswith(b"["):
        return "jsonl"
    if not line.startswith(b"{"):
        return "csv"
    try:
        first = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "jsonl"
    batch = isinstance(first, dict) and {"custom_id", "url", "body"} <= first.keys()
    return "openai-batch" if batch else "jsonl"
