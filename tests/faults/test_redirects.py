"""Redirects of every kind, in whole runs with a second server that listens: nothing goes there, whatever carries the key."""

import json
import re
import ssl
from pathlib import Path

import pytest
import trustme
from literal import Rogue, reply
from runs import Run, read_rows
from scorecard import Promise, Scorecard
from watch import Watch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KEY = "k-7f3a9Qcanary"
STATUSES = ("300 Multiple Choices", "301 Moved Permanently", "302 Found", "303 See Other", "304 Not Modified",
            "305 Use Proxy", "306 Switch Proxy", "307 Temporary Redirect", "308 Permanent Redirect", "399 Unknown")  # fmt: skip
CHAT = b'{"choices":[{"message":{"role":"assistant","content":"fine"},"finish_reason":"stop"}],"model":"m"}'
MESSAGE = b'{"content":[{"type":"text","text":"fine"}],"stop_reason":"end_turn","model":"m"}'
OLLAMA = b'{"message":{"role":"assistant","content":"fine"},"done":true,"model":"m"}'
SECRET = ("--header", "X-Secret: ${MY_KEY}")
# How each way of sending a key is asked for, the header it sends, and a good answer.
CARRIERS: dict[str, tuple[tuple[str, ...], str, bytes]] = {
    "openai": (("--base-url", "{origin}/v1", "--api-key-env", "MY_KEY"), f"Authorization: Bearer {KEY}", CHAT),
    "azure": (("--base-url", "{origin}", "--api-key-env", "MY_KEY"), f"api-key: {KEY}", CHAT),
    "anthropic": (("--base-url", "{origin}", "--api-key-env", "MY_KEY"), f"x-api-key: {KEY}", MESSAGE),
    "ollama": (("--base-url", "{origin}", "--api-key-env", "MY_KEY"), f"Authorization: Bearer {KEY}", OLLAMA),
    "http": (("--url", "{origin}/v1", *SECRET), f"X-Secret: {KEY}", b'"fine"'),
    "openai with a header": (("--base-url", "{origin}/v1", *SECRET), f"X-Secret: {KEY}", CHAT),
}  # fmt: skip


def targets(origin: str, first: int, second: int, file: str) -> list[str]:
    """Locations: elsewhere in every spelling, other schemes, files, sockets, and the same origin too."""
    away = f"127.0.0.1:{second}"
    return [
        f"{origin.partition('://')[0]}://{away}/steal", f"http://localhost:{second}/steal", f"https://{away}/steal",
        f"http://127.1:{second}/steal", f"http://2130706433:{second}/steal", f"http://[::ffff:127.0.0.1]:{second}/steal",
        f"//{away}/steal", f"///{away}/steal", f"http:\\\\{away}\\steal", f"\\\\{away}\\steal", f"http:{away}/steal",
        f"http://user:pass@{away}/steal", f"http://127.0.0.1:{first}@{away}/steal",
        f"http://127.0.0.1:{first}%40{away}/steal", f"http://127.0.0.1:{first}#@{away}/steal", f" http://{away}/steal",
        f"unix:{file}", f"http+unix://{file.replace('/', '%2F')}/steal", f"file://{file}", "file:///etc/passwd",
        "data:,steal", "javascript:steal()", f"ftp://{away}/steal", f"gopher://{away}/steal", f"{origin}/elsewhere",
        "/elsewhere", "?again", "", "http://169.254.169.254/latest/meta-data/",
    ]  # fmt: skip


def flags(carrier: str, origin: str, source: Path, output: Path, *more: str) -> tuple[str, ...]:
    where = (flag.format(origin=origin) if flag != SECRET[1] else flag for flag in CARRIERS[carrier][0])
    kind = ("--method", "POST", "--body", '{"text": "{{ text }}"}') if carrier == "http" else (
        "--model", "m", "--prompt", "{{ text }}")  # fmt: skip
    return (
        "run", str(source), "-o", str(output), "--provider", carrier.split()[0], *where, *kind, "--procs", "1", "--json",
        "--no-progress", *more,
    )  # fmt: skip


# Two send the same headers as others here.
QUICK_CARRIERS = [name for name in CARRIERS if name not in ("ollama", "openai with a header")]


def cases(folder: Path, count: int) -> Path:
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps({"text": f"case-{number}-"}) + "\n" for number in range(count)))
    return source


def number_of(request: bytes) -> int:
    found = re.search(rb"case-(\d+)-", request)
    assert found is not None
    return int(found.group(1))


@pytest.mark.quick(carrier=["openai"])
@pytest.mark.few(carrier=QUICK_CARRIERS)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_no_redirect_is_followed_and_the_second_server_sees_no_connection(
    tmp_path: Path, limiter_dir: Path, carrier: str, scorecard: Scorecard
) -> None:
    socket_file, watch = limiter_dir / "u", Watch(tmp_path)
    matrix: list[tuple[str, str]] = []

    def answer(request: bytes) -> bytes:
        status, location = matrix[number_of(request)]
        return reply(b"", status, f"Location: {location}", f"URI: {location}")

    with Rogue(answer) as first, Rogue() as second, Rogue(path=socket_file) as third:
        origin = f"http://127.0.0.1:{first.port}"
        places = targets(origin, first.port, second.port, str(socket_file))
        matrix += [(status, place) for status in STATUSES for place in places]
        source, output = cases(tmp_path, len(matrix)), tmp_path / "out.jsonl"
        started = Run(*flags(carrier, origin, source, output), environment=watch.environment(MY_KEY=KEY))
        summary = started.summary()
    rows = read_rows(output)
    astray = second.connections + third.connections + len(watch.places() - {("127.0.0.1", first.port)})
    # A case is one redirect; no more of them can have gone astray than there are.
    failures = min(astray, len(matrix))
    scorecard.add(Promise.P9_SECRETS, "redirects", len(matrix), failures, requests=len(first.requests))
    assert astray == 0
    assert summary["failures"] == {"redirect_refused": len(matrix)}
    # Every redirect was really served, each once, to a request with the key; and nobody asked for another page.
    header = CARRIERS[carrier][1].encode()
    assert sorted(map(number_of, first.requests)) == list(range(len(matrix)))
    assert all(header in request for request in first.requests)
    assert not any(b"elsewhere" in request or b"again" in request for request in first.requests)
    assert watch.places() == {("127.0.0.1", first.port)} and not watch.others()
    assert KEY not in output.read_text() + started.out + started.err
    assert all("root:" not in row["_error"] and "steal" not in row["_error"] for row in rows)


def test_headers_that_point_elsewhere_in_other_replies_are_only_headers(
    tmp_path: Path, scorecard: Scorecard
) -> None:
    watch = Watch(tmp_path)
    pointers = (
        "Location: {0}", "Refresh: 0; url={0}", "Content-Location: {0}", "Link: <{0}>; rel=preload",
        'Alt-Svc: http/1.1="127.0.0.1:{1}"; ma=3600', "X-Accel-Redirect: {0}", "Proxy-Authenticate: Basic realm={0}",
        "WWW-Authenticate: Bearer realm={0}", "Set-Cookie: a=b; Domain=127.0.0.1", "Operation-Location: {0}",
    )  # fmt: skip
    statuses = ("200 OK", "201 Created", "202 Accepted", "401 Unauthorized", "407 Proxy Authentication Required",
                "421 Misdirected Request", "426 Upgrade Required", "101 Switching Protocols")  # fmt: skip
    matrix = [(status, pointer) for status in statuses for pointer in pointers]
    with Rogue() as second:

        def answer(request: bytes) -> bytes:
            status, pointer = matrix[number_of(request)]
            line = pointer.format(f"http://127.0.0.1:{second.port}/steal", second.port)
            hint = f"HTTP/1.1 103 Early Hints\r\nLink: <http://127.0.0.1:{second.port}/>; rel=preload\r\n\r\n"
            stray = reply(b"", "302 Found", f"Location: http://127.0.0.1:{second.port}/steal")
            whole = reply(CHAT, status, line)
            return whole if status.startswith("101") else hint.encode() + whole + stray

        with Rogue(answer) as first:
            source, output = cases(tmp_path, len(matrix)), tmp_path / "out.jsonl"
            origin = f"http://127.0.0.1:{first.port}"
            summary = Run(
                *flags("openai", origin, source, output, "--retries", "0", "--in-flight", "1"),
                environment=watch.environment(MY_KEY=KEY),
            ).summary()
            asked = len({number_of(request) for request in first.requests})
            cookies = [request for request in first.requests if b"\r\ncookie:" in request.lower()]
    scorecard.add(Promise.P9_SECRETS, "headers that point elsewhere", asked, min(asked, second.connections))
    assert second.connections == 0 and watch.places() == {("127.0.0.1", first.port)}
    assert cookies == []
    assert (
        summary["ok"] == 30 and asked >= 30
    )  # those with 2xx; a key refused five times in a row ends the run


@pytest.mark.quick(scheme=["https"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_secure_endpoint_cannot_send_the_key_on_in_the_clear(
    tmp_path: Path, scheme: str, scorecard: Scorecard
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    watch = Watch(tmp_path)
    with Rogue(context=context if scheme == "https" else None) as second:
        place = f"Location: {scheme}://localhost:{second.port}/v1/chat/completions"
        with Rogue(lambda request: reply(b"", STATUSES[number_of(request)], place), context=context) as first:
            source, output = cases(tmp_path, len(STATUSES)), tmp_path / "out.jsonl"
            started = Run(
                *flags("openai", f"https://localhost:{first.port}", source, output),
                *("--ca-file", str(tmp_path / "ca.pem"), "--api-key-env", "MY_KEY"),
                environment=watch.environment(MY_KEY=KEY),
            )
            summary = started.summary()
    astray = min(second.connections, len(STATUSES))
    scorecard.add(Promise.P9_SECRETS, "redirects from https", len(STATUSES), astray)
    assert second.connections == 0
    assert summary["failures"] == {"redirect_refused": len(STATUSES)}, started.err
    assert {port for _, port in watch.places()} == {first.port}
    assert all(f"Bearer {KEY}".encode() in request for request in first.requests) and first.requests


@pytest.mark.not_quick
def test_a_redirect_from_one_endpoint_to_another_takes_no_key_along(
    tmp_path: Path, scorecard: Scorecard
) -> None:
    rows = 40
    with Rogue(lambda request: reply(CHAT)) as second, Rogue(
        lambda request: reply(b"", "307 Temporary Redirect", f"Location: http://127.0.0.1:{second.port}/steal")
    ) as first:  # fmt: skip
        job = tmp_path / "job.toml"
        job.write_text(
            "".join(
                f'[[endpoints]]\nname = "e{port}"\nbase_url = "http://127.0.0.1:{port}/v1"\n'
                f'api_key_env = "KEY_{place}"\nweight = 1\n'
                for place, port in (("ONE", first.port), ("TWO", second.port))
            )
        )
        output = tmp_path / "out.jsonl"
        summary = Run(
            "run", str(cases(tmp_path, rows)), "-o", str(output), "--job", str(job), "--model", "m", "--prompt",
            "{{ text }}", "--procs", "1", "--json", "--no-progress",
            environment={"KEY_ONE": f"{KEY}-one", "KEY_TWO": f"{KEY}-two"},
        ).summary()  # fmt: skip
    strays = [
        request for request in second.requests if f"{KEY}-one".encode() in request or b"steal" in request
    ]
    strays += [request for request in first.requests if f"{KEY}-two".encode() in request]
    requests = len(first.requests) + len(second.requests)
    scorecard.add(
        Promise.P9_SECRETS, "redirects between endpoints", 1, int(bool(strays)), rows=rows, requests=requests
    )
    assert strays == [] and first.requests
    assert summary["ok"] + summary["failures"].get("redirect_refused", 0) == rows


@pytest.mark.not_quick
def test_a_proxy_in_the_environment_sees_nothing_unless_asked_for(
    tmp_path: Path, scorecard: Scorecard
) -> None:
    with Rogue(lambda request: reply(CHAT)) as first, Rogue(lambda request: reply(CHAT)) as second:
        names = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
        proxies = dict.fromkeys(names, f"http://127.0.0.1:{second.port}") | {"no_proxy": "", "NO_PROXY": ""}
        origin, source = f"http://127.0.0.1:{first.port}", cases(tmp_path, 5)
        asked = flags("openai", origin, source, tmp_path / "out.jsonl")
        summary = Run(*asked, environment={**proxies, "MY_KEY": KEY}).summary()
        unasked = second.connections
        asked = flags("openai", origin, source, tmp_path / "proxied.jsonl", "--trust-env")
        Run(*asked, environment={**proxies, "MY_KEY": KEY}).summary()
    scorecard.add(Promise.P9_SECRETS, "proxies of the environment", 1, int(bool(unasked)), rows=5)
    assert (summary["ok"], unasked, len(first.requests)) == (5, 0, 5)
    assert len(second.requests) == 5  # they would have been used: with --trust-env they are
