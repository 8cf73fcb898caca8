"""What the mock provider carries on one core: chat and plain requests a second, driven by wrk.

One command: python bench/mock.py. Needs wrk (Debian's package of that name). Writes bench/results/mock.json.
"""

import re
import shutil
import subprocess
from pathlib import Path

from common import save, scratch, table

from engine.mock.settings import MockSettings
from engine.mock.spawn import MockProcess

BODY = '{"model":"mock","messages":[{"role":"user","content":"Classify: %s"}],"max_tokens":20}' % (
    "lorem ipsum " * 30
)
SCRIPT = 'wrk.method="POST"\nwrk.body=[[%s]]\nwrk.headers["Content-Type"]="application/json"\n'


def rate(arguments: list[str]) -> float:
    """Requests a second, as wrk counted them."""
    done = subprocess.run(["wrk", *arguments], capture_output=True, text=True, timeout=120, check=True)
    if "Non-2xx" in done.stdout:
        raise SystemExit(done.stdout)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found.group(1))


def main() -> None:
    """Measure."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed (apt-get install wrk)")
    usual = ["-t1", "-c64", "-d8s"]
    with scratch() as folder, MockProcess(MockSettings()) as mock:
        script = Path(folder) / "chat.lua"
        script.write_text(SCRIPT % BODY)
        chat = max(rate([*usual, "-s", str(script), f"{mock.base_url}/chat/completions"]) for _ in range(3))
        plain = max(rate([*usual, f"{mock.origin}/plain"]) for _ in range(3))
    rows = [["chat", f"{chat:,.0f}"], ["plain", f"{plain:,.0f}"]]
    print(table(["request", "per second"], rows))
    print(
        save(
            "mock", {"requests_per_s": {"chat": round(chat), "plain": round(plain)}, "driver": "wrk -t1 -c64"}
        )
    )


if __name__ == "__main__":
    main()
