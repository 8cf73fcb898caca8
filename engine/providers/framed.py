"""What providers with JSON bodies share: an address, settings merged once, and bodies made fast.

Rules of this file:
1. A body is described once, as a dict. Its frame, the bytes around the row's own text, is encoded when the job
   starts: a row then costs the encoding of its text and one concatenation.
2. The job's settings fill in what an openai-batch line leaves out; the line wins. Among settings ``params`` win.
3. A reply has to come whole: whatever asks for a stream is refused, but the target of a load test.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec

from engine.core.errors import ErrorKind, RowError, UsageError
from engine.core.model import Ask, Call, Charge, Target
from engine.providers.addresses import Address, read_address
from engine.providers.base import Auth
from engine.providers.estimate import (
    LIMIT_FIELDS,
    Measure,
    choices_in,
    limit_in,
    size_of,
    size_of_messages,
    tokens_of,
    tokens_of_body,
)
from engine.providers.streams import STREAM_FIELDS

JSON_HEADERS: Final = (("content-type", "application/json"),)
TEXT_ENDPOINTS: Final = frozenset({"chat", "responses"})  # those whose answer can follow a schema
URLS_MAX: Final = 256  # remembered, where rows name models of their own
SCHEMA_FIELDS: Final = ("response_format", "text", "output_config", "format")
_INNER: Final = ("text", "output_config", "options")  # objects whose fields are merged one by one
_PROMPT: Final = "\x00the prompt of a row\x00"
_SYSTEM: Final = "\x00the system prompt of a row\x00"

# Numbers that only JSON can hold come as Decimal out of rows, and go on as the numbers they are.
encode = msgspec.json.Encoder(decimal_format="number").encode


class Frame:
    """The bytes of a body around a row's system prompt and prompt, in this order; ``middle`` is between them."""

    __slots__ = ("head", "middle", "tail")

    def __init__(self, body: dict[str, Any], *, system: bool) -> None:
        """Raises ValueError unless the body holds each placeholder exactly once, the system prompt first."""
        rest = encode(body)
        self.head, self.middle = b"", b""
        if system:
            self.head, rest = rest.split(encode(_SYSTEM))
            self.middle, self.tail = rest.split(encode(_PROMPT))
        else:
            self.head, self.tail = rest.split(encode(_PROMPT))


class JsonProvider(ABC):
    """A provider that takes one JSON body per call. Subclasses say what is in it, and where it goes."""

    auth: Auth | None = None
    settles = False
    default_base_url = ""
    name: ClassVar[str]
    cut: ClassVar[tuple[str, ...]] = ()  # endings of a base URL that are accepted and not meant
    headers: ClassVar[tuple[tuple[str, str], ...]] = JSON_HEADERS
    paths: ClassVar[Mapping[str, str]]  # of an openai-batch line -> endpoint
    question_field: ClassVar[Mapping[str, str]]  # endpoint -> the field that holds the row's question
    dialects: Mapping[str, str] = {}  # endpoint -> in which of streams.READERS it streams
    takes_version: ClassVar[bool] = False  # --api-version
    measure: Measure | None = None  # counts tokens exactly, where that was asked for
    needs_model = True  # whether a call without a model can only fail

    def __init__(self, target: Target) -> None:
        base_url = target.base_url or self.default_base_url
        if not base_url:
            raise UsageError(f"Provider {self.name} needs --base-url.")
        self._address: Address = read_address(base_url, cut=self.cut)
        self._target = target
        endpoint = self._endpoint = target.endpoint
        self._check(target)
        self._urls: dict[tuple[str, str], str] = {}
        # Without a model no prompt is asked (see _check_model), but lines that name their own may be.
        self._url = self._url_of(endpoint, target.model) if target.model or not self.needs_model else ""
        self._settings = self._merged(endpoint, target.model)
        self._tokens_out = limit_in(self._settings) * choices_in(self._settings)
        plain = {**self.question(endpoint, _PROMPT, None), **self._settings}
        frame = Frame(plain, system=False)
        self._head, self._tail = frame.head, frame.tail
        self._system_frame: Frame | None = None
        if endpoint in TEXT_ENDPOINTS:
            try:
                with_system = {**self.question(endpoint, _PROMPT, _SYSTEM), **self._settings}
                self._system_frame = Frame(with_system, system=True)
            except ValueError:  # a param is in the place of the system prompt
                pass

    @property
    def origin(self) -> str:
        """``scheme://host[:port]`` that calls go to and the only place the key may be sent to."""
        return self._address.origin

    # --- what a subclass says -----------------------------------------------------------------------------

    @abstractmethod
    def url(self, endpoint: str, model: str) -> str:
        """Where calls of that endpoint and model go. Raises RowError for a model that no URL can hold."""

    @abstractmethod
    def question(self, endpoint: str, prompt: Any, system: Any) -> dict[str, Any]:
        """Body fields of a question: the model, the system prompt, then ``prompt``, a text or a list of messages."""

    @abstractmethod
    def settings(self, endpoint: str, model: str) -> dict[str, Any]:
        """Body fields that the job's own settings make: limit, temperature, schema."""

    @abstractmethod
    def charge(self, endpoint: str, tokens_in: int, tokens_out: int) -> Charge:
        """What a call costs by the provider's rule."""

    # --- calls --------------------------------------------------------------------------------------------

    def build(self, ask: Ask) -> Call:
        """The request for one ask, charged by the provider's rule. Raises RowError."""
        try:
            prompt = ask.prompt
            if prompt is None:
                return self._build_other(ask)
            if ask.system is None:
                size = len(prompt) if prompt.isascii() else size_of(prompt)
                if self.measure is not None:
                    size = self.measure(prompt)
                body = self._head + encode(prompt) + self._tail
            else:
                frame = self._system_frame
                if frame is None:
                    raise RowError(ErrorKind.BAD_REQUEST, self._no_system())
                measure = self.measure or size_of
                size = measure(prompt) + measure(ask.system)
                body = frame.head + encode(ask.system) + frame.middle + encode(prompt) + frame.tail
        except UnicodeEncodeError:
            raise RowError(
                ErrorKind.TEMPLATE_ERROR, "the question holds half of a surrogate pair, which is no text"
            ) from None
        if not self._target.model:
            self._check_model("")
        if not prompt and self._endpoint == "embeddings":
            raise RowError(ErrorKind.BAD_INPUT, "there is no text to embed")
        charge = self.charge(self._endpoint, (size + 3) >> 2, self._tokens_out)
        return Call("POST", self._url, self.headers, body, charge)

    def _build_other(self, ask: Ask) -> Call:
        if ask.body is not None:
            return self._build_body(ask.path, ask.body)
        if ask.messages is None:
            raise RowError(ErrorKind.BAD_REQUEST, f"provider {self.name} needs a prompt or messages to ask")
        endpoint = self._endpoint
        if endpoint not in TEXT_ENDPOINTS:
            raise RowError(ErrorKind.BAD_REQUEST, f"the endpoint {endpoint} takes a prompt, not messages")
        self._check_model(self._target.model)
        body = {**self.question(endpoint, ask.messages, ask.system), **self._settings}
        measure = self.measure or size_of
        size = size_of_messages(ask.messages, measure) + (0 if ask.system is None else measure(ask.system))
        charge = self.charge(endpoint, tokens_of(size), self._tokens_out)
        return Call("POST", self._url, self.headers, _encoded(body), charge)

    def _build_body(self, path: str, given: Mapping[str, Any]) -> Call:
        """The call of an openai-batch line."""
        endpoint = self.paths.get(path)
        if endpoint is None:
            known = ", ".join(self.paths)
            raise RowError(
                ErrorKind.BAD_REQUEST, f"provider {self.name} has no path {path[:100]!r}; known: {known}"
            )
        if given.get("stream"):
            raise RowError(
                ErrorKind.BAD_REQUEST, "the line asks for a stream; leave stream out, replies come whole"
            )
        model = given.get("model", self._target.model)
        if not isinstance(model, str):
            raise RowError(ErrorKind.BAD_REQUEST, "the line's model is not a string")
        self._check_model(model)
        body = {"model": model, **self._merged(endpoint, model)} if model else self._merged(endpoint, model)
        if any(name in given for name in LIMIT_FIELDS):
            for name in LIMIT_FIELDS:
                body.pop(name, None)
        if any(name in given for name in SCHEMA_FIELDS):
            for name in SCHEMA_FIELDS:
                body.pop(name, None)
        options = body.get("options")
        body.update(given)
        if isinstance(options, dict) and isinstance(given.get("options"), dict):
            body["options"] = {**options, **given["options"]}
        tokens_out = limit_in(body) * choices_in(body)
        charge = self.charge(endpoint, tokens_of_body(body, self.measure or size_of), tokens_out)
        return Call("POST", self._url_of(endpoint, model), self.headers, _encoded(body), charge)

    # --- settings -----------------------------------------------------------------------------------------

    def _merged(self, endpoint: str, model: str) -> dict[str, Any]:
        """The settings with the params, which win: also over a limit under another name."""
        params = self._target.params
        settings = self.settings(endpoint, model)
        if self._target.stream:
            settings |= STREAM_FIELDS[self.dialects[endpoint]]
        if any(name in params for name in LIMIT_FIELDS):
            for name in LIMIT_FIELDS:
                settings.pop(name, None)
        for name, value in params.items():
            own = settings.get(name)
            if name in _INNER and isinstance(own, dict) and isinstance(value, Mapping):
                settings[name] = {**own, **value}
            else:
                settings[name] = value
        return settings

    def _url_of(self, endpoint: str, model: str) -> str:
        """One string object per endpoint and model: the sender knows it again by identity."""
        url = self._urls.get((endpoint, model))
        if url is None:
            if len(self._urls) >= URLS_MAX:
                self._urls.clear()
            url = self._urls[endpoint, model] = self.url(endpoint, model)
        return url

    def _check(self, target: Target) -> None:
        """Raises UsageError for what this provider cannot do."""
        known = self.question_field
        if target.endpoint not in known:
            raise UsageError(
                f"Provider {self.name} has no endpoint {target.endpoint!r}. Known: {', '.join(known)}."
            )
        if target.api_version and not self.takes_version:
            raise UsageError(f"--api-version is for azure; provider {self.name} has no such thing.")
        field = known[target.endpoint]
        if field in target.params:
            raise UsageError(
                f"--param {field} would put the same question in place of every row's own. "
                "Give the question with --prompt or --messages."
            )
        if target.stream and target.endpoint not in self.dialects:
            raise UsageError(
                f"The endpoint {target.endpoint} of provider {self.name} streams nothing. Leave --stream out."
            )
        if target.params.get("stream"):
            raise UsageError("--param stream cannot be used: replies come whole. Leave it out.")
        if target.endpoint == "embeddings":
            for flag, value in (("--max-tokens", target.max_tokens), ("--temperature", target.temperature)):
                if value is not None:
                    raise UsageError(f"Embeddings take no {flag}. Leave it out.")
        if target.max_tokens is not None and target.max_tokens < 1:
            raise UsageError("--max-tokens must be at least 1.")

    def _check_model(self, model: str) -> None:
        if not model and self.needs_model:
            raise RowError(ErrorKind.BAD_REQUEST, "there is no model to ask; give --model")

    def _no_system(self) -> str:
        if self._endpoint in TEXT_ENDPOINTS:
            return "there are two system prompts, one of --system and one of --param; give one"
        return f"the endpoint {self._endpoint} takes no system prompt; put it into the prompt"


def _encoded(body: dict[str, Any]) -> bytes:
    """A body with a row's own values in it. Raises RowError for what JSON cannot hold."""
    try:
        return encode(body)
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError) as error:
        raise RowError(
            ErrorKind.BAD_INPUT, f"the row's question cannot be written as JSON: {str(error)[:200]}"
        ) from None
