"""Before the first byte of a request: names, ports and certificates that are not there, not yet, or not theirs."""

import datetime
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme
from history import history_of, read_output
from rogue import Rogue
from runs import Run, ask_flags, prompts_of, until, write_rows
from scorecard import Promise, Scorecard

from engine.mock.settings import MockSettings, parse_fault
from engine.mock.spawn import MockProcess
from engine.observe.live import read_live

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NAMES = Path(__file__).parent / "names"
CANARY = "sk-canary-91c"
CUT_OFF_S = 1.0  # --timeout of most runs here
LATE_S = 1.5  # a cut-off may come so late on a busy machine; the sweep's own share of it is 0.25 s
SLOWEST_S = 20.0  # the longest that a row waits for its next try


def start(base_url: str, folder: Path, rows: int, *more: str, names: Path | None = None) -> Run:
    """A run with a key."""
    environment = {"OPENAI_API_KEY": CANARY}
    if names is not None:
        path = os.pathsep.join(filter(None, (str(NAMES), os.environ.get("PYTHONPATH", ""))))
        environment |= {"ENGINE_NAMES": str(names), "PYTHONPATH": path}
    source = folder / "in.jsonl"
    if not source.exists():
        write_rows(source, rows)
    flags = ask_flags(base_url, source, folder / "out.jsonl", "--procs", "2", *more)
    return Run(*flags, environment=environment)


def judged(
    scorecard: Scorecard, server: Any, folder: Path, rows: int, what: str, **figures: Any
) -> dict[str, Any]:
    """What must hold of a run whose rows are all ok in the end; the server's log is the witness."""
    found = history_of(server, prompts_of(rows), folder / "out.jsonl").faults()
    found.pop("unrecorded_attempts", None)
    scorecard.add_run(what, found, rows=rows, **figures)
    return found


# --- names ------------------------------------------------------------------------------------------------


@pytest.fixture
def names(tmp_path: Path) -> Path:
    folder = tmp_path / "names"
    folder.mkdir()
    (folder / "seen").touch()
    return folder


def told(names: Path, mode: str) -> None:
    """How look-ups end from now on."""
    (names / "next").write_text(mode)
    (names / "next").replace(names / "mode")


def seen(names: Path, end: str) -> int:
    return (names / "seen").read_text().split().count(end)


@pytest.mark.few(mode=["nxdomain"])
@pytest.mark.parametrize("mode", ["nxdomain", "servfail"])
def test_a_name_that_does_not_resolve_at_first_costs_no_row_and_no_restart(
    tmp_path: Path, names: Path, mode: str, scorecard: Scorecard
) -> None:
    rows = 20
    told(names, mode)
    with MockProcess(MockSettings(latency="20ms", log=True, row_key="prompt")) as mock:
        started = start(f"http://endpoint.test:{mock.port}/v1", tmp_path, rows, names=names)
        until(lambda: seen(names, mode) >= 2)
        told(names, "ok")
        mended = time.monotonic()
        summary = started.summary()
        found = judged(scorecard, mock, tmp_path, rows, "a name comes back")
        recovery_s = mock.log()[0]["at_s"] - mended
        requests = mock.stats()["requests"]
    is_late = recovery_s >= SLOWEST_S + LATE_S
    scorecard.add(Promise.P6_ENDS, "a name comes back", 1, int(is_late), recovery_s_max=round(recovery_s, 2))
    assert not found
    assert (summary["ok"], summary["failed"], requests) == (rows, 0, rows)
    assert not is_late


@pytest.mark.nightly
@pytest.mark.parametrize("every", [10, 100])
def test_a_name_that_resolves_now_and_then_costs_no_row(
    tmp_path: Path, names: Path, every: int, scorecard: Scorecard
) -> None:
    rows = (
        2_400 if every == 100 else 120
    )  # look-ups at the same moment are one, and each worker counts its own
    told(names, f"flap:{every}")
    settings = MockSettings(latency="20ms", log=True, row_key="prompt", faults=(parse_fault("stale"),))
    with MockProcess(settings) as mock:  # each reply closes its connection
        base_url = f"http://endpoint.test:{mock.port}/v1"
        summary = start(base_url, tmp_path, rows, "--in-flight", "8", names=names).summary(90.0)
        found = judged(scorecard, mock, tmp_path, rows, "a name that flaps")
    assert not found
    assert (summary["ok"], summary["failed"]) == (rows, 0)
    assert seen(names, "nxdomain") >= 1


@pytest.mark.not_quick
def test_rows_fail_by_the_name_that_does_not_resolve_and_are_well_once_it_does(
    tmp_path: Path, names: Path, scorecard: Scorecard
) -> None:
    rows = 20
    told(names, "nxdomain")
    with MockProcess(MockSettings(log=True, row_key="prompt")) as mock:
        base_url = f"http://endpoint.test:{mock.port}/v1"
        first = start(base_url, tmp_path, rows, "--retries", "0", names=names).summary()
        assert mock.stats()["requests"] == 0
        told(names, "ok")
        second = start(base_url, tmp_path, rows, "--retry-failed", names=names).summary()
        found = judged(scorecard, mock, tmp_path, rows, "a name that did not resolve")
    assert (first["exit_code"], first["failures"]) == (1, {"dns": rows})
    assert not found
    assert second["ok"] == rows


@pytest.mark.nightly
@pytest.mark.parametrize("mode", ["nxdomain", "servfail", "timeout"])
def test_a_name_that_never_resolves_ends_the_run_in_time_and_leaves_it_fit_to_go_on(
    tmp_path: Path, names: Path, mode: str, scorecard: Scorecard
) -> None:
    rows = 40
    told(names, mode)
    with MockProcess(MockSettings(log=True, row_key="prompt")) as mock:
        base_url = f"http://endpoint.test:{mock.port}/v1"
        flags = ("--timeout", "1", "--retries", "1") if mode == "timeout" else ()
        began = time.monotonic()
        first = start(base_url, tmp_path, rows, *flags, names=names)
        code = first.wait(60.0)
        took_s = time.monotonic() - began
        assert seen(names, mode) >= 2
        assert mock.stats()["requests"] == 0
        assert "Traceback" not in first.err
        told(names, "ok")
        more = ("--retry-failed",) if code == 1 else ()
        summary = start(base_url, tmp_path, rows, *flags, *more, names=names).summary()
        found = judged(scorecard, mock, tmp_path, rows, "a name that never resolves")
    is_late = took_s >= 40.0
    scorecard.add(Promise.P6_ENDS, f"look-ups: {mode}", 1, int(is_late), seconds_max=round(took_s, 1))
    # One that nobody answers is a call that takes too long: its rows fail, as those of a black hole do.
    assert code == (1 if mode == "timeout" else 3)
    assert not is_late
    assert not found
    assert summary["ok"] == rows


# --- ports ------------------------------------------------------------------------------------------------


@contextmanager
def closed_port() -> Iterator[tuple[socket.socket, str]]:
    """A socket that is bound and does not listen: its port refuses, and nobody else can take it meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound, f"http://127.0.0.1:{bound.getsockname()[1]}/v1"


@pytest.mark.not_quick
def test_a_port_that_opens_late_costs_no_row_and_no_restart(tmp_path: Path, scorecard: Scorecard) -> None:
    rows = 6
    with closed_port() as (bound, base_url):
        started = start(base_url, tmp_path, rows)
        until(lambda: (read_live(tmp_path / "out.jsonl.run") or {}).get("requests", 0) >= 2)
        with Rogue(listener=bound) as server:
            opened = time.monotonic()
            summary = started.summary()
            found = judged(scorecard, server, tmp_path, rows, "a port opens late")
            recovery_s = server.log()[0]["at_s"] - opened
            requests = server.stats()["requests"]
    is_late = recovery_s >= SLOWEST_S + LATE_S
    scorecard.add(Promise.P6_ENDS, "a port opens late", 1, int(is_late), recovery_s_max=round(recovery_s, 2))
    assert not found
    assert (summary["ok"], summary["failed"], requests) == (rows, 0, rows)
    assert summary["requests"] > rows  # it was refused before
    assert not is_late


@pytest.mark.nightly
def test_a_port_that_stays_closed_ends_the_run_and_leaves_its_rows_open(
    tmp_path: Path, scorecard: Scorecard
) -> None:
    rows = 60
    with closed_port() as (bound, base_url):
        began = time.monotonic()
        first = start(base_url, tmp_path, rows)
        code, took_s = first.wait(), time.monotonic() - began
        assert code == 3
        assert "has not answered once" in first.out
        with Rogue(listener=bound) as server:
            summary = start(base_url, tmp_path, rows).summary()
            found = judged(scorecard, server, tmp_path, rows, "a port stays closed")
    is_amiss = not 15.0 < took_s < 40.0
    scorecard.add(Promise.P6_ENDS, "a port stays closed", 1, int(is_amiss), seconds_max=round(took_s, 1))
    assert not is_amiss, took_s
    assert not found
    assert (summary["ok"], summary["resumed"]) == (rows, 0)


@contextmanager
def black_hole() -> Iterator[socket.socket]:
    """A listener whose queue is full: the kernel drops every further attempt to connect."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    fillers = []
    for _ in range(8):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    try:
        yield listener
    finally:
        for one in (*fillers, listener):
            one.close()


def is_stuck(started: Run) -> bool:
    """Whether a worker waits for a connection that nobody answers."""
    for child in started.children("engine.worker"):
        try:
            if any(one.status == psutil.CONN_SYN_SENT for one in child.net_connections("tcp")):
                return True
        except psutil.Error:
            continue
    return False


def test_calls_into_a_black_hole_are_cut_off_in_time(tmp_path: Path, scorecard: Scorecard) -> None:
    rows = 16
    with black_hole() as listener:
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        flags = ("--timeout", f"{CUT_OFF_S:g}", "--retries", "0", "--meta")
        started = start(base_url, tmp_path, rows, *flags)
        until(lambda: is_stuck(started))
        summary = started.summary()
    late_s = sorted(one["_latency_ms"] / 1000 - CUT_OFF_S for one in read_output(tmp_path / "out.jsonl"))
    late = sum(not 0.0 <= one < LATE_S for one in late_s)
    scorecard.add(
        Promise.P6_ENDS, "a black hole", 1, int(bool(late)), rows=rows, late_s_max=round(late_s[-1], 3)
    )
    assert summary["failures"] == {"timeout": rows}
    assert summary["requests"] <= rows
    assert not late


@pytest.mark.not_quick
def test_a_black_hole_that_opens_costs_no_row(tmp_path: Path, scorecard: Scorecard) -> None:
    rows = 20
    with black_hole() as listener:
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        started = start(base_url, tmp_path, rows, "--timeout", f"{CUT_OFF_S:g}")
        until(lambda: is_stuck(started))
        with Rogue(listener=listener) as server:
            summary = started.summary()
            found = judged(scorecard, server, tmp_path, rows, "a black hole opens")
    assert not found
    assert (summary["ok"], summary["failed"]) == (rows, 0)


# --- TLS --------------------------------------------------------------------------------------------------

CA = trustme.CA()
STRANGER = trustme.CA()


def certified(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def old_protocol() -> ssl.SSLContext:
    context = certified(CA.issue_cert("localhost"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
UNTRUSTED: dict[str, Callable[[], ssl.SSLContext]] = {
    "expired": lambda: certified(CA.issue_cert("localhost", not_after=YESTERDAY)),
    "of a stranger": lambda: certified(STRANGER.issue_cert("localhost")),
    "for another host": lambda: certified(CA.issue_cert("elsewhere.example")),
    "old protocol": old_protocol,
}


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.mark.few(name=["expired"])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("name", UNTRUSTED)
def test_a_server_that_cannot_prove_its_name_gets_no_byte_of_a_request(
    tmp_path: Path, ca_file: str, name: str, scorecard: Scorecard
) -> None:
    rows = 40
    context = UNTRUSTED[name]()
    greeted: list[str] = []
    context.sni_callback = lambda tls, name, context: greeted.append(name)
    with Rogue(tls=context) as server:
        summary = start(server.base_url, tmp_path, rows, "--ca-file", ca_file).summary()
        scorecard.add(
            Promise.P9_SECRETS, f"TLS: {name}", 1, int(bool(server.plain_bytes)), requests=len(greeted)
        )
    assert (server.connections, server.plain_bytes) == (0, 0)
    assert len(greeted) >= (0 if name == "old protocol" else rows)  # it was asked, by name
    if name == "old protocol":  # this server hangs up without a word: it might come back
        assert summary["ok"] == 0
    else:
        assert (summary["failures"], summary["requests"]) == ({"tls": rows}, rows)  # not one was tried again


@pytest.mark.nightly
@pytest.mark.parametrize("percent", [1, 10])
def test_one_server_of_many_with_a_bad_certificate_gets_nothing_and_the_others_all(
    tmp_path: Path, ca_file: str, percent: int, scorecard: Scorecard
) -> None:
    rows, every = 120, 100 // percent
    good, bad = certified(CA.issue_cert("localhost")), UNTRUSTED["of a stranger"]()
    greeted: list[int] = []

    def choose(tls: ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
        greeted.append(len(greeted))
        if greeted[-1] % every == every // 2:
            tls.context = bad

    good.sni_callback = choose  # type: ignore[assignment]
    with Rogue(tls=good, closes=True) as server:
        summary = start(server.base_url, tmp_path, rows, "--ca-file", ca_file).summary()
        history = history_of(server, prompts_of(rows), tmp_path / "out.jsonl")
    strikes = sum(number % every == every // 2 for number in greeted)
    is_astray = server.connections != rows - strikes
    scorecard.add(Promise.P9_SECRETS, "TLS: one of many", 1, int(is_astray), rows=rows, struck=strikes)
    assert len(greeted) == rows
    assert strikes >= rows * percent // 100
    assert not is_astray
    assert summary["failures"] == {"tls": strikes}
    assert history.requests == summary["ok"] == rows - strikes
    assert not (history.unaccounted() or history.wrong_bodies() or history.out_of_order())


@pytest.mark.not_quick
def test_a_handshake_that_stalls_is_cut_off_in_time_and_was_told_nothing(
    tmp_path: Path, ca_file: str, scorecard: Scorecard
) -> None:
    rows = 16
    heard: list[bytes] = []
    kept: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def listen() -> None:
        """Accept, hear what comes first, and never say a word."""
        while True:
            try:
                one, _ = listener.accept()
                kept.append(one)
                heard.append(one.recv(65_536))
            except OSError:
                return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        base_url = f"https://localhost:{listener.getsockname()[1]}/v1"
        flags = ("--timeout", f"{CUT_OFF_S:g}", "--retries", "0", "--meta", "--ca-file", ca_file)
        summary = start(base_url, tmp_path, rows, *flags).summary()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10.0)
        for one in kept:
            one.close()
    late_s = max(one["_latency_ms"] / 1000 - CUT_OFF_S for one in read_output(tmp_path / "out.jsonl"))
    scorecard.add(
        Promise.P6_ENDS,
        "a stalled handshake",
        1,
        int(late_s >= LATE_S),
        rows=rows,
        late_s_max=round(late_s, 3),
    )
    told_it = [said for said in heard if CANARY.encode() in said or b"POST" in said or b"row" in said]
    scorecard.add(Promise.P9_SECRETS, "TLS: stalled handshake", 1, int(bool(told_it)), requests=len(heard))
    assert len(heard) >= rows
    assert not told_it
    assert summary["failures"] == {"timeout": rows}
    assert late_s < LATE_S
