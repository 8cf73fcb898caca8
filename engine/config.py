"""The job as one frozen tree, parsed once. Flag > environment > file > default; origins are remembered.

Rules of this file:
1. Every limit has its place here, in ``Limits``; nothing else invents a bound.
2. No secret is in the tree: ``Job`` can be printed, hashed and stored. Secrets travel beside it.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from engine.core.model import Target, names_own_origins
from engine.core.quota import Rates

WIRES = ("aiohttp", "lean")  # their files are the worker's
GATE = 16  # requests in flight to an endpoint before its first success
MODES = ("", "loop", "thread", "process")  # where a function is called; "" for what fits it
CALL = Target(provider="call")  # of steps that send nothing


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on everything that comes from outside."""

    row_bytes_max: int = 16 * 1024 * 1024
    reply_bytes_max: int = 32 * 1024 * 1024  # after decompression
    message_bytes_max: int = 256 * 1024 * 1024  # between our processes
    lease_bytes_max: int = 32 * 1024 * 1024  # rows in one lease message, together
    error_chars_max: int = 500  # of a message in _error


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Per attempt, all finite, in seconds."""

    connect_s: float = 10.0
    first_byte_s: float = 300.0  # --timeout
    read_s: float = 60.0  # between two reads of a body that has begun
    total_s: float = 300.0  # --timeout


@dataclass(frozen=True, slots=True)
class StepSettings:
    """How a row becomes a call and a reply becomes columns. ``kind`` is a name in ``engine.steps.STEPS``."""

    kind: str = "ask"
    prompt: str | None = None  # Jinja2 over the row's columns
    system: str | None = None  # Jinja2 too
    messages: str | None = None  # the column that holds a message list
    batch_lines: bool = False  # rows are openai-batch lines: custom_id, method, url, body
    batch_output: bool = False  # the output is openai-batch: records hold status_code, request_id and body
    url: str | None = None  # provider http: template
    headers: tuple[tuple[str, str], ...] = ()  # provider http: templates, without secrets
    body: str | None = None  # provider http: template
    function: str = ""  # kind call: where it is found, see engine.steps.functions
    mode: str = ""  # kind call: "loop", "thread" or "process"; "" for what fits the function
    into: str = "response"  # where the answer goes
    into_given: bool = False  # with --schema: the whole object goes into ``into`` instead of columns


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of several places that rows may go to: an address, a model and a key with limits of their own."""

    name: str
    target: Target
    weight: float = 1.0  # among endpoints that could take a row; 0: only where no other one is well
    url: str | None = None  # provider http: template
    rpm: int | None = None
    tpm: int | None = None
    input_tpm: int | None = None
    output_tpm: int | None = None
    learn_limits: bool = False
    api_key_env: str = ""
    takes_usual_key: bool = (
        True  # without api_key_env: whether the provider's usual variable is this endpoint's
    )
    headers: tuple[tuple[str, str], ...] = ()  # as StepSettings.headers
    secret_headers: tuple[tuple[str, str], ...] = ()  # as Job.secret_headers


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One of several steps that every row goes through: what it takes, where it asks, and limits of its own."""

    name: str
    step: StepSettings
    target: Target
    take: tuple[tuple[str, str], ...] = ()  # (name in the step, column or earlier result)
    when: str = ""  # Jinja2 expression: where it is false the row is spared this step
    keep: bool = True  # its columns are part of the output
    rpm: int | None = None
    tpm: int | None = None
    input_tpm: int | None = None
    output_tpm: int | None = None
    learn_limits: bool = False
    api_key_env: str = ""
    takes_usual_key: bool = True  # as Endpoint's
    secret_headers: tuple[tuple[str, str], ...] = ()
    retries: int = 5
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, slots=True)
class Job:
    """What to do with every row, and how. Serialises to JSON with msgspec; holds no secret."""

    input: str  # path, or - for stdin
    output: str  # path, or - for stdout
    input_format: str
    output_format: str
    state: str  # folder; "" when nothing is kept (output - without --state)
    target: Target
    step: StepSettings
    procs: int
    rpm: int | None = None
    tpm: int | None = None
    input_tpm: int | None = None
    output_tpm: int | None = None
    learn_limits: bool = False  # take limits that are not given from the endpoint's reply headers
    share: float = 1.0  # the weight of this run's part where several share a quota
    limiter_dir: str = ""  # where the limiters of this machine are found; "" for the usual folder
    in_flight: int = 512  # total over all workers, at most
    gate: int = GATE
    in_flight_auto: bool = False  # begin with few, and find by trying how many the endpoint takes
    retries: int = 5
    max_failures: str = ""  # "", "N" or "P%"
    rows: int | None = None  # --rows
    fresh: bool = False
    retry_failed: bool = False
    on_change: str = "refuse"  # what to do with the state of another job: refuse, or redo what changed
    durability: str = "fsync"  # fsync, os
    meta: bool = False  # add _attempts, _latency_ms, ...
    ca_file: str = ""
    trust_env: bool = False  # use proxies named in the environment
    wire: str = "aiohttp"  # what carries requests: one of WIRES
    escape_cells: bool = True  # CSV cells that a spreadsheet would run
    api_key_env: str = ""  # the variable that holds the key, "" for the provider's usual one
    takes_usual_key: bool = True
    secret_headers: tuple[
        tuple[str, str], ...
    ] = ()  # values name variables as ${NAME}; what they hold is not here
    vocabularies: tuple[str, ...] = ()  # folders with tiktoken's vocabularies: count tokens exactly
    endpoints: tuple[Endpoint, ...] = ()  # where rows go, if that is more than one place; see ``jobs_of``
    steps: tuple[
        StepPlan, ...
    ] = ()  # what each row goes through, if that is told step by step; see ``jobs_of``
    folder: str = ""  # where functions of steps are looked for; "" for the working folder
    told: str = (
        ""  # of a job of several steps: the flags it was made from, as JSON, to read its files once more
    )
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)

    def identity(self) -> dict[str, Any]:
        """What makes a resumed run the same job: target, step, formats, meta. Not procs, limits or quota."""
        from msgspec import to_builtins

        if self.steps:
            steps = [_identity_of(plan) for plan in self.steps]
            formats = {"input_format": self.input_format, "output_format": self.output_format}
            return {"steps": {str(one["name"]): one for one in steps}, **formats, "meta": self.meta}
        target = to_builtins(self.target)
        del target["stream"]  # runs never do
        if self.endpoints:
            # A region or a key more or less leaves the job what it is; another model does not.
            target |= {"provider": "", "base_url": "", "model": "", "api_version": ""}
            asked = {(one.target.provider, one.target.model, _path(one.url)) for one in self.endpoints}
            target["endpoints"] = sorted(map(list, asked))
        return {
            "target": target,
            "step": to_builtins(replace(self.step, url=None) if self.endpoints else self.step),
            "input_format": self.input_format,
            "output_format": self.output_format,
            "meta": self.meta,
        }

    @property
    def places(self) -> tuple[str, ...]:
        """The names of what ``jobs_of`` gives: endpoints, or steps; one without a name where there is one."""
        return tuple(one.name for one in self.endpoints or self.steps) or ("",)


def _identity_of(plan: StepPlan) -> dict[str, Any]:
    from msgspec import to_builtins

    target = to_builtins(plan.target)
    del target["stream"]
    return {
        "name": plan.name,
        "target": target,
        "step": to_builtins(plan.step),
        "take": dict(plan.take),
        "when": plan.when,
        "keep": plan.keep,
    }


def _path(url: str | None) -> str:
    """A URL template without its host."""
    return (url or "").partition("://")[2].partition("/")[2]


def jobs_of(job: Job) -> tuple[Job, ...]:
    """The job as it is at each of its endpoints, or in each of its steps, in order; one without lists is one."""
    if job.steps:
        return tuple(_job_in(job, plan) for plan in job.steps)
    return tuple(_job_at(job, endpoint) for endpoint in job.endpoints) or (job,)


def _job_in(job: Job, plan: StepPlan) -> Job:
    return replace(
        job,
        steps=(),
        target=plan.target,
        step=plan.step,
        secret_headers=plan.secret_headers,
        takes_usual_key=plan.takes_usual_key,
        rpm=plan.rpm,
        tpm=plan.tpm,
        input_tpm=plan.input_tpm,
        output_tpm=plan.output_tpm,
        learn_limits=plan.learn_limits,
        api_key_env=plan.api_key_env,
        retries=plan.retries,
        timeouts=plan.timeouts,
    )


def _job_at(job: Job, endpoint: Endpoint) -> Job:
    return replace(
        job,
        endpoints=(),
        target=endpoint.target,
        step=replace(job.step, url=endpoint.url, headers=endpoint.headers),
        secret_headers=endpoint.secret_headers,
        takes_usual_key=endpoint.takes_usual_key,
        rpm=endpoint.rpm,
        tpm=endpoint.tpm,
        input_tpm=endpoint.input_tpm,
        output_tpm=endpoint.output_tpm,
        learn_limits=endpoint.learn_limits,
        api_key_env=endpoint.api_key_env,
    )


def has_own_urls(job: Job) -> bool:
    """Whether each row names its own page: then one that is missing or closed says nothing about the next one."""
    return job.step.url is not None and "{" in job.step.url


def has_own_origins(job: Job) -> bool:
    """Whether each row names its own host: then nothing that happens to one says anything about the others."""
    return job.step.url is not None and names_own_origins(job.step.url)


def rates_of(job: "Job | Endpoint | StepPlan") -> Rates:
    """The limits that a job, or one of its endpoints, declares."""
    return Rates(job.rpm or 0, job.tpm or 0, job.input_tpm or 0, job.output_tpm or 0)
