"""The quota, witnessed by the server's own log: use of the limit, windows over it, and 429s.

One command: python bench/quota.py [--quick]. Prints a table and writes bench/results/quota.json.
"""

import sys
from pathlib import Path
from typing import Any

from common import engine, save, scratch, table, write_rows

from engine.mock.settings import MockSettings, QuotaSettings
from engine.mock.spawn import MockProcess

TPM = 1_500_000
TOKENS = 60  # charged for a row: the larger of --max-tokens and a quarter of the prompt's characters


def cases(quick: bool) -> dict[str, tuple[MockSettings, list[str], int]]:
    """Name -> (the server, the engine's flags, rows)."""
    rows = 15_000 if quick else 92_000
    exact = QuotaSettings(kind="sliding", rpm=60_000)
    second = QuotaSettings(kind="second", rpm=60_000, tolerance=0.1)
    tokens = QuotaSettings(kind="sliding", tpm=TPM)
    return {
        "60,000 RPM, 8 workers, sliding + seconds": (
            MockSettings(latency="200ms", quota=(exact, second)),
            ["--procs", "8", "--rpm", "60000"],
            rows,
        ),
        "60,000 RPM, 2.5 s replies, 8 workers": (
            MockSettings(latency="2500ms", quota=(exact, second)),
            ["--procs", "8", "--rpm", "60000", "--in-flight", "4000"],
            rows,
        ),
        f"{TPM:,} TPM, 8 workers, sliding": (
            MockSettings(latency="200ms", quota=(tokens,)),
            ["--procs", "8", "--tpm", str(TPM), "--max-tokens", str(TOKENS)],
            (15_000 if quick else 37_000),
        ),
        "6,000 RPM, 8 workers, bucket": (
            MockSettings(latency="200ms", quota=(QuotaSettings(kind="bucket", rpm=6_000),)),
            ["--procs", "8", "--rpm", "6000"],
            (1_500 if quick else 9_000),
        ),
        "600 RPM, 2 workers, sliding": (
            MockSettings(latency="200ms", quota=(QuotaSettings(kind="sliding", rpm=600),)),
            ["--procs", "2", "--rpm", "600"],
            (200 if quick else 900),
        ),
    }


def measure(settings: MockSettings, flags: list[str], count: int, folder: Path) -> dict[str, Any]:
    """One run, as the server saw it."""
    rows = write_rows(folder / "rows.jsonl", count, chars=200)
    with MockProcess(settings) as mock:
        ran = engine(mock.base_url, rows, folder, *flags)
        stats = mock.stats()
    return {"summary": ran.summary, "server": stats, "flags": flags, "rows": count}


def main() -> None:
    """Measure all cases."""
    quick = "--quick" in sys.argv
    results: dict[str, Any] = {}
    lines = []
    for name, (settings, flags, count) in cases(quick).items():
        with scratch() as folder:
            found = measure(settings, flags, count, Path(folder))
        results[name] = found
        server, summary = found["server"], found["summary"]
        limit = int(flags[flags.index("--rpm") + 1]) if "--rpm" in flags else TPM
        peak = server["max_in_60s"] if "--rpm" in flags else server["max_tokens_in_60s"]
        refused = server["throttled"]
        lines.append(
            [name, f"{summary['rows_per_s']:.0f}", f"{limit:,}", f"{peak:,}", f"{peak / limit:.1%}", refused,
             server["max_in_clock_second"], server["in_flight_max"], summary["first_request_s"]]
        )  # fmt: skip
    header = [
        "case",
        "rows/s",
        "limit",
        "worst minute",
        "of limit",
        "429s",
        "worst second",
        "in flight",
        "first s",
    ]
    print(table(header, lines))
    print(save("quota", {"quick": quick, "cases": results, "table": [header, *lines]}))


if __name__ == "__main__":
    main()
