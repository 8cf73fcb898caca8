"""CPU per row: the whole of ``engine run`` against a bare aiohttp loop and the openai SDK, same server, interleaved.

One command: python bench/ceiling.py [--quick]. Start-up is taken out by running each client with few and with many
rows and dividing the difference. Prints a table and writes bench/results/ceiling.json.
"""

import sys
from pathlib import Path

from common import Ran, engine, median, run, save, scratch, table, write_rows

from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess

CLIENTS = Path(__file__).parent / "clients.py"
LATENCY = "200ms"


def per_row_us(few: Ran, many: Ran, few_rows: int, many_rows: int) -> float:
    """CPU microseconds of one more row."""
    return (many.cpu_s - few.cpu_s) / (many_rows - few_rows) * 1e6


def main() -> None:
    """Measure."""
    quick = "--quick" in sys.argv
    rounds = 1 if quick else 3
    few, many, sdk_many = (1_000, 9_000, 3_000) if quick else (2_000, 16_000, 4_000)
    cases = {
        "bare aiohttp loop, 256 in flight": ("bare", 256, 0),
        "bare aiohttp loop, 1,000 rows/s": ("bare", 256, 1000),
        "engine, 2 workers, 256 in flight": ("engine", 2, "--in-flight 256"),
        "engine, 2 workers, 256 in flight, lean wire": ("engine", 2, "--in-flight 256 --wire lean"),
        "engine, 8 workers, 1,000 rows/s": ("engine", 8, "--rpm 60000"),
        "engine, 8 workers, 800 in flight": ("engine", 8, "--in-flight 800"),
        "openai SDK, 256 in flight": ("openai", 256, 0),
        "openai SDK, 800 in flight": ("openai", 800, 0),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    rates: dict[str, list[float]] = {name: [] for name in cases}
    with scratch() as folder, MockProcess(MockSettings(latency=LATENCY)) as mock:
        rows = write_rows(Path(folder) / "rows.jsonl", many)
        for _ in range(rounds):
            for name, (kind, number, flags) in cases.items():
                most = sdk_many if kind == "openai" else many
                ran: list[Ran] = []
                for count in (few if kind != "openai" else 500, most):
                    if kind == "engine":
                        extra = [*str(flags).split(), "--procs", str(number), "--rows", str(count)]
                        ran.append(engine(mock.base_url, rows, Path(folder), *extra))
                    else:
                        command = [sys.executable, str(CLIENTS), kind, mock.base_url, str(rows), str(count)]
                        ran.append(run([*command, str(number), str(flags)]))
                found[name].append(per_row_us(ran[0], ran[1], few if kind != "openai" else 500, most))
                rates[name].append(float(ran[1].summary["rows_per_s"]))
    bare = median(found["bare aiohttp loop, 256 in flight"])
    paced = median(found["bare aiohttp loop, 1,000 rows/s"])
    sdk = median(found["openai SDK, 256 in flight"])
    lines, results = [], {}
    for name, values in found.items():
        base = paced if "1,000 rows/s" in name else bare
        middle = median(values)
        results[name] = {
            "cpu_us_per_row": [round(value, 1) for value in values],
            "median": round(middle, 1),
            "times_bare": round(middle / base, 2),
            "sdk_times_this": round(sdk / middle, 1),
            "rows_per_s": round(median(rates[name]), 0),
        }
        lines.append(
            [
                name,
                f"{middle:.0f}",
                f"{middle / base:.2f}",
                f"{sdk / middle:.1f}",
                f"{median(rates[name]):.0f}",
            ]
        )
    print(table(["client", "CPU us/row", "x bare", "SDK / this", "rows/s"], lines))
    print(save("ceiling", {"latency": LATENCY, "rounds": rounds, "rows": many, "clients": results}))


if __name__ == "__main__":
    main()
