"""The steps of a pool as values: what is asked, requested or called for each row, and in which order.

Rules of this file:
1. A step says only what differs from the usual; everything else comes from the pool's settings, as in a job file.
2. Nothing is checked here but what makes no sense in any job: the settings' own reader says the rest.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack, get_type_hints

import msgspec

from engine.core.errors import UsageError


class StepSettings(TypedDict, total=False):
    """What every step may say of its own endpoint; the meaning is that of the command line's flags."""

    name: str
    provider: str
    base_url: str
    api_version: str
    api_key_env: str
    rpm: int | str
    tpm: int | str
    input_tpm: int | str
    output_tpm: int | str
    timeout: float
    retries: int
    keep: bool


_TEXTS = (
    *(
        "prompt",
        "model",
        "system",
        "messages",
        "into",
        "endpoint",
        "url",
        "method",
        "body",
        "select",
        "mode",
        "when",
    ),
    *(name for name, kind in get_type_hints(StepSettings).items() if kind is str),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its kind (ask, request or call) and its settings, by the names they have in a job file."""

    kind: str
    settings: Mapping[str, Any]
    function: Callable[..., Any] | None = field(default=None)


@dataclass(frozen=True, slots=True, init=False)
class Chain:
    """Several steps for each row. A step waits for those whose results it takes; the others run side by side."""

    steps: tuple[Step, ...]

    def __init__(self, steps: "Iterable[Step | Chain]") -> None:
        object.__setattr__(self, "steps", tuple(_flat(steps)))
        if not self.steps:
            raise UsageError("A chain needs at least one step: ask(...), request(...) or call(...).")


def ask(
    prompt: str | None = None,
    *,
    model: str | None = None,
    system: str | None = None,
    messages: str | None = None,
    schema: Any = None,
    into: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    params: Mapping[str, Any] | None = None,
    endpoint: str | None = None,
    prompt_file: str | None = None,
    take: Mapping[str, str] | None = None,
    when: str | None = None,
    **settings: Unpack[StepSettings],
) -> Step:
    """Ask a model.

    prompt, system: Jinja2 templates over the row's columns and earlier results, like ``"Summarise: {{ text }}"``.
    messages: instead of a prompt, the column that holds a list of messages. schema: of the answer: a JSON schema (a
    dict, or the path of a file), or a dataclass, TypedDict, msgspec.Struct or pydantic model; its properties become the
    value, a dict. into: the answer's name, for later steps and in the output (``response``, or the step's name).
    max_tokens: of the longest answer. params: further fields of the request's body. take: names in the template, each
    with the column or result it stands for. when: an expression; where it is false for a row, the step is skipped.
    settings: see ``StepSettings``; rpm and tpm are limits per minute, timeout is in seconds.
    """
    given = {
        "prompt": prompt,
        "model": model,
        "system": system,
        "messages": messages,
        "schema": _schema(schema),
        "into": into,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "param": params,
        "endpoint": endpoint,
        "prompt_file": prompt_file,
        "take": take,
        "when": when,
    }
    return _step("ask", given, settings)


def request(
    url: str,
    *,
    method: str | None = None,
    header: Mapping[str, str] | None = None,
    body: str | None = None,
    select: str | None = None,
    into: str | None = None,
    take: Mapping[str, str] | None = None,
    when: str | None = None,
    **settings: Unpack[StepSettings],
) -> Step:
    """Send a plain HTTP request.

    url, body: Jinja2 templates. method: GET, POST (the usual) and so on. header: names and values; ``${NAME}`` in a
    value is an environment variable that holds a secret. select: a path into a JSON reply, like ``result.0.score``.
    The rest is as with ``ask``.
    """
    given = {
        "url": url,
        "method": method,
        "header": header,
        "body": body,
        "select": select,
        "into": into,
        "take": take,
        "when": when,
        "provider": "http",
    }
    return _step("request", given, settings)


def call(
    function: Callable[..., Any] | str,
    *,
    into: str | None = None,
    mode: str | None = None,
    take: Mapping[str, str] | None = None,
    when: str | None = None,
    **settings: Unpack[StepSettings],
) -> Step:
    """Call a Python function, in the worker processes.

    function: async or not; or its name, ``"module:function"``. It is called with the row's values as one dict, or, with
    take, with these as keyword arguments. Both the values and what it returns go through JSON: dates become texts, Decimals
    floats, tuples and sets lists, keys texts, numpy's numbers Python's, NaN None; what JSON cannot say fails the row, and so
    do bytes by themselves. A function of a script or a notebook goes to the workers with the globals that it refers to, as
    they are when the Pool is made; the script is not run there. Only where it refers to what
    cannot be sent (a client, a lock, more than 4 MB) workers read the script, up to where it runs rows, and refuse what it
    would do once more there: writing files, starting programs, connecting. A run with ``state=`` knows such a function by
    its code, what it closes over, and the plain globals that it reads (numbers, text, small containers of these); other
    functions and objects that it uses may change unseen, and so may functions of modules. (A number that differs at each
    start, like a time, makes it another function each time.) What it raises fails the row too, with the traceback kept. mode:
    where it runs: "loop", "thread" or "process"; without it, async functions run on the worker's event loop and others in
    its threads. What it prints or logs comes out at this process's standard error, line by line; of a flood the middle is
    left out.
    """
    given = {"into": into, "mode": mode, "take": take, "when": when}
    if isinstance(function, str):
        return _step("call", {"function": function, **given}, settings)
    if not callable(function):
        raise UsageError(f"call() needs a function or the name of one, not {function!r}.")
    return _step("call", given, settings, function)


def steps_of(steps: "Step | Chain | Iterable[Step | Chain]") -> tuple[Step, ...]:
    """All steps of what a pool was given, in order. Raises UsageError for anything that is no step."""
    found = tuple(_flat((steps,) if isinstance(steps, Step | Chain) else steps))
    if not found:
        raise UsageError(
            "There is no step. Give ask(...), request(...) or call(...), or a Chain of several of them."
        )
    return found


def _flat(steps: Any) -> Iterator[Step]:
    for step in (steps,) if isinstance(steps, str) or not isinstance(steps, Iterable) else steps:
        if isinstance(step, Chain):
            yield from step.steps
        elif isinstance(step, Step):
            yield step
        else:
            raise UsageError(f"{step!r} is no step. Give ask(...), request(...) or call(...), or a Chain.")


def _step(
    kind: str,
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    function: Callable[..., Any] | None = None,
) -> Step:
    known = StepSettings.__annotations__
    unknown = sorted(settings.keys() - known.keys())
    if unknown:
        raise UsageError(
            f"{kind}() does not know {', '.join(unknown)}. Besides its own arguments it takes: {', '.join(known)}. "
            "What concerns the whole run is for the Pool."
        )
    told = {name: value for name, value in {**given, **settings}.items() if value is not None}
    refuse_no_texts(f"{kind}()", told, _TEXTS)
    return Step(kind, told, function)


def refuse_no_texts(what: str, told: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise UsageError where one of these settings is there and is no text."""
    for name in names:
        if not isinstance(told.get(name, ""), str):
            raise UsageError(f"{what} has {name}={told[name]!r}. A text is needed. Nothing was sent.")


def _schema(schema: Any) -> Any:
    """A JSON schema of whatever describes one."""
    if schema is None or isinstance(schema, str | Mapping):
        return schema
    if callable(made := getattr(schema, "model_json_schema", None)):  # pydantic's
        return made()
    try:
        found, components = msgspec.json.schema_components([schema], ref_template="#/$defs/{name}")
    except TypeError as error:
        raise UsageError(f"The schema {schema!r} cannot be used: {error}.") from None
    top = found[0]
    name = top.get("$ref", "").rpartition("/")[2]
    if name:  # its properties have to be at the top, where they become columns
        top = components[name]
    return {**top, "$defs": components} if components else top
