"""Handle answers as they come, of rows that a generator makes, and go on after an interruption. Usage: stream.py [STATE]

Nothing is listed: the generator is read no further than results are taken. With STATE, a folder, what was done is kept:
started again, the answers that are there already come from it, and only the others are asked for.
"""

import asyncio
import sys
from collections.abc import Iterator

from engine import Pool, ask


def questions() -> Iterator[dict[str, object]]:
    """As many rows as you like."""
    for number in range(1000):
        yield {"id": number, "text": f"What is {number} in words?"}


async def main() -> None:
    """Any event loop will do; without one, ``for result in pool.stream()`` is the same."""
    state = sys.argv[1] if len(sys.argv) > 1 else None
    tokens = 0
    with Pool(
        ask("{{ text }}"), questions(), state=state, provider="mock", base_url="mock:latency=20ms"
    ) as pool:
        async for result in pool.astream():
            tokens += result.usage.tokens_out or 0
            if result.row["id"] % 250 == 0:
                print(f"{result.row['id']}: {result.value[:21]}, {result.attempts} attempt")
    print(f"{pool.status['completed']} answers, {tokens > 0 and 'tokens counted'}")


asyncio.run(main())
