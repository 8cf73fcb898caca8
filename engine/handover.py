"""What a worker is told on its standard input: the job, its place, and the secrets, as one line of JSON.

Rules of this file:
1. The line goes through a pipe to one child and nowhere else; it is the only serialised form a secret ever has.
2. The pipe stays open for the child's whole life: its end tells the child that its coordinator is gone.
"""

from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from engine.config import Job
from engine.core.thresholds import Objective
from engine.credentials import Auth, AuthHeader, Secret, all_secrets
from engine.schedules.base import Schedule


@dataclass(frozen=True, slots=True)
class LimiterAddress:
    """Where an endpoint's permits are to be had."""

    socket: str = ""  # "" when none are needed
    token: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a program's functions need of it to be found, and to run, in another process."""

    import_path: tuple[str, ...] = ()  # its sys.path
    argv: tuple[str, ...] = ()  # its sys.argv: scripts read it
    # Functions by name, as cloudpickle wrote them. They may close over secrets, so they go where secrets go: through the pipe.
    pickled: dict[str, bytes] = field(default_factory=dict, repr=False)
    folder: str = ""  # its working folder
    script_package: str = ""  # what its script is part of, for relative imports
    script_end: int = 0  # the line where its script first ran rows; 0 where that is not known


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """One worker's start: which job, which slot, where its coordinator and its limiters listen."""

    job: Job
    slot: int
    run_id: str  # makes idempotency keys the same again after a resume
    token: str
    socket: str
    limiters: tuple[LimiterAddress, ...] = ()  # one for each endpoint
    parent_pid: int = 0
    guard_s: float = (
        0.0  # stop sending after so long without a beat; 0 where the kernel tells of a parent's death
    )
    surroundings: Surroundings = Surroundings()  # of steps that call functions


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """One load worker's start. What it is to send, and when, comes with each test's Begin."""

    job: Job
    slot: int
    workers: int
    token: str
    socket: str
    schedule: Schedule | None  # its arrival and what belongs to it: offsets, burstiness, speed
    rows: tuple[bytes, ...] = ()  # JSON objects that requests are made of, in turn
    drops_late: bool = False
    objectives: tuple[Objective, ...] = ()
    limiter: LimiterAddress = LimiterAddress()
    parent_pid: int = 0


@dataclass(frozen=True, slots=True)
class ChildSettings:
    """The start of a worker's own child, which runs a function that is to have a process for itself."""

    function: str
    by_name: bool  # its arguments have names
    bytes_max: int  # of what it returns
    surroundings: Surroundings
    parent_pid: int = 0
    folder: str = ""  # where its module is looked for first


S = TypeVar("S", WorkerSettings, LoadSettings, ChildSettings)


@dataclass(frozen=True, slots=True)
class _Line:
    settings: msgspec.Raw
    # For each endpoint its headers: name; parts, each with whether it is secret.
    auth: list[list[tuple[str, list[tuple[bool, str]]]]]


def encode_handover(
    settings: WorkerSettings | LoadSettings | ChildSettings, auth: tuple[Auth, ...] = ()
) -> bytes:
    """The line for a child's standard input, secrets revealed. Write it to the pipe, keep it nowhere."""
    revealed = [
        [(header.name, [_revealed(part) for part in header.parts]) for header in headers] for headers in auth
    ]
    return msgspec.json.encode(_Line(msgspec.Raw(msgspec.json.encode(settings)), revealed)) + b"\n"


def decode_handover(line: bytes, of: type[S]) -> tuple[S, tuple[Auth, ...]]:
    """A worker's start from the line it was given. Raises msgspec.ValidationError for anything else."""
    parsed = msgspec.json.decode(line, type=_Line)
    auth = tuple(
        tuple(
            AuthHeader(name, tuple(Secret(text) if is_secret else text for is_secret, text in parts))
            for name, parts in headers
        )
        for headers in parsed.auth
    )
    return msgspec.json.decode(parsed.settings, type=of), auth


def secret_values(auth: tuple[Auth, ...]) -> list[str]:
    """The secrets themselves, to keep them out of children's environments."""
    return [secret.reveal() for headers in auth for secret in all_secrets(headers)]


def _revealed(part: str | Secret) -> tuple[bool, str]:
    return (True, part.reveal()) if isinstance(part, Secret) else (False, part)
