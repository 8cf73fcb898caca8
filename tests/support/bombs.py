"""Small bytes that become many: compressed bodies and JSON texts that cost whoever unpacks them without a bound.

Rules of this file:
1. Pure functions; a bomb is made in a fraction of a second, however much it stands for.
"""

import gzip
import json
import zlib
from typing import Final

import pyarrow as pa

MB: Final = 1024 * 1024
_PIECE = 64 * MB


def deflated(megabytes: int) -> bytes:
    """A raw deflate stream of so many megabytes of spaces."""
    machine = zlib.compressobj(9, wbits=-15)
    # Flushed fully, a piece can be repeated: it refers to nothing before it.
    piece = machine.compress(b" " * _PIECE) + machine.flush(zlib.Z_FULL_FLUSH)
    last = zlib.compressobj(9, wbits=-15)
    return piece * (megabytes * MB // _PIECE) + last.compress(b"x") + last.flush()


def gzipped(megabytes: int) -> bytes:
    """The same as gzip. Its check sum is wrong, which only who unpacks all of it can find out."""
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + deflated(megabytes) + bytes(8)


def zlibbed(megabytes: int) -> bytes:
    """The same as zlib's format, which HTTP calls deflate."""
    return b"\x78\x9c" + deflated(megabytes) + bytes(4)


def packed(megabytes: int, codec: str) -> bytes:
    """So many megabytes of spaces by one of Arrow's codecs: brotli, zstd."""
    return bytes(pa.compress(b" " * (megabytes * MB), codec=codec, asbytes=True))


def members(count: int, plain: bytes = b"") -> bytes:
    """So many gzip members, one after the other."""
    return gzip.compress(plain) * count


def json_bombs(factor: float = 1.0) -> dict[str, bytes]:
    """JSON texts (and what is nearly JSON) that are deep, wide, long or out of range. ``factor``: of their size."""
    many = int(1_000_000 * factor)
    return {
        "deep list": b"[" * 100_000 + b"]" * 100_000,
        "deep object": b'{"choices":' * 100_000 + b"1" + b"}" * 100_000,
        "deep and unclosed": b"[" * many,
        "deep as the decoder takes": b'{"a":' * 900 + b"1" + b"}" * 900,
        "deep and unexpected": b'{"b":' * 900 + b"1" + b"}" * 900,
        "deep below the answer": b'{"choices":[{"message":{"content":'
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}}]}",
        "a million digits": b'{"choices":' + b"7" * many + b"}",
        "a million decimals": b'{"choices":0.' + b"7" * many + b"}",
        "out of range": b'{"choices":1e400,"usage":{"prompt_tokens":1e400,"completion_tokens":-1e999999999}}',
        "far out of range": b'{"choices":1e' + b"9" * 30 + b"}",
        "a million keys": json.dumps({f"k{number}": number for number in range(many // 2)}).encode(),
        "one key a million times": b"{" + b",".join([b'"choices":[]'] * many) + b"}",
        "a million choices": b'{"choices":[' + b"{}," * many + b"{}]}",
        "big numbers": b'{"choices":[' + b",".join([b"9" * 399] * (many // 50)) + b"]}",
        "half emojis": b'{"choices":[{"message":{"content":"' + rb"\ud800" * many + b'"}}]}',
        "escapes": b'{"choices":[{"message":{"content":"' + rb"\u0041" * many + b'"}}]',
        "spaces": b" " * 4 * many,
        "tags": b"<" * 4 * many,
        "nothing is a number": b'{"choices":[NaN,Infinity,-Infinity]}',
        "keys of the prototype": b'{"__proto__":{"choices":[]},"constructor":{"prototype":{}}}',
    }
