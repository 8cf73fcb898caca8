"""Two endpoints in one run, as each one's own log saw it: quotas, an outage, a refusal that names a wait.

One command: python bench/endpoints.py [--quick]. Prints two tables and writes bench/results/endpoints.json. Every endpoint
counts its requests in exact sliding minutes and in seconds (a tenth of tolerance) and refuses what is over either.
"""

import json
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import PROMPT, run, save, scratch, table, write_rows

from engine.mock.settings import MockSettings, QuotaSettings
from engine.mock.spawn import MockProcess

DOWN_AT_S, DOWN_FOR_S = 20.0, 20.0


@dataclass
class Case:
    """What each endpoint allows, and what one of them, the last, does between ``DOWN_AT_S`` and its end."""

    rpms: Sequence[int]
    procs: int = 8
    fault: dict[str, Any] | None = None
    seconds: int = 92


CASES = {
    "6,000 and 1,500 RPM": Case((6_000, 1_500)),
    "30,000, 20,000 and 10,000 RPM": Case((30_000, 20_000, 10_000)),
    "6,000 and 6,000 RPM, the second resets for 20 s": Case((6_000, 6_000), fault={"name": "reset"}),
    "6,000 and 6,000 RPM, the second answers 503 for 20 s": Case((6_000, 6_000), fault={"name": "503"}),
    "6,000 and 6,000 RPM, the second answers 429 for 20 s": Case((6_000, 6_000), fault={"name": "429", "retry_after": "5"}),
    "6,000 and 6,000 RPM, the second refuses the key for 20 s": Case((6_000, 6_000), fault={"name": "401"}),
}  # fmt: skip


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """One case, as the servers saw it."""
    lost = case.rpms[-1] * DOWN_FOR_S / 60 if case.fault else 0.0
    rows = write_rows(folder / "rows.jsonl", int(sum(case.rpms) * case.seconds / 60 - lost), chars=200)
    lines = ['model = "mock"', f"prompt = {json.dumps(PROMPT)}"]
    with ExitStack() as stack:
        mocks = []
        for number, rpm in enumerate(case.rpms, 1):
            quota = tuple(QuotaSettings(kind=kind, rpm=rpm) for kind in ("sliding", "second"))
            settings = MockSettings(latency="200ms", quota=quota, log=case.fault is not None)
            mocks.append(stack.enter_context(MockProcess(settings)))
            lines += [
                "[[endpoints]]",
                f'name = "e{number}"',
                f'base_url = "{mocks[-1].base_url}"',
                f"rpm = {rpm}",
            ]
        (folder / "job.toml").write_text("\n".join(lines))
        if case.fault is not None:
            threading.Thread(target=disturb, args=(mocks[-1], case.fault), daemon=True).start()
        ran = run(
            [
                sys.executable, "-m", "engine", "run", str(rows), "-o", str(folder / "out.jsonl"), "--procs", str(case.procs),
                "--job", str(folder / "job.toml"), "--json", "--no-progress", "--limiter-dir", str(folder / "l"),
            ]
        )  # fmt: skip
        stats = [mock.stats() for mock in mocks]
        logs = [mock.log() for mock in mocks] if case.fault is not None else []
    return {"summary": ran.summary, "servers": stats, "outage": outage(logs) if logs else None}


def disturb(mock: MockProcess, fault: dict[str, Any]) -> None:
    """Let the mock misbehave for a while, counted from its first request."""
    while not mock.stats()["requests"]:
        time.sleep(0.02)
    time.sleep(DOWN_AT_S)
    mock.control({"faults": [fault]})
    time.sleep(DOWN_FOR_S)
    mock.control({"faults": []})


def outage(logs: list[list[dict[str, Any]]]) -> dict[str, float]:
    """Answers a second of all others in the outage and of the disturbed one after it; from the servers' logs."""
    *others, disturbed = logs
    bad = [one["at_s"] for one in disturbed if one["status"] != 200]
    first, last = min(bad), max(bad)
    over = first + DOWN_FOR_S
    well = sorted(one["at_s"] for one in disturbed if one["status"] == 200 and one["at_s"] > last)
    meanwhile = sum(first < one["at_s"] < over for log in others for one in log if one["status"] == 200)
    return {
        "asked_in_outage": len(bad),
        "others_per_s": meanwhile / DOWN_FOR_S,
        "back_after_s": max(0.0, well[0] - over) if well else float("inf"),
        "full_after_s": next(
            (at - over for at, then in zip(well, well[90:], strict=False) if then - at < 1.0), float("inf")
        ),
    }


def main() -> None:
    """Measure."""
    quick = "--quick" in sys.argv
    quota_lines, outage_lines, raw = [], [], {}
    for name, case in CASES.items():
        if quick:
            case.seconds = 45
        with scratch() as folder:
            found = measure(case, Path(folder))
        summary, servers = found["summary"], found["servers"]
        raw[name] = found
        assert sum(server["ok"] for server in servers) >= summary["ok"]
        if found["outage"] is None:
            for number, (rpm, server) in enumerate(zip(case.rpms, servers, strict=True), 1):
                worst = server["max_in_60s"]
                quota_lines.append(
                    [name if number == 1 else "", f"{rpm:,}", f"{worst:,}", f"{worst / rpm:.1%}", max(0, worst - rpm),
                     server["throttled"], server["max_in_clock_second"]]
                )  # fmt: skip
            continue
        out = found["outage"]
        outage_lines.append(
            [name, summary["failed"], f"{summary['requests'] / summary['rows']:.3f}", out["asked_in_outage"],
             f"{out['others_per_s'] / (case.rpms[0] / 60):.1%}", f"{out['back_after_s']:.1f}", f"{out['full_after_s']:.1f}"]
        )  # fmt: skip
    quota_header = [
        "endpoints",
        "limit",
        "worst sliding minute",
        "of the limit",
        "over it",
        "429s",
        "worst second",
    ]
    outage_header = [
        "endpoints", "rows failed", "requests per row", "asked while ill", "the other's use", "tried again after s",
        "at its rate after s",
    ]  # fmt: skip
    print(table(quota_header, quota_lines))
    print(table(outage_header, outage_lines))
    tables = {"quota": [quota_header, *quota_lines], "outage": [outage_header, *outage_lines]}
    print(save("endpoints", {"tables": tables, "raw": raw}))


if __name__ == "__main__":
    main()
