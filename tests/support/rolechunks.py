"""A server of streams whose first chunk names the role at once, and whose content comes 200 ms after the request."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def role_server() -> Iterator[str]:
    """Streams a role chunk at once and content 200 ms after the request, in a thread of its own."""
    ready: list[int] = []
    loop = asyncio.new_event_loop()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    def piece(text: str) -> bytes:
        data = text.encode()
        return b"%x\r\n%b\r\n" % (len(data), data)

    role = piece('data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n')
    content = piece(
        'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                front = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(
                    int(front.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                )
                due = loop.time() + 0.2
                await asyncio.sleep(0.001)
                writer.write(head + role)
                await asyncio.sleep(due - loop.time())
                writer.write(content + b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    over = asyncio.Event()
    started = threading.Event()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        ready.append(server.sockets[0].getsockname()[1])
        started.set()
        await over.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(10)
    yield f"http://127.0.0.1:{ready[0]}"
    loop.call_soon_threadsafe(over.set)
    thread.join(10)
    loop.close()
