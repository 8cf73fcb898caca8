"""Azure OpenAI (Microsoft Foundry): OpenAI's bodies under Azure's URLs, key header and charging rule.

Rules of this file:
1. With ``--api-version`` the classic URLs are used, which name the deployment in the path; without it the v1 URLs,
   which take it as ``model`` in the body. The base URL is the resource's origin either way.
2. ``--model`` is the name of the deployment.

Sources: Azure's documentation of the API's versions and of quotas; the URLs of the official SDK.
"""

from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote

from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import Charge, Target
from engine.providers.base import Auth
from engine.providers.estimate import COMPLETIONS_LIMIT, charge_by_sum
from engine.providers.openai import ENDPOINTS, NEWER_MODEL, OLDER_MODEL, OpenAI

# From here on the classic API knows max_completion_tokens (Azure's documentation of reasoning models).
_FIRST_WITH_NEWER_LIMIT = "2024-09-01"


class Azure(OpenAI):
    """Azure OpenAI. See ``providers.base.Provider``."""

    name = "azure"
    auth: Auth | None = Auth("api-key", "", "AZURE_OPENAI_API_KEY")
    default_base_url = ""
    cut = ("/openai/v1", "/openai", "/v1")
    takes_version = True
    paths: ClassVar[Mapping[str, str]] = {
        f"{front}{path}": endpoint
        for front in ("/v1", "", "/openai/v1")
        for endpoint, path in ENDPOINTS.items()
    }

    def __init__(self, target: Target) -> None:
        if target.model in (".", ".."):
            raise UsageError(f"{target.model!r} is no name of a deployment. Give its name with --model.")
        super().__init__(target)
        self.needs_model = True

    def url(self, endpoint: str, model: str) -> str:
        """The v1 URL, or the classic one of the deployment; Responses has no deployment in its path."""
        base = f"{self._address.origin}{self._address.path}/openai"
        version = self._target.api_version
        if not version:
            return f"{base}/v1{ENDPOINTS[endpoint]}"
        query = f"?api-version={quote(version, safe='')}"
        if endpoint == "responses":
            return f"{base}/responses{query}"
        if model in (".", ".."):
            raise RowError(ErrorKind.BAD_REQUEST, f"{model!r} is no name of a deployment")
        return f"{base}/deployments/{quote(model, safe='')}{ENDPOINTS[endpoint]}{query}"

    def limit_name(self, endpoint: str, model: str) -> str:
        """By the model's family where the deployment's name tells it, else by what the API version knows."""
        if endpoint != "chat":
            return super().limit_name(endpoint, model)
        if NEWER_MODEL.search(model):
            return "max_completion_tokens"
        version = self._target.api_version
        if OLDER_MODEL.search(model) or (version and version < _FIRST_WITH_NEWER_LIMIT):
            return "max_tokens"
        return "max_completion_tokens"

    def charge(self, endpoint: str, tokens_in: int, tokens_out: int) -> Charge:
        """The estimate of the prompt plus the limit on all answers (Azure's quota documentation)."""
        if endpoint == "completions" and not tokens_out:
            tokens_out = COMPLETIONS_LIMIT
        return charge_by_sum(tokens_in, tokens_out)
