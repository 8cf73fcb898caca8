"""Input files that nobody wants, made anew each time: every trouble in every format that can carry it.

Rules of this file:
1. A pure function of nothing (``corpus``) or of a seed (``mangled``). No file is larger than a few megabytes on disk.
"""

import gzip
import io
import json
from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = ("jsonl", "openai-batch", "csv", "tsv", "parquet")
_ENDINGS = {"jsonl": ".jsonl", "openai-batch": ".jsonl", "csv": ".csv", "tsv": ".tsv", "parquet": ".parquet"}

VALUES: dict[str, str] = {
    "formula": "=HYPERLINK(0)",
    "formula plus": "+1+1",
    "formula at": "@SUM(1)",
    "formula tab": "\t=1",
    "carriage return": "a\rb",
    "newline": "a\nb",
    "line separator": "a\u2028b\u2029c\u0085d",
    "right to left": "\u202eevil\u2066",
    "zero width": "a\u200b\ufeffb",
    "escape": "\x1b]52;c;aGk=\x07\x1b[2J",
    "bell and nul": "\x07\x00\x08",
    "c1 control": "\x9b31m",
    "template": "{{ 7 * 7 }}{% for i in range(9) %}x{% endfor %}{{ ''.__class__ }}",
    "format string": "%s%n{0.__class__}",
    "path": "../../../etc/passwd",
    "absolute path": "/etc/passwd\x00.jsonl",
    "url": "http://169.254.169.254/latest/meta-data/@x\\..\\",
    "header": "x\r\nAuthorization: Bearer stolen",
    "quotes": "\"'`\\\"\\'",
    "json": '{"_status": "ok", "_error": ""}',
    "long": "x" * 200_000,
    "astral": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 50,
    "combining": "e" + "\u0301" * 5_000,
    "number": "1e999999999",
    "digits": "9" * 6_000,
    "empty": "",
    "spaces": " " * 1_000,
    "null word": "null",
    "comma": ",,,,",
    "html": "<script>alert(1)</script>",
}

_JSON_LINES: dict[str, bytes] = {
    "binary": bytes(range(256)),
    "not utf-8": b'{"text": "\xff\xfe"}',
    "overlong": b'{"text": "\xc0\xaf"}',
    "lone surrogate": b'{"text": "\\ud800"}',
    "surrogate bytes": b'{"text": "\xed\xa0\x80"}',
    "nan": b'{"text": NaN}',
    "infinity": b'{"text": -Infinity}',
    "deep array": b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep object": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "unclosed": b'{"text": "a',
    "unclosed deep": b"[" * 100_000,
    "big integer": b'{"text": ' + b"7" * 6_000 + b"}",
    "big exponent": b'{"text": 1e400, "n": -1e999999}',
    "duplicate keys": b'{"text": "a", "text": "b", "text": "c"}',
    "empty key": b'{"": 1, "text": "a"}',
    "own columns": b'{"text": "a", "_status": "failed", "_error": "x", "response": "y"}',
    "array": b"[1, 2, 3]",
    "string": b'"text"',
    "number": b"12",
    "null": b"null",
    "two values": b'{"text": "a"} {"text": "b"}',
    "trailing comma": b'{"text": "a",}',
    "single quotes": b"{'text': 'a'}",
    "comment": b'{"text": "a"} // b',
    "bom": b'\xef\xbb\xbf{"text": "a"}',
    "utf-16": '{"text": "a"}'.encode("utf-16"),
    "nul bytes": b'{"text": "a"}\x00\x00',
    "proto": b'{"__proto__": {"x": 1}, "constructor": 1, "text": "a"}',
    "huge line": b'{"text": "' + b"x" * 3_000_000 + b'"}',
    "many keys": json.dumps({f"k{n}": n for n in range(20_000)} | {"text": "a"}).encode(),
    "long key": json.dumps({"k" * 100_000: 1, "text": "a"}).encode(),
    "path id": b'{"id": "../../x", "custom_id": "../../x", "text": "a"}',
    "bool text": b'{"text": true}',
    "nested text": b'{"text": {"a": [1, {"b": null}]}}',
    "separators": '{"text": "a\u2028b\u0085c"}'.encode(),
}

_FILES: dict[str, bytes] = {
    "empty": b"",
    "one newline": b"\n",
    "newlines": b"\n\r\n\r\r\n" * 100,
    "one byte": b"\x00",
    "zeros": bytes(100_000),
    "random": Random(7).randbytes(50_000),
    "one quote": b'"',
    "quote never closed": b'text\n"' + b"a,b\n" * 10_000,
    "no line end": b'{"text": "a"}',
    "only carriage returns": b"text\ra\rb\r",
    "mixed line ends": b"text\na\r\nb\rc\n",
    "spreadsheet": b"PK\x03\x04" + bytes(200),
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "gzip head": b"\x1f\x8b",
    "gzip cut": gzip.compress(b'{"text": "a"}\n' * 5_000)[:-20],
    "gzip wrong sum": gzip.compress(b'{"text": "a"}\n' * 10)[:-8] + bytes(8),
    "gzip then waste": gzip.compress(b'{"text": "a"}\n') + b"waste",
    "gzip bomb": gzip.compress(bytes(64 * 1024 * 1024)),
    "gzip members": gzip.compress(b'{"text": "a"}\n') * 500,
    "gzip in gzip": gzip.compress(gzip.compress(b'{"text": "a"}\n')),
    "parquet head": b"PAR1",
    "parquet ends only": b"PAR1" + bytes(16) + b"PAR1",
    "utf-16 file": "text\na\nb\n".encode("utf-16"),
    "utf-32 file": "text\na\nb\n".encode("utf-32"),
    "many columns": b",".join(b"c%d" % n for n in range(10_000)) + b"\n" + b"1," * 9_999 + b"1\n",
    "header twice": b"text,text\n1,2\n",
    "header empty": b",,\n1,2,3\n",
    "too many cells": b"text\n1,2,3\n",
    "too few cells": b"text,b,c\n1\n",
    "nul in cell": b"text\na\x00b\n",
    "huge cell": b"text\n" + b"x" * 3_000_000 + b"\n",
}


class Hostile(NamedTuple):
    """One file, and the format it is read as."""

    name: str
    format: str
    ending: str
    content: bytes


def corpus() -> Iterator[Hostile]:
    """All of them: whole files of every kind as every format, hostile lines, hostile values, torn Parquet."""
    for name in FORMATS:
        for what, content in _FILES.items():
            yield Hostile(f"{name}: {what}", name, _ENDINGS[name], content)
    for what, line in _JSON_LINES.items():
        good = b'{"text": "before"}\n', b'\n{"text": "after"}\n'
        yield Hostile(f"jsonl: line {what}", "jsonl", ".jsonl", line.join(good))
        yield Hostile(f"openai-batch: line {what}", "openai-batch", ".jsonl", line.join(good))
    for what, value in VALUES.items():
        rows: list[dict[str, Any]] = [{"id": 1, "text": value}, {"id": 2, "text": "after"}]
        yield Hostile(
            f"jsonl: value {what}",
            "jsonl",
            ".jsonl",
            b"".join(json.dumps(row).encode() + b"\n" for row in rows),
        )
        for name, comma in (("csv", ","), ("tsv", "\t")):
            quoted = value.replace('"', '""')
            text = f'id{comma}text\n1{comma}"{quoted}"\n2{comma}after\n'
            yield Hostile(f"{name}: value {what}", name, f".{name}", text.encode())
        yield Hostile(
            f"parquet: value {what}",
            "parquet",
            ".parquet",
            _parquet({"id": [1, 2], "text": [value, "after"]}),
        )
    yield from _torn_parquet()


def _torn_parquet() -> Iterator[Hostile]:
    whole = _parquet({"id": list(range(500)), "text": [f"row {n}" for n in range(500)]})
    random = Random(11)
    for part in (1, 4, 8, 100, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        yield Hostile(f"parquet: cut at {part}", "parquet", ".parquet", whole[:part])
    for number in range(24):
        broken = bytearray(whole)
        for _ in range(8):
            broken[random.randrange(len(broken))] ^= 1 << random.randrange(8)
        yield Hostile(f"parquet: flipped {number}", "parquet", ".parquet", bytes(broken))
    odd = {"list": [[1], None], "struct": [{"a": 1}, None], "bytes": [b"\xff", b""], "none": [None, None]}
    for what, column in odd.items():
        yield Hostile(f"parquet: {what}", "parquet", ".parquet", _parquet({"text": column}))
    yield Hostile("parquet: no rows", "parquet", ".parquet", _parquet({"text": []}))
    yield Hostile("parquet: no columns", "parquet", ".parquet", _parquet({}))


def _parquet(columns: dict[str, list[Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def mangled(seed: int) -> Hostile:
    """A file of the corpus or a good one, with bytes replaced, cut out, doubled or moved."""
    random = Random(seed)
    name = random.choice(FORMATS)
    rows = [
        {"id": n, "text": random.choice(list(VALUES.values()))[:200]} for n in range(random.randrange(1, 20))
    ]
    if name == "parquet":
        content = _parquet({"id": [row["id"] for row in rows], "text": [row["text"] for row in rows]})
    elif name in ("csv", "tsv"):
        comma = "," if name == "csv" else "\t"
        content = "\n".join(
            [f"id{comma}text", *(f"{row['id']}{comma}{row['text']}" for row in rows)]
        ).encode()
    else:
        content = b"\n".join(json.dumps(row).encode() for row in rows)
    if random.random() < 0.2:
        content = gzip.compress(content)
    return Hostile(f"mangled {seed} ({name})", name, _ENDINGS[name], mangle(content, random))


def mangle(content: bytes, random: Random) -> bytes:
    """``content`` after a few random changes."""
    data = bytearray(content)
    for _ in range(random.randrange(1, 6)):
        at = random.randrange(len(data) + 1)
        size = random.randrange(1, 12)
        change = random.randrange(6)
        if change == 0:
            data[at:at] = random.randbytes(size)
        elif change == 1:
            del data[at : at + size]
        elif change == 2 and at < len(data):
            data[at] ^= 1 << random.randrange(8)
        elif change == 3:
            data[at:at] = data[at : at + size] * 3
        elif change == 4:
            data[at:at] = random.choice(
                (b"\x00", b'"', b"\n", b"\\", b"{", b"[" * 50, b"\xff", b"\xed\xa0\x80", b"9" * 40)
            )
        else:
            del data[at:]
    return bytes(data)
