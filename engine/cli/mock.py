"""``engine mock``: a provider to test against, on this machine.

Rules of this file:
1. Loopback unless told otherwise; serves until Ctrl-C and then says what arrived.
"""

import asyncio
import signal
from typing import Annotated

import typer

_EXAMPLES = """Examples:

\b
  engine mock --port 8009 --latency 200ms
  engine mock --port 8009 --latency lognormal:800:0.4 --rpm 6000 --quota sliding --fault 500=0.01
  engine mock --capacity 50 --fault 'storm,start_s=10,end_s=20,retry_after=5'
  engine run in.jsonl -o out.jsonl --base-url http://127.0.0.1:8009/v1 --model mock --prompt '{{ text }}'"""


def mock_command(
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8009,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    latency: Annotated[str, typer.Option(help="200ms, lognormal:200:0.3 or uniform:100:300.")] = "200ms",
    rpm: Annotated[int | None, typer.Option(help="Requests per minute it allows.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens per minute it allows.")] = None,
    quota: Annotated[
        list[str] | None, typer.Option(help="sliding, bucket, second or minute; all given ones hold.")
    ] = None,
    capacity: Annotated[
        str, typer.Option(help="Requests at once; 0 is any number; 50,20:200 is 200 after 20 s.")
    ] = "0",
    fault: Annotated[list[str] | None, typer.Option(help="NAME[=PROBABILITY][,key=value...]")] = None,
    answer: Annotated[
        str, typer.Option(help="Template of every answer: {id} and {prompt} are replaced.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Of all chance.")] = 0,
) -> int:
    """Serve OpenAI's, Azure's, Anthropic's and Ollama's APIs from this machine."""
    from engine.core.errors import UsageError
    from engine.mock.settings import MockSettings, QuotaSettings, parse_capacity, parse_fault

    try:
        limits = [QuotaSettings(kind=kind, rpm=rpm, tpm=tpm) for kind in quota or ["sliding"]]
        settings = MockSettings(
            host=host,
            port=port,
            latency=latency,
            quota=tuple(limits) if rpm is not None or tpm is not None else (),
            capacity=parse_capacity(capacity)[0],
            capacity_steps=parse_capacity(capacity)[1],
            faults=tuple(parse_fault(text) for text in fault or ()),
            answer=answer,
            seed=seed,
        )
    except ValueError as error:
        raise UsageError(f"{error}.") from None
    import uvloop

    from engine.mock.server import MockServer

    async def serve() -> None:
        over = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, over.set)
        server = MockServer(settings)
        try:
            await server.start()
        except OSError as problem:
            raise UsageError(f"The mock cannot listen at {host}:{port}: {problem.strerror}.") from None
        print(
            f"mock provider at http://{host}:{server.port}/v1 (Ctrl-C ends it, GET /stats tells what arrived)",
            flush=True,
        )
        await over.wait()
        stats = server.stats()
        await server.stop()
        print(
            f"{stats['requests']} requests, {stats['ok']} ok, {stats['throttled']} throttled, "
            f"at most {stats['in_flight_max']} at once"
        )

    uvloop.run(serve())
    return 0


mock_command.__doc__ = f"{mock_command.__doc__}\n\n{_EXAMPLES}"
