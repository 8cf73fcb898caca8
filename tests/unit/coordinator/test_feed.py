"""The reading thread: what it hands on, when, and what becomes of its faults."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.coordinator.feed import Chunk, Feed
from engine.core.errors import EngineError, ExitCode, InternalFault, UsageError
from engine.source import Source


class Heard:
    """What a feed posted to the loop."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[Chunk] = asyncio.Queue()
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def failed(self, error: EngineError) -> None:
        self.ended.set_exception(error)

    def feed(self, source: Source, **changes: object) -> Feed:
        settings: dict[str, object] = {
            "again": None,
            "finished": lambda: iter(()),
            "rows_max": None,
            **changes,
        }
        return Feed(
            source,
            on_chunk=self.chunks.put_nowait,
            on_end=self.ended.set_result,
            on_error=self.failed,
            **settings,  # type: ignore[arg-type]
        )


def source_of(path: str) -> Source:
    return Source(path, "jsonl", row_bytes_max=1000)


def written(folder: Path, rows: int) -> str:
    path = folder / "in.jsonl"
    path.write_text("".join(f'{{"n":{row}}}\n' for row in range(rows)))
    return str(path)


def test_rows_of_a_slow_pipe_are_handed_on_before_the_next_read_waits() -> None:
    async def scene() -> None:
        reading, writing = os.pipe()
        os.write(writing, b'{"n":0}\n{"n":1}\n')
        source = source_of(f"/dev/fd/{reading}")
        heard = Heard()
        feed = heard.feed(source)
        feed.start()
        first = await asyncio.wait_for(heard.chunks.get(), 10)
        assert [row.row for row in first.rows] == [0, 1]
        feed.more()
        os.write(writing, b'{"n":2}\n')
        assert [row.row for row in (await asyncio.wait_for(heard.chunks.get(), 10)).rows] == [2]
        os.close(writing)
        assert await asyncio.wait_for(heard.ended, 10) == 3
        source.close()
        os.close(reading)

    asyncio.run(scene())


def test_without_credit_the_thread_reads_no_further(tmp_path: Path) -> None:
    async def scene() -> None:
        source = source_of(written(tmp_path, 5000))
        heard = Heard()
        feed = heard.feed(source)
        feed.start()
        rows = 0
        while rows < 5000:
            rows += len((await asyncio.wait_for(heard.chunks.get(), 10)).rows)
            await asyncio.sleep(0.01)  # a thread that did not wait would be far ahead by now
            assert feed.rows_read <= rows + 512
            feed.more()
        assert await asyncio.wait_for(heard.ended, 10) == 5000
        source.close()

    asyncio.run(scene())


def test_finished_rows_are_passed_over_and_counted(tmp_path: Path) -> None:
    async def scene() -> None:
        path = written(tmp_path, 5)
        before = source_of(path)
        digests = [row.digest for row in before]
        before.close()

        def finished() -> Iterator[tuple[int, int, bool]]:
            return iter([(1, digests[1], True), (3, digests[3], False)])

        source = source_of(path)
        heard = Heard()
        told: list[int] = []
        again = lambda: source_of(path)  # noqa: E731
        heard.feed(source, finished=finished, again=again, on_finished=told.append).start()
        chunk = await asyncio.wait_for(heard.chunks.get(), 10)
        assert [row.row for row in chunk.rows] == [0, 2, 4]
        assert (chunk.resumed, told) == (2, [1, 3])
        source.close()

    asyncio.run(scene())


@pytest.mark.parametrize("readable_twice", [True, False])
@pytest.mark.parametrize(
    ("finished", "says"), [((1, 12345, True), "other bytes"), ((9, 1, True), "ends after")]
)
def test_an_input_that_has_changed_is_refused(
    tmp_path: Path, finished: tuple[int, int, bool], says: str, readable_twice: bool
) -> None:
    async def scene() -> None:
        path = written(tmp_path, 3)
        source = source_of(path)
        heard = Heard()
        again: Callable[[], Source] | None = (lambda: source_of(path)) if readable_twice else None
        heard.feed(source, finished=lambda: iter([finished]), again=again).start()
        with pytest.raises(UsageError, match=says):
            await asyncio.wait_for(heard.ended, 10)
        if readable_twice:
            assert heard.chunks.empty()
        source.close()

    asyncio.run(scene())


def test_a_fault_in_the_thread_is_told_and_does_not_leave_the_run_waiting(tmp_path: Path) -> None:
    async def scene() -> None:
        def finished() -> Iterator[tuple[int, int, bool]]:
            raise ZeroDivisionError("surprise")

        source = source_of(written(tmp_path, 3))
        heard = Heard()
        heard.feed(source, finished=finished).start()
        with pytest.raises(InternalFault, match="surprise") as caught:
            await asyncio.wait_for(heard.ended, 10)
        assert caught.value.exit_code is ExitCode.INTERNAL
        source.close()

    asyncio.run(scene())


def test_only_the_first_rows_are_read_where_so_many_are_wanted(tmp_path: Path) -> None:
    async def scene() -> None:
        source = source_of(written(tmp_path, 50))
        heard = Heard()
        heard.feed(source, rows_max=7).start()
        assert await asyncio.wait_for(heard.ended, 10) == 7
        assert len(heard.chunks.get_nowait().rows) == 7
        source.close()

    asyncio.run(scene())
