"""Which format a file has: by its ending, else by how it begins.

Rules of this file:
1. Only the first bytes are looked at; nothing is consumed.
"""

import gzip
import zlib
from pathlib import Path

import msgspec

from engine.core.errors import UsageError
from engine.formats import FORMATS, format_named

PEEK_BYTES = 65_536
GZIP_MAGIC = b"\x1f\x8b"
_PARQUET_MAGIC = b"PAR1"
_BOM = b"\xef\xbb\xbf"


def detect(path: str, *, content: bool = True) -> tuple[str, bool]:
    """The format's name, and whether the file is gzipped. ``content``: look inside where the ending tells nothing.

    Raises UsageError where nothing tells. Standard input is jsonl unless a format is given.
    """
    if path == "-":
        return "jsonl", False
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
        with Path(path).open("rb") as file:
            return file.read(PEEK_BYTES)
    except OSError:
        return b""  # whoever opens it says why


def by_content(head: bytes) -> str:
    """The format of bytes. Raises UsageError for a JSON array, which is no stream of rows."""
    if head.startswith(_PARQUET_MAGIC):
        return "parquet"
    if head.startswith(GZIP_MAGIC):
        machine = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            head = machine.decompress(head, PEEK_BYTES)
        except (zlib.error, gzip.BadGzipFile):
            return "jsonl"
    text = head.removeprefix(_BOM).lstrip()
    if text.startswith(b"["):
        raise UsageError("The input is one JSON array. Make lines of it first, for example with: jq -c '.[]'")
    if not text.startswith(b"{"):
        return "csv"
    try:
        first = msgspec.json.decode(text.split(b"\n", 1)[0])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "jsonl"
    batch = isinstance(first, dict) and {"custom_id", "url", "body"} <= first.keys()
    return "openai-batch" if batch else "jsonl"
