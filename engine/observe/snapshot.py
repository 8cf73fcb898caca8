"""How a run stands at one moment: plain data for the live view, plain lines, ``live.json`` and ``status``."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker process as the operating system sees it."""

    slot: int
    pid: int
    cpu_percent: float
    rss_bytes: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One of several endpoints. ``trouble``: why it is left alone just now, "" when it serves."""

    name: str
    trouble: str
    in_flight: int
    waiting: int
    requests: int
    requests_per_s: float
    ok: int
    throttled: int
    cooldowns: int
    rpm_used: float | None
    tpm_used: float | None
    latency_ms_p50: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Figures of a running run. Rates are over the last ten seconds; shares are of the declared limit, 0..1."""

    rows_total: int | None = None
    ok: int = 0
    failed: int = 0
    resumed: int = 0
    seconds: float = 0.0
    rows_per_s: float = 0.0
    in_flight: int = 0
    waiting: int = 0
    sleeping: int = 0
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    rpm_used: float | None = None
    tpm_used: float | None = None
    latency_ms_p50: float = 0.0
    latency_ms_p99: float = 0.0
    eta_s: float | None = None
    paused_s: float = 0.0
    starved_s: float = 0.0
    workers: list[WorkerView] = field(default_factory=list)
    endpoints: list[EndpointView] = field(default_factory=list)  # where there are several

    @property
    def rows_done(self) -> int:
        """Rows with an outcome, earlier runs' included."""
        return self.ok + self.failed + self.resumed
