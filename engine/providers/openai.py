"""OpenAI, and every server that speaks its API: vLLM, SGLang, llama.cpp, Groq, Together, Mistral, Gemini, gateways.

Rules of this file:
1. The base URL is used as it is given, with its ``/v1``; only the endpoint's path is put behind it.
2. Newer OpenAI models refuse ``max_tokens``, most other servers do not know ``max_completion_tokens``: which one is
   sent follows from host and model (``limit_field``). ``--param`` overrides it.

Sources: OpenAI's API reference and guide to rate limits; Azure's documentation of reasoning models.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from engine.core.model import Answer, Charge, Failure, Reply, Target
from engine.providers.base import Auth
from engine.providers.errors_in_replies import failure_of
from engine.providers.estimate import COMPLETIONS_LIMIT, charge_by_larger
from engine.providers.framed import JsonProvider
from engine.providers.openai_replies import READERS
from engine.providers.structured import json_schema_format

ENDPOINTS: Final[dict[str, str]] = {
    "chat": "/chat/completions",
    "responses": "/responses",
    "embeddings": "/embeddings",
    "completions": "/completions",
}
OLDER_MODEL = re.compile(r"(?:^|[^a-z0-9])(?:gpt-?[34](?![0-9]*b)|davinci|babbage|curie|ada)", re.IGNORECASE)
NEWER_MODEL = re.compile(r"(?:^|[^a-z0-9])(?:o[1-9](?![a-z0-9])|gpt-?[5-9])", re.IGNORECASE)
_AZURE_HOSTS = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")


def is_openai(host: str) -> bool:
    """Whether a host is OpenAI's own, also under its regional names (eu.api.openai.com)."""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def limit_field(host: str, model: str) -> str:
    """The chat field that bounds the answer: at OpenAI and Azure by the model's family, elsewhere ``max_tokens``.

    gpt-3.5 and gpt-4* get ``max_tokens``; models of no known family the newer field at OpenAI's own hosts and at
    Azure's, where a deployment may have any name.
    """
    if not (is_openai(host) or host.endswith(_AZURE_HOSTS)):
        return "max_tokens"
    if OLDER_MODEL.search(model) and not NEWER_MODEL.search(model):
        return "max_tokens"
    return "max_completion_tokens"


class OpenAI(JsonProvider):
    """OpenAI's API at any base URL. See ``providers.base.Provider``."""

    name = "openai"
    auth: Auth | None = Auth("Authorization", "Bearer ", "OPENAI_API_KEY")
    default_base_url = "https://api.openai.com/v1"
    paths: ClassVar[Mapping[str, str]] = {
        f"{front}{path}": endpoint for front in ("/v1", "") for endpoint, path in ENDPOINTS.items()
    }
    question_field: ClassVar[Mapping[str, str]] = {
        "chat": "messages",
        "responses": "input",
        "embeddings": "input",
        "completions": "prompt",
    }
    dialects: Mapping[str, str] = {"chat": "chat", "completions": "completions", "responses": "responses"}

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.needs_model = self.needs_model and is_openai(self._address.host)
        self._read = READERS[target.endpoint]

    def url(self, endpoint: str, model: str) -> str:
        """Base URL and the endpoint's path."""
        return f"{self._address.origin}{self._address.path}{ENDPOINTS[endpoint]}"

    def question(self, endpoint: str, prompt: Any, system: Any) -> dict[str, Any]:
        """``messages`` with the system prompt as the first one; Responses has ``instructions`` and ``input``."""
        body: dict[str, Any] = {"model": self._target.model} if self._target.model else {}
        if endpoint == "chat":
            messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
            prompt = messages if system is None else [{"role": "system", "content": system}, *messages]
        elif endpoint == "responses" and system is not None:
            body["instructions"] = system
        body[self.question_field[endpoint]] = prompt
        return body

    def settings(self, endpoint: str, model: str) -> dict[str, Any]:
        """Limit, temperature and schema under the endpoint's names; embeddings have none of them."""
        target = self._target
        fields: dict[str, Any] = {}
        if endpoint == "embeddings":
            return fields
        if target.max_tokens is not None:
            fields[self.limit_name(endpoint, model)] = target.max_tokens
        if target.temperature is not None:
            fields["temperature"] = target.temperature
        if target.schema is not None and endpoint == "chat":
            fields["response_format"] = {
                "type": "json_schema",
                "json_schema": json_schema_format(target.schema),
            }
        elif target.schema is not None and endpoint == "responses":
            fields["text"] = {"format": {"type": "json_schema", **json_schema_format(target.schema)}}
        return fields

    def limit_name(self, endpoint: str, model: str) -> str:
        """The field that bounds the answer's tokens."""
        if endpoint == "responses":
            return "max_output_tokens"
        return limit_field(self._address.host, model) if endpoint == "chat" else "max_tokens"

    def charge(self, endpoint: str, tokens_in: int, tokens_out: int) -> Charge:
        """The larger of the limit on the answer and the estimate of the prompt (OpenAI's guide to rate limits)."""
        if endpoint == "completions" and not tokens_out:
            tokens_out = COMPLETIONS_LIMIT
        return charge_by_larger(tokens_in, tokens_out)

    def parse(self, reply: Reply) -> Answer | Failure:
        """What the reply says; of whichever endpoint it is. Never raises."""
        if 200 <= reply.status < 300:
            return self._read(reply)
        return failure_of(reply)
