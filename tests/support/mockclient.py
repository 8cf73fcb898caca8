"""Requests to a mock provider in the same process, written and read byte by byte."""

import asyncio
import json
from typing import Any

from engine.mock.server import MockServer
from engine.mock.settings import MockSettings

Parsed = tuple[int, dict[str, str], bytes]


async def exchange(port: int, *requests: bytes) -> list[Parsed]:
    """Send requests on one connection, all at once, and read as many replies."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join(requests))
    replies = []
    try:
        for _ in requests:
            replies.append(await read_reply(reader))
    finally:
        writer.close()
    return replies


async def read_reply(reader: asyncio.StreamReader) -> Parsed:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status = int(head.split(" ")[1])
    headers = {
        k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head.split("\r\n")[1:] if line)
    }
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    else:
        body = await reader.readexactly(int(headers["content-length"]))
    return status, headers, body


def post(path: str, body: dict[str, Any], header: str = "") -> bytes:
    data = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{header}Content-Length: {len(data)}\r\n\r\n".encode() + data


def chat(text: str, **more: Any) -> bytes:
    return post(
        "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    )


def served(settings: MockSettings, *requests: bytes) -> tuple[list[Parsed], dict[str, Any]]:
    async def run() -> tuple[list[Parsed], dict[str, Any]]:
        async with MockServer(settings) as server:
            replies = await asyncio.wait_for(exchange(server.port, *requests), 10)
            return replies, server.stats()

    return asyncio.run(run())
