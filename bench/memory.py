"""Memory at 10^5 and 10^6 rows: the peak of the coordinator and of the largest worker, by the kernel's own count.

One command: python bench/memory.py [--quick]. Prints a table and writes bench/results/memory.json.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
from common import PROMPT, ROOT, save, scratch, table, write_rows

from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess


def peaks(base_url: str, rows: Path, folder: Path) -> dict[str, float]:
    """Peak resident megabytes of each role during one run, sampled from VmHWM, which never misses a peak."""
    command = [
        sys.executable, "-m", "engine", "run", str(rows), "-o", str(folder / "out.jsonl"), "--fresh", "--base-url",
        base_url, "--model", "mock", "--prompt", PROMPT, "--max-tokens", "20", "--procs", "2", "--in-flight", "800",
        "--json", "--no-progress", "--durability", "os",
    ]  # fmt: skip
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, text=True
    )
    found: dict[int, tuple[str, float]] = {}
    root = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            for one in [root, *root.children()]:
                role = "coordinator" if one.pid == root.pid else one.cmdline()[-1].rpartition(".")[2]
                found[one.pid] = (role, high_water_mb(one.pid))
        except (psutil.Error, OSError, IndexError):
            pass
        time.sleep(0.5)
    assert process.stdout is not None
    summary = json.loads(process.stdout.read().splitlines()[-1])
    roles = {role for role, _ in found.values()}
    top = {role: max(peak for one, peak in found.values() if one == role) for role in roles}
    return {**top, "rows": summary["ok"], "seconds": round(time.monotonic() - start, 1)}


def high_water_mb(pid: int) -> float:
    """VmHWM of a process in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    """Measure."""
    counts = (20_000, 100_000) if "--quick" in sys.argv else (100_000, 1_000_000)
    results, lines = {}, []
    with MockProcess(MockSettings(latency="20ms")) as mock:
        for count in counts:
            with scratch() as folder:
                rows = write_rows(Path(folder) / "rows.jsonl", count, chars=200)
                found = peaks(mock.base_url, rows, Path(folder))
            results[str(count)] = found
            lines.append([f"{count:,}", *(f"{found.get(role, 0):.0f}" for role in ("coordinator", "worker"))])
    print(table(["rows", "coordinator MB", "worker MB"], lines))
    print(save("memory", {"peaks_mb": results}))


if __name__ == "__main__":
    main()
