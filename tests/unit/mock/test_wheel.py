"""The timer wheel."""

import asyncio

from engine.mock.wheel import SLOT_S, Wheel


class Thing:
    def __init__(self, name: str, served: list[tuple[str, float]]) -> None:
        self._name, self._served = name, served

    def due(self) -> None:
        self._served.append((self._name, asyncio.get_running_loop().time()))


def test_the_wheel_serves_nothing_early_and_keeps_the_order() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        wheel = Wheel(loop)
        served: list[tuple[str, float]] = []
        now = loop.time()
        wanted = {"c": now + 0.03, "a": now + 0.01, "b": now + 0.01}
        for name, at in wanted.items():
            wheel.add(at, Thing(name, served))
        await asyncio.sleep(0.06)
        assert [name for name, _ in served] == ["a", "b", "c"]
        assert all(at >= wanted[name] - SLOT_S / 100 for name, at in served)
        wheel.add(loop.time() + 0.01, Thing("never", served))
        wheel.close()
        await asyncio.sleep(0.03)
        assert len(served) == 3

    asyncio.run(run())
