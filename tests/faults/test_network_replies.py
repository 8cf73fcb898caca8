"""Replies that break HTTP's rules in every place there is: none lands on another row, none is believed, memory stays flat."""

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from history import history_of
from rogue import Exchange, Rogue, Strike, answer_body, framed
from runs import Run, ask_flags, prompts_of, until, write_rows
from scorecard import Promise, Scorecard

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BOUND_S = 60.0  # of a run whose calls are cut off after a second, with two retries
RSS_MB_MAX = 250.0  # of a worker: its 60 MB, and a few replies of the largest size that are read at once
STRAY = framed(answer_body("a row that was never asked"))  # whoever gets it has got another row's answer


# --- what is sent -----------------------------------------------------------------------------------------


def says(data: bytes, *, ends: bool = False) -> Strike:
    """These bytes instead of the reply; the connection stays open, or is closed where nothing else ends them."""

    async def strike(exchange: Exchange) -> bool:
        await exchange.send(data)
        return not ends

    return strike


def length(stated: str, *, ends: bool = False) -> Strike:
    """The right body under a wrong length. ``stated`` may name the true one as N, and add lines."""

    async def strike(exchange: Exchange) -> bool:
        true = len(exchange.body)
        text = stated.replace("N+", str(true + 50)).replace("N-", str(true - 5)).replace("N", str(true))
        await exchange.send_whole(framed(exchange.body, length=text.encode()))
        return not ends

    return strike


def header(line: bytes) -> Strike:
    """The right reply with one more header."""

    async def strike(exchange: Exchange) -> bool:
        await exchange.send_whole(framed(exchange.body, line + b"\r\n"))
        return True

    return strike


def body(data: bytes, kind: bytes = b"") -> Strike:
    """A reply of status 200 with this body."""
    return says(framed(data, b"Content-Type: %b\r\n" % kind if kind else b""))


def endless(front: bytes, piece: bytes) -> Strike:
    """Something that has no end."""

    async def strike(exchange: Exchange) -> None:
        await exchange.send(front)
        while True:
            await exchange.send(piece)

    return strike


def slowly(upto: int, pause_s: float) -> Strike:
    """The first bytes at once, the rest one by one."""

    async def strike(exchange: Exchange) -> None:
        at = upto if upto >= 0 else exchange.good.index(b"\r\n\r\n") + 4
        await exchange.send(exchange.good[:at])
        for byte in exchange.good[at:]:
            await asyncio.sleep(pause_s)
            await exchange.send(bytes([byte]))

    return strike


def reset_at(share: float) -> Strike:
    """So much of the reply, then a RST."""

    async def strike(exchange: Exchange) -> None:
        await exchange.send(exchange.good[: int(len(exchange.good) * share)])
        await asyncio.sleep(0.01)
        exchange.reset()

    return strike


async def close_on_next_write(exchange: Exchange) -> bool:
    """A connection carries one request; the next one that is written to it meets its end."""
    if exchange.nth > 1:
        return False
    await exchange.send_whole(exchange.good)
    return True


async def chunked_and_length(exchange: Exchange) -> bool:
    front = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n"
    await exchange.send_whole(front + b"%x\r\n%b\r\n0\r\n\r\n" % (len(exchange.body), exchange.body))
    return True


async def two_replies(exchange: Exchange) -> bool:
    await exchange.send_whole(exchange.good + STRAY)
    return True


async def reply_and_rubbish(exchange: Exchange) -> bool:
    await exchange.send_whole(exchange.good + b"\x00\xffrubbish\r\n\r\n")
    return True


async def split_characters(exchange: Exchange) -> bool:
    """Characters of several bytes, each in segments of its own: a right reply."""
    data = exchange.body[:-1] + ', "note": "é€😀"}'.encode()
    exchange.record.update(status=200, full=True)
    await exchange.send(framed(data[:-11], length=b"%d" % len(data)))
    for byte in data[-11:]:
        await asyncio.sleep(0.005)
        await exchange.send(bytes([byte]))
    return True


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"mock"},"finish_reason":null}]}\n\n'
BROKEN = ("protocol_error",)
# What is sent, and what a row may fail with where all its calls get it. (): nothing is wrong with it in the end.
STRIKES: dict[str, tuple[Strike, tuple[str, ...]]] = {
    # Resets, at each stage after the request.
    "a reset after the request": (reset_at(0.0), ("connection_reset", "stale_keepalive")),
    "a reset in the status line": (reset_at(0.03), ("connection_reset", "stale_keepalive")),
    "a reset in the headers": (reset_at(0.1), ("connection_reset", "stale_keepalive")),
    "a reset in the body": (reset_at(0.7), ("connection_reset", "protocol_error")),
    "an end on the next write": (close_on_next_write, ()),
    # Slow ones.
    "headers by the byte": (slowly(10, 1.0), ("timeout",)),
    "a body by the byte": (slowly(-1, 0.2), ("timeout",)),
    # Wrong lengths.
    "too short a length": (length("N-"), ("bad_reply", "protocol_error")),
    "too long a length": (length("N+"), ("timeout",)),
    "too long a length and the end": (length("N+", ends=True), BROKEN),
    "a negative length": (length("-5"), BROKEN),
    "a length with a sign": (length("+N"), BROKEN),
    "no number as length": (length("0x1f"), BROKEN),
    "an immense length": (length("9" * 40), ("protocol_error", "body_too_large")),
    "two equal lengths": (length("N\r\nContent-Length: N"), BROKEN),
    "two lengths": (length("N-\r\nContent-Length: N"), BROKEN),
    "a list of lengths": (length("N-, N"), BROKEN),
    "chunks and a length": (chunked_and_length, BROKEN),
    # More than was asked for.
    "two replies": (two_replies, ()),
    "a reply and rubbish": (reply_and_rubbish, BROKEN),
    # Headers.
    "10,000 headers": (header(b"\r\n".join(b"X-%d: 1" % n for n in range(10_000))), BROKEN),
    "a header of 1 MB": (header(b"X-Large: " + b"x" * 1_000_000), BROKEN),
    "a header without end": (endless(b"HTTP/1.1 200 OK\r\nX-Large: ", b"x" * 65_536), BROKEN),
    "headers without end": (endless(b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n" * 5000), BROKEN),
    "notes without end": (
        endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 500),
        ("timeout", "protocol_error"),
    ),
    "trailers without end": (
        endless(CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-More: %b\r\n" % (b"x" * 1000) * 50),
        ("timeout", "protocol_error"),
    ),
    "a chunk's extension without end": (
        endless(CHUNKED + b"2;x=", b"x" * 65_536),
        ("timeout", "protocol_error"),
    ),
    "a CR in a header": (header(b"X-Odd: a\rX-Injected: b"), BROKEN),
    "a LF in a header": (header(b"X-Odd: a\nX-Injected: b"), ()),  # it may end a line (RFC 9112, 2.2)
    "a NUL in a header": (header(b"X-Odd: a\x00b"), BROKEN),
    "a folded header": (header(b"X-Odd: a\r\n b"), ()),  # may be unfolded (RFC 9112, 5.2)
    "no HTTP at all": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), BROKEN),
    # Bodies of status 200 that are no answer.
    "events that were cut": (body(EVENT * 2 + EVENT[:30], b"text/event-stream"), ("bad_reply",)),
    "events without an end": (body(EVENT * 3, b"text/event-stream"), ("bad_reply",)),
    "characters that are cut": (body(b'{"choices": [{"message": {"content": "\xe2\x82"}}]}'), ("bad_reply",)),
    "no choices": (body(b'{"choices": []}'), ("bad_reply",)),
    "null": (body(b"null"), ("bad_reply",)),
    "a deep nest": (body(b"[" * 200_000), ("bad_reply",)),
    "a number as content": (body(b'{"choices": [{"message": {"content": 7}}]}'), ("bad_reply",)),
    "characters in pieces": (split_characters, ()),
}  # fmt: skip


# --- whole runs -------------------------------------------------------------------------------------------


class Peak:
    """The most memory that a worker of a run had, as the kernel counts it, while this is entered."""

    def __init__(self, started: Run) -> None:
        self.megabytes = 0.0
        self._started, self._is_over = started, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(0.1):
            for child in self._started.children("engine.worker"):
                try:
                    status = Path(f"/proc/{child.pid}/status").read_text()
                except OSError:
                    continue
                for line in status.splitlines():
                    if line.startswith("VmHWM:"):
                        self.megabytes = max(self.megabytes, int(line.split()[1]) / 1024)


def judged(
    folder: Path,
    server: Rogue,
    rows: int,
    scorecard: Scorecard,
    allowed: set[str],
    *,
    what: str,
    retries: int = 2,
) -> dict[str, Any]:
    """Run ``rows`` rows through a server; everything that must hold whatever it does is asserted here."""
    source, output = write_rows(folder / "in.jsonl", rows), folder / "out.jsonl"
    flags = ("--procs", "2", "--timeout", "1", "--retries", str(retries), "--in-flight", "64")
    started = Run(*ask_flags(server.base_url, source, output, *flags))
    with Peak(started) as peak:
        summary = started.summary(BOUND_S)
    history = history_of(server, prompts_of(rows), output)
    wrong = {
        "unaccounted": history.unaccounted(),
        "duplicated": history.duplicated(),
        "unexpected": history.unexpected(),
        "out_of_order": history.out_of_order(),
        "wrong_bodies": history.wrong_bodies(),
        "unrecorded_attempts": history.unrecorded_attempts(),
        "other failures": set(summary["failures"]) - allowed,
        "workers that died": summary["worker_deaths"],
        "traceback": "Traceback" in started.err,
        "memory": peak.megabytes if peak.megabytes > RSS_MB_MAX else 0,
    }
    wrong = {name: value for name, value in wrong.items() if value}
    too_many = history.requests > rows * (retries + 2)  # a stale connection is one more, and free
    large = int("memory" in wrong)
    scorecard.add_run(what, set(wrong) - {"memory"}, rows=rows, struck=server.faults.total())
    scorecard.add(Promise.P8_RETRIES, what, 1, int(too_many), rows=rows, requests=history.requests)
    scorecard.add(Promise.P7_BOUNDED, what, 1, large, worker_mb_peak=round(peak.megabytes))
    scorecard.add(Promise.P6_ENDS, what, 1)  # it did: the summary was waited for no longer than BOUND_S
    assert not wrong
    assert not too_many
    assert summary["ok"] + summary["failed"] == rows
    return summary


@pytest.mark.few(every=[5])
@pytest.mark.parametrize("every", [5, 10, 100])
def test_broken_replies_of_every_kind_among_good_ones_cost_hardly_a_row_its_answer(
    tmp_path: Path, every: int, scorecard: Scorecard
) -> None:
    strikes = {name: strike for name, (strike, _) in STRIKES.items()}
    allowed = {kind for _, kinds in STRIKES.values() for kind in kinds}
    rows = len(STRIKES) * every
    with Rogue(strikes, every=every) as server:
        summary = judged(tmp_path, server, rows, scorecard, allowed, what="broken replies by turns")
    assert set(server.faults) == set(STRIKES)
    assert summary["failed"] <= 0.05 * rows  # they met what is not to be asked for again, or three in a row


@pytest.mark.nightly
@pytest.mark.parametrize("name", STRIKES)
def test_a_server_of_nothing_but_broken_replies_is_never_believed(
    tmp_path: Path, name: str, scorecard: Scorecard
) -> None:
    strike, allowed = STRIKES[name]
    rows = 12
    with Rogue({name: strike}) as server:
        summary = judged(
            tmp_path, server, rows, scorecard, set(allowed), what="broken replies only", retries=1
        )
    assert server.faults.total() >= (6 if name == "an end on the next write" else rows)
    assert (summary["failed"] if not allowed else summary["ok"]) == 0


@pytest.mark.not_quick
@pytest.mark.few(percent=[10])
@pytest.mark.parametrize("percent", [1, 10, 100])
def test_connections_that_are_reset_when_accepted_cost_no_row_unless_all_are(
    tmp_path: Path, percent: int, scorecard: Scorecard
) -> None:
    rows = 12 if percent == 100 else 120
    # A reset that comes early enough looks like a port that is closed.
    allowed = {"connection_reset", "connect_refused"} if percent == 100 else set()
    with Rogue(every=100 // percent, refuses=True, closes=True) as server:
        judged(tmp_path, server, rows, scorecard, allowed, what="resets on accept")
    assert server.faults["accept"] >= percent * rows // 100


def test_a_reply_that_comes_after_a_pause_is_nobodys_answer(tmp_path: Path, scorecard: Scorecard) -> None:
    """While a connection is idle. One that comes while it carries a request is that request's answer by HTTP's rules."""
    rounds, each = 3, 16
    output = tmp_path / "out.jsonl"
    prompts = prompts_of(rounds * each)

    async def later(exchange: Exchange) -> bool:
        await exchange.send_whole(exchange.good)
        asyncio.get_running_loop().call_later(0.15, exchange.writer.write, STRAY)
        return True

    with Rogue({"later": later}) as server:
        flags = ask_flags(server.base_url, Path("-"), output, "--procs", "2", "--input-format", "jsonl")
        with subprocess.Popen(
            [sys.executable, "-m", "engine", *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as started:
            assert started.stdin is not None
            for number in range(rounds):
                for row in range(number * each, (number + 1) * each):
                    started.stdin.write(json.dumps({"id": row, "text": prompts[row]}).encode() + b"\n")
                started.stdin.flush()
                until(lambda done=(number + 1) * each: server.faults["later"] == done)
                threading.Event().wait(0.6)  # until the strays have come, too
            out, _ = started.communicate(timeout=30)
        history = history_of(server, prompts, output)
    found = history.faults()
    scorecard.add_run("replies after a pause", found, rows=len(prompts), struck=server.faults["later"])
    assert not found
    assert json.loads(out)["ok"] == len(prompts)
    assert server.connections >= len(prompts) // 2  # those with a stray were not used again


@pytest.mark.nightly
def test_rows_beside_slow_replies_go_on_at_their_pace(tmp_path: Path, scorecard: Scorecard) -> None:
    rows, timeout_s = 300, 3.0

    def last_good_s(folder: Path, strike: Strike, match: str) -> tuple[float, int]:
        """Seconds from the first request to the last right reply of a row that is not slow; and how many were slow."""
        folder.mkdir()
        source, output = write_rows(folder / "in.jsonl", rows), folder / "out.jsonl"
        with Rogue({"slow": strike}, match=match) as server:
            flags = ("--procs", "2", "--timeout", f"{timeout_s:g}", "--retries", "0", "--in-flight", "64")
            summary = Run(*ask_flags(server.base_url, source, output, *flags)).summary(BOUND_S)
            log = server.log()
        assert summary["failures"] == ({"timeout": server.faults["slow"]} if match != "none" else {})
        good = [one["done_s"] for one in log if one["full"]]
        assert len(good) + server.faults["slow"] == rows
        return max(good) - log[0]["at_s"], server.faults["slow"]

    plain_s, _ = last_good_s(tmp_path / "plain", slowly(10, 1.0), "none")
    beside_s, slow = last_good_s(tmp_path / "beside", slowly(10, 1.0), "row 11")  # 11 and 110 to 119
    ratio = round(beside_s / plain_s, 2)
    is_late = beside_s > min(timeout_s - 0.5, 3 * plain_s + 2.0)
    scorecard.add(
        Promise.P6_ENDS, "rows beside slow replies", 1, int(is_late), rows=rows, struck=slow, ratio_max=ratio
    )
    assert slow == 11
    assert not is_late  # nobody waited for a slow one to be cut off
