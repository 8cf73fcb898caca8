"""Azure OpenAI: OpenAI's bodies at Azure's addresses, with an ``api-key`` header.

Rules of this file:
1. With an API version the classic URLs are used (the deployment is in the path), without one the v1 URLs
   (Microsoft's documentation of the API version lifecycle).
2. Tokens are charged as the prompt's estimate plus the answer's bound (Microsoft's quota documentation).
"""

from urllib.parse import quote, urlencode

from engine.core.errors import UsageError
from engine.core.model import Charge, Target
from engine.providers.base import Auth
from engine.providers.openai import PATHS, OpenAI

_SUFFIXES = ("/openai/v1", "/openai", "/v1")


class Azure(OpenAI):
    """See ``providers.base.Provider``. ``model`` is the deployment's name."""

    auth: Auth | None = Auth("api-key", "", "AZURE_OPENAI_API_KEY")
    default_base_url = ""

    def __init__(self, target: Target) -> None:
        if not target.base_url:
            raise UsageError(
                "Azure has no common address: give --base-url https://RESOURCE.openai.azure.com."
            )
        super().__init__(target)

    def urls(self, base: str, target: Target) -> dict[str, str]:
        """The address of each endpoint."""
        for suffix in _SUFFIXES:
            if base.endswith(suffix):
                base = base.removesuffix(suffix)
                break
        if not target.api_version:
            return {name: f"{base}/openai/v1{path}" for name, path in PATHS.items()}
        version = urlencode({"api-version": target.api_version})
        deployment = quote(target.model, safe="")
        urls = {
            name: f"{base}/openai/deployments/{deployment}{path}?{version}"
            for name, path in PATHS.items()
            if name != "responses"
        }
        urls["responses"] = f"{base}/openai/responses?{version}"
        return urls

    def wants_new_name(self) -> bool:
        """A deployment's name need not tell its model: the new name works on all current API versions."""
        return super().wants_new_name() or not self.target.api_version

    def charge(self, tokens_in: int, tokens_out: int) -> Charge:
        """Prompt estimate plus the answer's bound, once per candidate asked for."""
        best_of = self.target.params.get("best_of", self.target.params.get("n", 1))
        times = best_of if isinstance(best_of, int) and best_of > 0 else 1
        return Charge(tokens_in, tokens_out * times, tokens_in + tokens_out * times)
