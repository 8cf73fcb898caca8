"""``engine doctor``: is this machine, and if asked this endpoint, fit for a run?

Rules of this file:
1. Sends nothing unless an endpoint is named; then one GET of its model list, through the one place that sends.
"""

import asyncio
import platform
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

_EXAMPLES = """Examples:

\b
  engine doctor
  engine doctor --base-url http://127.0.0.1:8000/v1"""

PACKAGES = (
    "aiohttp",
    "uvloop",
    "pyzmq",
    "msgpack",
    "msgspec",
    "psutil",
    "jinja2",
    "jsonschema-rs",
    "hdrhistogram",
)
OPTIONAL = ("pyarrow", "tiktoken")


def doctor_command(
    base_url: Annotated[str | None, typer.Option(help="Ask this endpoint for its models.")] = None,
    provider: Annotated[str, typer.Option(help="The provider it speaks like.")] = "openai",
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the key.")] = None,
    ca_file: Annotated[str, typer.Option(help="Certificates of a private authority (PEM).")] = "",
) -> int:
    """Check Python, packages, limits of open files, sockets and, if asked, an endpoint."""
    good = True
    for ok, line in [*_machine(), *_packages()]:
        good = good and ok
        print(f"{'ok  ' if ok else 'BAD '} {line}")
    if base_url is not None:
        ok, line = _endpoint(base_url, provider, api_key_env, ca_file)
        good = good and ok
        print(f"{'ok  ' if ok else 'BAD '} {line}")
    return 0 if good else 3


doctor_command.__doc__ = f"{doctor_command.__doc__}\n\n{_EXAMPLES}"


def _machine() -> list[tuple[bool, str]]:
    import psutil

    from engine.launchers.process import has_parent_death_signal, raise_open_files
    from engine.wire.link import IPC_PATH_MAX

    files = raise_open_files()
    sockets = len(tempfile.gettempdir()) + 24
    watch = (
        "the kernel ends workers with their coordinator"
        if has_parent_death_signal()
        else "beats guard workers"
    )
    return [
        (sys.version_info >= (3, 11), f"Python {platform.python_version()} on {platform.platform()}"),
        (
            True,
            f"{psutil.cpu_count() or 1} processors, {psutil.virtual_memory().available / 1e9:.1f} GB memory free",
        ),
        (
            files >= 1024,
            f"{files} open files per process allow about {max(0, files - 64)} requests in flight each",
        ),
        (
            sockets <= IPC_PATH_MAX,
            f"sockets in {tempfile.gettempdir()} ({sockets} of {IPC_PATH_MAX} bytes of path)",
        ),
        (True, watch),
    ]


def _packages() -> list[tuple[bool, str]]:
    found: list[tuple[bool, str]] = []
    for name in (*PACKAGES, *OPTIONAL):
        try:
            found.append((True, f"{name} {version(name)}"))
        except PackageNotFoundError:
            extra = " (optional)" if name in OPTIONAL else ""
            found.append((bool(extra), f"{name} is not installed{extra}"))
    return found


def _endpoint(base_url: str, provider: str, api_key_env: str | None, ca_file: str) -> tuple[bool, str]:
    from engine.config import Limits, Timeouts
    from engine.core.model import Call, Failure, Target
    from engine.credentials import AuthHeader, secret_from_environment
    from engine.providers import make_provider
    from engine.worker.fetch import Fetcher, Flight

    made = make_provider(Target(provider=provider, base_url=base_url, model="any"))
    auth: tuple[AuthHeader, ...] = ()
    if made.auth is not None:
        secret = secret_from_environment(api_key_env or made.auth.environment)
        auth = (AuthHeader(made.auth.header, (made.auth.prefix, secret)),) if secret else ()
    timeouts = Timeouts(first_byte_s=20.0, total_s=20.0, read_s=20.0)

    async def ask() -> tuple[bool, str]:
        fetcher = Fetcher(origin=made.origin, auth=auth, timeouts=timeouts, limits=Limits(), ca_file=ca_file)
        flight = Flight()
        path = "/api/tags" if provider == "ollama" else "/models"
        url = (made.origin if provider == "ollama" else base_url.rstrip("/")) + path
        try:
            async with asyncio.timeout(30.0):
                result = await fetcher.send(Call("GET", url, (), None), "doctor", flight)
        finally:
            await fetcher.close()
        if isinstance(result, Failure):
            return False, f"{made.origin}: {result.message}"
        return result.status < 400, f"{made.origin} answered {result.status} to GET {path}"

    return asyncio.run(ask())
