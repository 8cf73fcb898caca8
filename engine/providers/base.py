"""What a provider is: it makes a call of an ask, and an answer or a failure of a reply. No I/O.

Rules of this folder:
1. One file per provider, no sockets, no clock, no environment, no secrets: the key is added by the sender.
2. ``build`` raises ``RowError`` for a row that can never be sent; ``parse`` never raises, whatever the bytes.
3. Calls of one job share one ``headers`` tuple and one ``url`` string wherever possible (identity, not equality).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from engine.core.model import Answer, Ask, Call, Failure, Reply, Target


class Auth(NamedTuple):
    """How a provider wants its key: ``header: prefix + key``, and where users usually keep it."""

    header: str
    prefix: str
    environment: str  # e.g. OPENAI_API_KEY


class Provider(Protocol):
    """One provider, made for one job. See the module's rules."""

    auth: Auth | None  # None: the provider has no key of its own (http, mock)
    settles: bool  # True where TPM counts real usage, so that a charge may be lowered after the reply
    measure: Callable[[str], int] | None  # of texts in quarter tokens, set from outside to count them exactly
    default_base_url: str  # "" where the user must give one
    dialects: Mapping[str, str]  # the endpoints that can stream their answers -> a name in streams.READERS

    def __init__(self, target: Target) -> None:
        """Raises UsageError, with a sentence, for a target this provider cannot serve."""

    @property
    def origin(self) -> str:
        """``scheme://host[:port]`` that calls go to and the only place the key may be sent to.

        "" where each row names its own (provider http); nothing secret is sent there.
        """

    def build(self, ask: Ask) -> Call:
        """The request for one ask, charged by the provider's rule. Raises RowError."""

    def parse(self, reply: Reply) -> Answer | Failure:
        """What the reply says. Never raises. 2xx that misses the answer is a BAD_REPLY failure."""
