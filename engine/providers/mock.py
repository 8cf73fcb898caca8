"""The mock provider: OpenAI's shapes at the address of a mock server, without a key.

Rules of this file:
1. The address is filled in when the mock has started; a job is checked with a placeholder before that.
"""

from dataclasses import replace

from engine.core.model import Target
from engine.providers.base import Auth
from engine.providers.openai import OpenAI

PLACEHOLDER = "http://127.0.0.1:1/v1"


class Mock(OpenAI):
    """See ``providers.base.Provider``."""

    auth: Auth | None = None
    default_base_url = PLACEHOLDER

    def __init__(self, target: Target) -> None:
        if not target.base_url.startswith(("http://", "https://")):
            target = replace(target, base_url=PLACEHOLDER)
        super().__init__(target)
