"""Requests as the mock provider understands them: which route a path is, and what its body asks for.

Rules of this file:
1. Bodies are decoded once, into the few fields that matter; unknown fields are ignored, as providers do.
2. A body that makes no sense raises ``BadQuestion`` with a sentence; nothing else may be raised.
"""

import re
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from engine.mock.answers import tokens_of, whole_text
from engine.mock.quota import Cost

EMBEDDING_INPUTS_MAX = 2048  # per request (OpenAI's and Azure's API references)
COMPLETION_TOKENS_DEFAULT = 16  # of /v1/completions (OpenAI's API reference)


class Route(NamedTuple):
    """What a path is: its name in the statistics, the API it speaks, whose errors and headers it sends."""

    name: str
    api: str
    style: str
    deployment: str = ""  # Azure's classic URLs name the model in the path


_OPENAI = {
    "chat/completions": "chat",
    "completions": "completions",
    "responses": "responses",
    "embeddings": "embeddings",
    "models": "models",
}
_PREFIXES = {"/v1/": "openai", "/openai/v1/": "azure", "/v1beta/openai/": "gemini"}
_OTHERS = {
    "/v1/messages": ("messages", "anthropic"),
    "/api/chat": ("ollama_chat", "ollama"),
    "/api/generate": ("ollama_generate", "ollama"),
    "/api/embed": ("ollama_embed", "ollama"),
    "/plain": ("plain", "openai"),
    "/echo": ("echo", "openai"),
    "/stats": ("stats", ""),
    "/reset": ("reset", ""),
    "/control": ("control", ""),
    "/log": ("log", ""),
}
ROUTES: dict[bytes, Route] = {
    f"{prefix}{path}".encode(): Route(f"{prefix}{path}", api, style)
    for prefix, style in _PREFIXES.items()
    for path, api in _OPENAI.items()
} | {path.encode(): Route(path, api, style) for path, (api, style) in _OTHERS.items()}

# Azure's classic Responses has no deployment in its path: the model is in the body.
_CLASSIC_RESPONSES = Route("/openai/responses", "responses", "azure")
_CLASSIC = re.compile(rb"/openai/deployments/([^/]+)/(chat/completions|completions|embeddings|responses)")


def route_of(path: bytes, query: bytes) -> Route | None:
    """The route of a path, or None. Azure's classic URLs need an ``api-version`` in the query."""
    known = ROUTES.get(path)
    if known is not None:
        return known
    if b"api-version=" not in query:
        return None
    if path == b"/openai/responses":
        return _CLASSIC_RESPONSES
    classic = _CLASSIC.fullmatch(path)
    if classic is None:
        return None
    deployment = unquote_to_bytes(classic.group(1)).decode("utf-8", "replace")
    operation = classic.group(2).decode()
    return Route(f"/openai/deployments/*/{operation}", _OPENAI[operation], "azure", deployment)


class BadQuestion(Exception):
    """The body cannot be answered; ``str()`` says why, for a reply of status 400."""


class Question(msgspec.Struct, gc=False):
    """What one request asks, in the same words for every API."""

    model: str
    prompt: str = ""  # the texts of all turns but the system's, joined by line breaks
    system: str = ""
    messages: int = 1
    joins: int = 0  # characters that joining the texts added; nobody is charged for those
    tokens_max: int | None = None
    stream: bool = False
    stream_usage: bool = False
    schema: dict[str, Any] | None = None
    choices: int = 1
    inputs: list[str] | None = None  # embeddings
    dims: int | None = None
    base64: bool = False

    @property
    def text(self) -> str:
        """What the answer depends on."""
        return whole_text(self.prompt, self.system)

    @property
    def tokens_in(self) -> int:
        """The prompt's tokens as usage states them: a few more than its characters make."""
        return self.prompt_tokens + 3 * self.messages

    @property
    def prompt_tokens(self) -> int:
        """The prompt's tokens by its characters alone, which is what limits count."""
        if self.inputs is not None:
            return sum(tokens_of(len(text)) for text in self.inputs)
        return tokens_of(len(self.prompt) + len(self.system) - self.joins)

    def cost(self, charge: str, style: str) -> Cost:
        """What the request is charged on arrival.

        OpenAI's rate-limit guide: the larger of max tokens and an estimate by characters. Azure's quota
        documentation: the estimate plus max tokens. Anthropic's documentation: the input on arrival, the
        output as it is produced (see ``Quota.settle``).
        """
        rule = charge if charge != "auto" else style
        tokens_in, tokens_max = self.prompt_tokens, self.tokens_max or 0
        if rule == "anthropic":
            return Cost(1, tokens_in, tokens_in, 0)
        tokens = tokens_in + tokens_max * self.choices if rule == "azure" else max(tokens_in, tokens_max)
        return Cost(1, tokens, tokens_in, tokens_max)


class _Turn(msgspec.Struct, gc=False):
    role: str = ""
    content: str | list[Any] | None = None


class _Body(msgspec.Struct, gc=False):
    """The fields of all request bodies that matter here. Ollama's and OpenAI's differ in name, not in type."""

    model: str = ""
    messages: list[_Turn] = []
    prompt: str | list[Any] | None = None
    input: str | list[Any] | None = None
    system: str | list[Any] | None = None
    instructions: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    format: str | dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    encoding_format: str | None = None
    dimensions: int | None = None


_decode = msgspec.json.Decoder(_Body).decode


def read_question(route: Route, body: bytes) -> Question:
    """What a body asks on its route. Raises BadQuestion."""
    try:
        fields = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadQuestion(f"We could not parse the JSON body of your request: {error}") from error
    question = _READERS[route.api](fields)
    question.model = route.deployment or question.model
    if not question.model:
        raise BadQuestion("you must provide a model parameter")
    if question.tokens_max is not None and question.tokens_max < 1:
        raise BadQuestion("Invalid max tokens: integer below minimum value. Expected a value >= 1")
    return question


def _plain_text(content: Any) -> str:
    """The text of a message's content: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""


def _conversation(turns: list[_Turn], question: Question) -> Question:
    if not turns:
        raise BadQuestion("Invalid 'messages': empty array. Expected an array with minimum length 1")
    question.messages = len(turns)
    if len(turns) == 1 and turns[0].role == "user":  # most requests
        question.prompt = _plain_text(turns[0].content)
        return question
    prompts = [_plain_text(turn.content) for turn in turns if turn.role not in ("system", "developer")]
    systems = [_plain_text(turn.content) for turn in turns if turn.role in ("system", "developer")]
    systems = [question.system, *systems] if question.system else systems
    question.prompt, question.system = "\n".join(prompts), "\n".join(systems)
    question.joins = max(0, len(prompts) - 1) + max(0, len(systems) - 1)
    return question


def _schema_of(format_: dict[str, Any] | None, wrapper: str = "") -> dict[str, Any] | None:
    """The JSON schema asked for. Any JSON object will do for ``json_object``: the empty object schema."""
    if not format_:
        return None
    if format_.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    if format_.get("type") != "json_schema":
        return None
    holder = format_.get(wrapper) if wrapper else format_
    schema = holder.get("schema") if isinstance(holder, dict) else None
    if not isinstance(schema, dict):
        raise BadQuestion("Missing required parameter: the schema of the response format")
    return schema


def _chat(body: _Body) -> Question:
    question = Question(
        model=body.model,
        tokens_max=body.max_completion_tokens or body.max_tokens,
        stream=bool(body.stream),
        schema=_schema_of(body.response_format, "json_schema"),
        choices=min(max(body.n or 1, 1), 128),
    )
    question.stream_usage = bool(body.stream_options and body.stream_options.get("include_usage"))
    return _conversation(body.messages, question)


def _completions(body: _Body) -> Question:
    if not isinstance(body.prompt, str):
        raise BadQuestion("Invalid 'prompt': this server completes one string at a time")
    if body.stream:
        raise BadQuestion("Unsupported parameter: 'stream' on /completions")
    tokens_max = COMPLETION_TOKENS_DEFAULT if body.max_tokens is None else body.max_tokens
    return Question(model=body.model, prompt=body.prompt, tokens_max=tokens_max)


def _responses(body: _Body) -> Question:
    format_ = body.text.get("format") if body.text else None
    question = Question(
        model=body.model,
        system=body.instructions or "",
        tokens_max=body.max_output_tokens,
        stream=bool(body.stream),
        schema=_schema_of(format_ if isinstance(format_, dict) else None),
    )
    if isinstance(body.input, str):
        question.prompt = body.input
        return question
    items = body.input or []
    turns = [
        _Turn(str(item.get("role", "user")), item.get("content")) for item in items if isinstance(item, dict)
    ]
    return _conversation(turns, question)


def _messages(body: _Body) -> Question:
    if body.max_tokens is None:
        raise BadQuestion("max_tokens: Field required")
    format_ = body.output_config.get("format") if body.output_config else None
    question = Question(
        model=body.model,
        system=_plain_text(body.system),
        tokens_max=body.max_tokens,
        stream=bool(body.stream),
        schema=_schema_of(format_ if isinstance(format_, dict) else None),
    )
    return _conversation(body.messages, question)


def _embeddings(body: _Body) -> Question:
    given = body.input if body.input is not None else []
    inputs = [given] if isinstance(given, str) else list(given)
    if inputs and isinstance(inputs[0], int):  # one text as token numbers
        inputs = [inputs]
    if not inputs or len(inputs) > EMBEDDING_INPUTS_MAX or "" in inputs:
        raise BadQuestion(
            f"'$.input' is invalid: 1 to {EMBEDDING_INPUTS_MAX} non-empty strings or token arrays are accepted"
        )
    texts = [one if isinstance(one, str) else msgspec.json.encode(one).decode() for one in inputs]
    if body.dimensions is not None and not 0 < body.dimensions <= 4096:
        raise BadQuestion("Invalid value for 'dimensions': expected 1 to 4096")
    return Question(
        model=body.model,
        inputs=texts,
        dims=body.dimensions,
        base64=body.encoding_format == "base64",
        messages=0,
    )


def _ollama_options(body: _Body, question: Question) -> Question:
    question.stream = body.stream is None or body.stream
    predict = (body.options or {}).get("num_predict")
    if isinstance(predict, int) and predict > 0:  # negative: without end
        question.tokens_max = predict
    if isinstance(body.format, dict):
        question.schema = body.format
    elif body.format == "json":
        question.schema = _schema_of({"type": "json_object"})
    return question


def _ollama_chat(body: _Body) -> Question:
    return _conversation(body.messages, _ollama_options(body, Question(model=body.model)))


def _ollama_generate(body: _Body) -> Question:
    question = Question(model=body.model, prompt=_plain_text(body.prompt), system=_plain_text(body.system))
    return _ollama_options(body, question)


_READERS = {
    "chat": _chat,
    "completions": _completions,
    "responses": _responses,
    "embeddings": _embeddings,
    "messages": _messages,
    "ollama_chat": _ollama_chat,
    "ollama_generate": _ollama_generate,
    "ollama_embed": _embeddings,
}
