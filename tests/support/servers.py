"""Real servers from the distribution's packages, for tests: started on a free port, ended by their own pid."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

import pytest


def needs(program: str) -> str:
    """The program's path. Skips the test where it is not installed, fails it in CI."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed, and CI has to have it")
        pytest.skip(f"{program} is not installed")
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process that listens on ``port`` once this is entered."""

    def __init__(self, port: int, *command: str, log: Path) -> None:
        self.port = port
        self._command = command
        self._log = log

    def __enter__(self) -> "Server":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 10.0
        while time.monotonic() < end and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.02)
        self.__exit__(None, None, None)
        raise AssertionError(f"{self._command[0]} did not come up: {self._log.read_text()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    limit_req_zone $binary_remote_addr zone=all:1m rate=50r/s;
    upstream mock {{ server 127.0.0.1:{upstream}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        proxy_http_version 1.1; proxy_set_header Connection "";
        {extra}
        location / {{ proxy_pass http://mock; {inside} }}
    }}
}}
"""


def nginx(folder: Path, upstream: int, *, extra: str = "", inside: str = "") -> Server:
    """nginx as a reverse proxy in front of a local port, with directives of the test's own."""
    program = needs("nginx")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, upstream=upstream, extra=extra, inside=inside))
    return Server(
        port,
        program,
        "-p",
        str(folder),
        "-e",
        str(folder / "start.log"),
        "-c",
        str(config),
        log=folder / "out.log",
    )


def stunnel(folder: Path, upstream: int, certificate: Path) -> Server:
    """TLS in front of a local port; ``certificate`` holds key and chain."""
    program = needs("stunnel")
    port = free_port()
    config = folder / "stunnel.conf"
    config.write_text(
        f"foreground = yes\npid =\n[mock]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{upstream}\n"
        f"cert = {certificate}\nkey = {certificate}\n"
    )
    return Server(port, program, str(config), log=folder / "stunnel.log")
