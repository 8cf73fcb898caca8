"""The mock provider, asked in OpenAI's shapes: the one a run starts by itself, or any that listens elsewhere.

Rules of this file:
1. The embedded mock's address is filled in when it listens; before that ``mock:...`` stands for an origin that
   nothing can be sent to.
2. It needs no key, and no model: one is made up, because the mock, like its models, wants a name.
"""

from dataclasses import replace

from engine.core.model import Target
from engine.providers.addresses import read_address
from engine.providers.openai import OpenAI

EMBEDDED = "mock:"
MODEL = "mock-model"
_UNSENDABLE = "http://127.0.0.1:9/v1"  # the discard port; see rule 1


class Mock(OpenAI):
    """The mock provider. See ``providers.base.Provider``."""

    name = "mock"
    auth = None
    default_base_url = EMBEDDED

    def __init__(self, target: Target) -> None:
        base_url = target.base_url or EMBEDDED
        if base_url.startswith(EMBEDDED):
            base_url = _UNSENDABLE
        elif not read_address(base_url).path:
            base_url = f"{base_url.rstrip('/')}/v1"
        super().__init__(replace(target, base_url=base_url, model=target.model or MODEL))
