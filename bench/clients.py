"""The clients that the engine is compared with, each a program of its own: a bare aiohttp loop and the openai SDK.

Usage: clients.py bare|openai BASE_URL ROWS_FILE ROWS IN_FLIGHT [RATE]. Prints one JSON object with its rate.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path


def questions(path: str, count: int) -> Iterator[str]:
    """The rows' prompts."""
    with Path(path).open() as file:
        for number, line in enumerate(file):
            if number >= count:
                return
            yield "Classify: " + json.loads(line)["text"]


async def drive(
    ask: Callable[[str], Awaitable[None]], rows: Iterator[str], in_flight: int, rate: float
) -> None:
    """``in_flight`` coroutines over one iterator, paced to ``rate`` a second where one is given."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    sent = 0

    async def worker() -> None:
        nonlocal sent
        for row in rows:
            if rate:
                due = start + sent / rate
                sent += 1
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
            await ask(row)

    await asyncio.gather(*(worker() for _ in range(in_flight)))


async def bare(base_url: str, rows: Iterator[str], in_flight: int, rate: float) -> None:
    """The least that asks a chat question with aiohttp and reads the answer."""
    import aiohttp

    url = f"{base_url}/chat/completions"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(prompt: str) -> None:
            body = {"model": "mock", "messages": [{"role": "user", "content": prompt}], "max_tokens": 20}
            async with session.post(url, json=body) as response:
                reply = json.loads(await response.read())
                if response.status != 200 or not reply["choices"][0]["message"]["content"]:
                    raise SystemExit(f"the bare loop got {response.status}")

        await drive(ask, rows, in_flight, rate)


async def sdk(base_url: str, rows: Iterator[str], in_flight: int, rate: float) -> None:
    """The official SDK as it is installed."""
    import openai

    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:

        async def ask(prompt: str) -> None:
            await client.chat.completions.create(
                model="mock", messages=[{"role": "user", "content": prompt}], max_tokens=20
            )

        await drive(ask, rows, in_flight, rate)


def main() -> None:
    """Run one client."""
    import uvloop

    kind, base_url, path, rows, in_flight, *rest = sys.argv[1:]
    client = {"bare": bare, "openai": sdk}[kind]
    gc.collect()
    gc.freeze()
    start = time.monotonic()
    began_cpu = time.process_time()
    uvloop.run(client(base_url, questions(path, int(rows)), int(in_flight), float(rest[0]) if rest else 0.0))
    seconds = time.monotonic() - start
    print(json.dumps({"rows_per_s": int(rows) / seconds, "cpu_s": time.process_time() - began_cpu}))


if __name__ == "__main__":
    main()
