"""What ``engine ctl`` may ask of a running run.

Rules of this file:
1. Words that are not understood change nothing and are answered with a sentence.
2. Only who can read the run's private folder knows the token.
"""

import asyncio
import hmac
import secrets
from typing import Any, Protocol

from engine.coordinator.supervise import Supervisor
from engine.core.errors import UsageError
from engine.core.quota import Rates
from engine.settingtable import SETTINGS
from engine.wire.messages import Control, Controlled

HELP = "Use one of: pause, resume, drain, set rpm=N tpm=N input-tpm=N output-tpm=N in-flight=N."
_SETTABLE = (*Rates._fields, "in_flight")


class Steered(Protocol):
    """A session, as far as it can be steered from outside."""

    supervisor: Supervisor

    def pause(self, is_paused: bool) -> None: ...

    def drain(self) -> None: ...

    def tune(self) -> None: ...


class Controls:
    """The wheel of one session."""

    def __init__(self, session: Steered) -> None:
        self._session = session
        self._loop = asyncio.get_running_loop()
        self.token = secrets.token_hex(16)

    def obey(self, message: Control) -> Controlled:
        """Do what is asked, and say what came of it."""
        if not hmac.compare_digest(message.token.encode(), self.token.encode()):
            return Controlled(False, "This run does not know you.")
        try:
            return Controlled(True, self._do(message.words))
        except UsageError as error:
            return Controlled(False, str(error))

    def _do(self, words: list[str]) -> str:
        session = self._session
        if words == ["pause"]:
            session.pause(True)
            return "paused: calls in flight end, nothing more is sent until: engine ctl RUN resume"
        if words == ["resume"]:
            session.pause(False)
            return "resumed"
        if words == ["drain"]:
            session.drain()
            return "draining: calls in flight end, then the run stops; the same command goes on with it"
        if len(words) > 1 and words[0] == "set":
            return self._set(_parsed(words[1:]))
        raise UsageError(f"{' '.join(words)!r} is not understood. {HELP}")

    def _set(self, values: dict[str, int]) -> str:
        supervisor = self._session.supervisor
        limits = {name: values[name] for name in Rates._fields if name in values}
        if limits:
            supervisor.set_limits(limits)
        if "in_flight" in values:
            supervisor.set_in_flight(values["in_flight"])
        self._session.tune()
        return ", ".join(f"{name.replace('_', '-')} is {value:,} now" for name, value in values.items())


def _parsed(words: list[str]) -> dict[str, int]:
    """``name=value`` words, each read as the flag of that name. Raises UsageError."""
    values: dict[str, int] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.lstrip("-").replace("-", "_")
        if not equals or name not in _SETTABLE:
            raise UsageError(f"{word!r} cannot be set. {HELP}")
        try:
            read: Any = SETTINGS[name].read(text)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{word} cannot be used: {error}.") from None
        if read == "auto":
            raise UsageError(f"{word} cannot be set on a run that runs: give a number.")
        values[name] = read
    return values
