"""From flags, environment, job file and defaults to one frozen Job; each value remembers where it came from.

Rules of this file:
1. Precedence: flag, then environment (``ENGINE_`` and the flag's name), then job file, then default.
2. Every refusal is a UsageError with a sentence, made before anything is read or sent.
3. Keys are read in ``keys.py``, from the environment and from nowhere else; they are not part of the Job.
"""

import difflib
import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from engine.config import WIRES, Job, StepSettings, Timeouts
from engine.core.errors import UsageError
from engine.core.model import Target
from engine.core.quota import Rates
from engine.credentials import Auth, names_secret
from engine.endpoints import check_different, read_endpoints, refuse_overruled
from engine.formats.detect import detect
from engine.jobsteps import Readers, read_steps
from engine.keys import auth_for
from engine.providers import PROVIDERS
from engine.settingtable import IN_FLIGHT_AUTO_MAX, SETTINGS, limits_of
from engine.steps.schema import parse_schema

PREFIX = "ENGINE_"


class Origin(NamedTuple):
    """A setting's value and where it came from."""

    value: Any
    source: str  # flag, environment, job file, default

    @property
    def is_told(self) -> bool:
        """Whether it was given with this very command, and not in a file."""
        return self.source.startswith(("flag", "environment"))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A job, the secrets that travel beside it, and the origin of each setting."""

    job: Job
    auth: tuple[Auth, ...]  # of each endpoint
    origins: dict[str, Origin]


_FILES = ("prompt_file", "schema", "ca_file")  # relative to the job file that names them
_AS_GIVEN = (  # settings that are fields of the Job under the same name
    "max_failures", "rows", "fresh", "retry_failed", "on_change", "durability", "meta", "ca_file", "trust_env", "wire",
    "escape_cells",
)  # fmt: skip


def load(
    flags: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Loaded:
    """The job that flags (None: not given), environment and the job file in ``flags["job"]`` describe.

    ``defaults``: in place of the usual ones.
    """
    environment = os.environ if environment is None else environment
    origins = _origins(flags, environment, defaults or {})
    values = {name: origin.value for name, origin in origins.items()}
    _refuse_contradictions(values)
    if values["steps"]:
        return _load_steps(flags, values, origins, environment)
    headers, secret_headers = _headers(values["header"])
    input_format = values["input_format"] or detect(values["input"])[0]
    tables = values["endpoints"] or ()
    refuse_overruled(tables, {name for name, origin in origins.items() if origin.is_told})
    endpoints = read_endpoints(
        tables, values, lambda merged: _target(merged, input_format), lambda lines: _headers(_lines(lines))
    )
    target = endpoints[0].target if endpoints else _target(values, input_format)
    step = _step(values, headers, is_plain=target.provider == "http")
    output_format = values["output_format"] or _output_format(values["output"], input_format)
    if input_format == "openai-batch":
        step = _as_batch(step, output_format)
    state = values["state"] or ("" if values["output"] == "-" else f"{values['output']}.run")
    job = Job(
        **_common(values, environment),
        input_format=input_format,
        output_format=output_format,
        state=state,
        target=target,
        step=step,
        **limits_of({name: values[name] for name in Rates._fields}),
        retries=values["retries"],
        api_key_env=values["api_key_env"] or "",
        secret_headers=secret_headers,
        timeouts=timeouts_of(values["timeout"]),
        endpoints=endpoints,
    )
    auth = auth_for(job, environment)
    check_different(job, auth)
    return Loaded(job, auth, origins)


def _load_steps(
    flags: Mapping[str, Any],
    values: dict[str, Any],
    origins: dict[str, Origin],
    environment: Mapping[str, str],
) -> Loaded:
    """A job of several steps."""
    input_format = values["input_format"] or detect(values["input"])[0]
    readers = Readers(
        target=lambda merged: _target(merged, ""),
        step=lambda merged, headers, is_plain: _step(merged, headers, is_plain=is_plain),
        headers=_headers,
        timeouts=timeouts_of,
    )
    steps = read_steps(values["steps"], values, readers)
    job = Job(
        **_common(values, environment),
        input_format=input_format,
        output_format=values["output_format"] or _output_format(values["output"], input_format),
        state=values["state"] or ("" if values["output"] == "-" else f"{values['output']}.run"),
        target=steps[0].target,
        step=steps[0].step,
        steps=steps,
        told=_told(flags),
    )
    if "openai-batch" in (job.input_format, job.output_format):
        raise UsageError(
            "A job with steps has rows with columns, not openai-batch lines. Give jsonl, csv or parquet."
        )
    return Loaded(job, auth_for(job, environment), origins)


def _told(flags: Mapping[str, Any]) -> str:
    """The flags as they can be given once more, from any folder."""
    given = {name: value for name, value in flags.items() if value not in (None, [], ())}
    for name in ("job", *_FILES):
        if isinstance(given.get(name), str):
            given[name] = os.path.abspath(given[name])
    return json.dumps(given)


def _common(values: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """What does not depend on where rows are sent."""
    return {
        "input": values["input"],
        "output": values["output"],
        "procs": values["procs"],
        "share": values["share"],
        "vocabularies": _vocabularies(environment) if values["count_tokens"] else (),
        "limiter_dir": values["limiter_dir"],
        **in_flight_of(values["in_flight"]),
        **{name: values[name] for name in _AS_GIVEN},
    }


def flag_name(name: str) -> str:
    """``max_tokens`` is ``--max-tokens``."""
    return "--" + name.replace("_", "-")


def _vocabularies(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Where tiktoken keeps its vocabularies (tiktoken/load.py, old and new)."""
    named = [
        environment[name] for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR") if environment.get(name)
    ]
    usual = [str(Path(tempfile.gettempdir()) / "data-gym-cache"), str(Path.home() / ".cache" / "tiktoken")]
    return tuple(named[:1] or usual)


def in_flight_of(value: int | str) -> dict[str, Any]:
    """The fields of a Job that ``--in-flight`` sets."""
    if value == "auto":
        return {"in_flight": IN_FLIGHT_AUTO_MAX, "in_flight_auto": True}
    return {"in_flight": value, "in_flight_auto": False}


def timeouts_of(timeout_s: float) -> Timeouts:
    """``--timeout`` as the bounds of one attempt's stages."""
    return Timeouts(
        connect_s=min(10.0, timeout_s),
        first_byte_s=timeout_s,
        read_s=min(60.0, timeout_s),
        total_s=timeout_s,
    )


def _origins(
    flags: Mapping[str, Any], environment: Mapping[str, str], defaults: Mapping[str, Any]
) -> dict[str, Origin]:
    file = _job_file(flags.get("job"))
    found: dict[str, Origin] = {}
    for name, setting in SETTINGS.items():
        variable = PREFIX + name.upper()
        if flags.get(name) not in (None, [], ()):
            raw, source = flags[name], "flag"
        elif environment.get(variable):
            raw, source = environment[variable], f"environment ({variable})"
        elif name in file:
            raw, source = file[name], f"job file ({flags['job']})"
        else:
            raw, source = defaults.get(name, setting.default), "default"
        if raw is not None:
            try:
                raw = setting.read(raw)
            except (ValueError, TypeError) as error:
                where = "" if source == "flag" else f" from the {source}"
                label = name if name in ("endpoints", "steps") else flag_name(name)  # those have no flag
                raise UsageError(f"{label} {raw!r}{where} cannot be used: {error}.") from None
        found[name] = Origin(raw, source)
    if found["procs"].value is None:
        found["procs"] = Origin(psutil.cpu_count() or 1, "default (processors)")
    for name in ("input", "output"):
        if found[name].value is None:
            raise UsageError(f"There is no {name}. Give one: engine run INPUT -o OUTPUT.")
    return found


def _job_file(path: str | None) -> dict[str, Any]:
    if not path:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
        file = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The job file {path} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"The job file {path} is not valid TOML: {error}.") from None
    known = {"params": "param", "headers": "header"}
    values: dict[str, Any] = {}
    for raw_name, value in file.items():
        name = known.get(raw_name, raw_name).replace("-", "_")
        if name not in SETTINGS:
            near = difflib.get_close_matches(name, SETTINGS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(f"The job file {path} has an unknown setting {raw_name!r}.{hint}")
        values[name] = value
    tables = values.get("steps")
    for table in (values, *(tables if isinstance(tables, list) else ())):
        for name in _FILES:
            if isinstance(table, dict) and isinstance(table.get(name), str):
                table[name] = str(Path(path).parent / table[name])
    return values


def _refuse_contradictions(values: Mapping[str, Any]) -> None:
    sources = [name for name in ("prompt", "prompt_file", "messages", "url") if values[name] is not None]
    if len(sources) > 1:
        raise UsageError(f"{' and '.join(map(flag_name, sources))} exclude each other: give one of them.")
    choices = {
        "endpoint": ("chat", "responses", "embeddings", "completions"),
        "durability": ("fsync", "os"),
        "on_change": ("refuse", "redo"),
        "provider": tuple(PROVIDERS),
        "wire": WIRES,
    }
    for name, allowed in choices.items():
        if values[name] not in allowed:
            raise UsageError(
                f"{flag_name(name)} {values[name]!r} is not known. Use one of: {', '.join(allowed)}."
            )
    if values["fresh"] and values["retry_failed"]:
        raise UsageError("--fresh starts over and --retry-failed goes on: give one of them.")
    if values["output"] == "-" and values["retry_failed"] and not values["state"]:
        raise UsageError("--retry-failed needs the state of an earlier run: give --state.")


def _target(values: Mapping[str, Any], input_format: str) -> Target:
    provider = values["provider"]
    plain = provider == "http"
    if plain != (values["url"] is not None):
        raise UsageError("--provider http and --url belong together: give both, or neither.")
    if not plain and (values["body"] is not None or values["select"]):
        raise UsageError(
            "--body and --select are for --provider http; a model's body fields go into --param."
        )
    names_its_own = input_format == "openai-batch"  # each line has its model in its body
    if not values["model"] and not names_its_own and provider in ("openai", "azure", "anthropic", "ollama"):
        raise UsageError("There is no model. Give one with --model NAME.")
    base_url = values["url"] if plain else values["base_url"]
    schema = None
    if isinstance(values["schema"], dict):
        schema = parse_schema(json.dumps(values["schema"]).encode(), source="given")
    elif values["schema"] is not None:
        schema = parse_schema(_read(values["schema"], "schema"), source=values["schema"])
    return Target(
        provider=provider,
        base_url=base_url,
        endpoint=values["endpoint"],
        model=values["model"] or ("mock" if provider == "mock" else ""),
        api_version=values["api_version"],
        max_tokens=values["max_tokens"],
        temperature=values["temperature"],
        params=_params(values["param"]),
        schema=schema,
        method=values["method"].upper(),
        select=values["select"],
    )


def _params(lines: list[str]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for line in lines:
        name, equals, text = line.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--param {line!r} is not like name=value.")
        try:
            params[name.strip()] = json.loads(text)
        except ValueError:
            params[name.strip()] = text  # a bare word is a string
    return params


def _step(values: Mapping[str, Any], headers: tuple[tuple[str, str], ...], *, is_plain: bool) -> StepSettings:
    prompt = values["prompt"]
    if values["prompt_file"] is not None:
        prompt = read_prompt_file(values["prompt_file"])
    return StepSettings(
        kind="request" if is_plain else "ask",
        prompt=prompt,
        system=values["system"],
        messages=values["messages"],
        url=values["url"],
        headers=headers,
        body=values["body"],
        into=values["into"] or "response",
        into_given=values["into"] is not None,
    )


def read_prompt_file(path: str) -> str:
    """The template in a file. Raises UsageError."""
    try:
        return _read(path, "prompt file").decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"The prompt file {path} is not UTF-8.") from None


def _as_batch(step: StepSettings, output_format: str) -> StepSettings:
    from dataclasses import replace

    if step.prompt is not None or step.messages is not None:
        # Batch lines carry their own question; a template over their columns makes them ordinary rows.
        return step
    return replace(step, batch_lines=True, batch_output=output_format == "openai-batch")


def _output_format(output: str, input_format: str) -> str:
    if output == "-":
        return "openai-batch" if input_format == "openai-batch" else "jsonl"
    name = detect(output, content=False)[0]
    return "openai-batch" if name == "jsonl" and input_format == "openai-batch" else name


def _read(path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"The {what} {path} cannot be read: {error.strerror}.") from None


def _lines(value: Any) -> list[str]:
    """The header lines of an endpoint's table."""
    found: list[str] = SETTINGS["header"].read(value)
    return found


def _headers(lines: list[str]) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """(name, value) of the plain headers, and of those that name a secret."""
    plain: list[tuple[str, str]] = []
    secret: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"--header {line!r} is not like 'Name: value'.")
        (secret if names_secret(value) else plain).append((name.strip(), value.strip()))
    return tuple(plain), tuple(secret)
