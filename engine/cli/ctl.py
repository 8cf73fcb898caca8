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
  engine ctl labelled.jsonl set east.rpm=3000
  engine ctl labelled.jsonl drain"""


def ctl_command(
    run: Annotated[str, typer.Argument(help="The output's path, or the state folder.")],
    words: Annotated[list[str], typer.Argument(help="pause, resume, drain, or set NAME=VALUE...")],
) -> int:
    """Steer a running run: pause, resume, drain, set rpm=N tpm=N in-flight=N (NAME.rpm=N)."""
    from engine.cli.folders import state_folder
    from engine.core.errors import ExitCode, UsageError
    from engine.observe.live import read_live
    from engine.wire.asking import ask
    from engine.wire.messages import Control, Controlled

    folder = state_folder(run)
    live = read_live(folder)
    control = live.get("control") if live is not None else None
    if not isinstance(control, dict) or not control.get("socket"):
        raise UsageError(f"No run is running in {folder}.")
    question = Control(token=str(control.get("token", "")), words=words)
    answer = asyncio.run(ask(Path(str(control["socket"])), question, Controlled, within_s=ANSWER_MAX_S))
    if answer is None:
        raise UsageError(f"The run in {folder} did not answer within {ANSWER_MAX_S:g} s; is it stopped?")
    if not answer.ok:
        raise UsageError(answer.says)
    print(answer.says)
    return ExitCode.OK


ctl_command.__doc__ = f"{ctl_command.__doc__}\n\n{_EXAMPLES}"
