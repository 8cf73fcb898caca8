"""``engine ctl``: pause, resume, drain or retune a run that is running.

Rules of this file:
1. Asks the run itself; changes no file.
"""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

ANSWER_MAX_S = 5.0
_EXAMPLES = """Examples:

\b
  engine ctl labelled.jsonl pause
  engine ctl labelled.jsonl resume
  engine ctl labelled.jsonl set rpm=3000 in-flight=200
  engine ctl labelled.jsonl drain"""


def ctl_command(
    run: Annotated[str, typer.Argument(help="The output's path, or the state folder.")],
    words: Annotated[list[str], typer.Argument(help="pause, resume, drain, or set NAME=VALUE...")],
) -> int:
    """Steer a running run: pause, resume, drain, set rpm=N tpm=N in-flight=N."""
    from engine.cli.folders import state_folder
    from engine.core.errors import ExitCode, UsageError
    from engine.observe.live import read_live

    folder = state_folder(run)
    live = read_live(folder)
    control = live.get("control") if live is not None else None
    if not isinstance(control, dict) or not control.get("socket"):
        raise UsageError(f"No run is running in {folder}.")
    says = asyncio.run(_ask(Path(str(control["socket"])), str(control.get("token", "")), words))
    if says is None:
        raise UsageError(f"The run in {folder} did not answer within {ANSWER_MAX_S:g} s; is it stopped?")
    ok, sentence = says
    if not ok:
        raise UsageError(sentence)
    print(sentence)
    return ExitCode.OK


async def _ask(socket: Path, token: str, words: list[str]) -> tuple[bool, str] | None:
    from engine.wire.link import Spoke
    from engine.wire.messages import Control, Controlled, Message

    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[bool, str]] = loop.create_future()

    def heard(message: Message) -> None:
        if isinstance(message, Controlled) and not answer.done():
            answer.set_result((message.ok, message.says))

    link = Spoke(socket, message_bytes_max=65_536)
    try:
        link.listen(loop, heard)
        link.send(Control(token=token, words=words))
        return await asyncio.wait_for(answer, ANSWER_MAX_S)
    except TimeoutError:
        return None
    finally:
        link.close()


ctl_command.__doc__ = f"{ctl_command.__doc__}\n\n{_EXAMPLES}"
