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

HELP = (
    "Use one of: pause, resume, drain, set rpm=N tpm=N input-tpm=N output-tpm=N in-flight=N. "
    "With several endpoints: set NAME.rpm=N."
)
_SETTABLE = (*Rates._fields, "in_flight")


class Steered(Protocol):
    """A session, as far as it can be steered from outside."""

    supervisor: Supervisor
    endpoints: list[str]  # names; one that is empty where the run has no table of them

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

    def _set(self, values: "_Values") -> str:
        supervisor, limits = self._session.supervisor, self._limits(values)
        in_flight = values.get(("", "in_flight"))
        for endpoint, its in limits.items():
            supervisor.check_limits(its, endpoint)
        if in_flight is not None:
            supervisor.check_in_flight(in_flight)
            supervisor.set_in_flight(in_flight)
        for endpoint, its in limits.items():
            supervisor.set_limits(its, endpoint)
        self._session.tune()
        return ", ".join(
            f"{'.'.join(filter(None, name)).replace('_', '-')} is {value:,} now"
            for name, value in values.items()
        )

    def _limits(self, values: "_Values") -> dict[int, dict[str, int]]:
        """The limits among some values, by the place of the endpoint they are for. Raises UsageError."""
        names = self._session.endpoints
        found: dict[int, dict[str, int]] = {}
        for (endpoint, name), value in values.items():
            if name == "in_flight" and not endpoint:
                continue
            if name == "in_flight" or endpoint not in names:
                raise UsageError(
                    f"Say which endpoint's limits to set, like {names[0]}.rpm=500. Endpoints: {', '.join(names)}; "
                    "in-flight is for all of them."
                    if names[0]
                    else f"This run has no endpoint named {endpoint!r}: it has one, without a name."
                )
            found.setdefault(names.index(endpoint), {})[name] = value
        return found


_Values = dict[tuple[str, str], int]  # by endpoint and name


def _parsed(words: list[str]) -> _Values:
    """``name=value`` words, each read as the flag of that name. Raises UsageError."""
    values: _Values = {}
    for word in words:
        whole, equals, text = word.partition("=")
        endpoint, _, name = whole.lstrip("-").rpartition(".")
        name = name.replace("-", "_")
        if not equals or name not in _SETTABLE:
            raise UsageError(f"{word!r} cannot be set. {HELP}")
        try:
            read: Any = SETTINGS[name].read(text)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{word} cannot be used: {error}.") from None
        if read == "auto":
            raise UsageError(f"{word} cannot be set on a run that runs: give a number.")
        values[endpoint, name] = read
    return values
