"""The program ``engine``: its commands, and what an error looks like from outside.

Rules of this file:
1. An expected error is one sentence on standard error and its exit code; there is no traceback.
2. Commands import what they need when they run: the first request should not wait for what only others use.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import typer

import engine
from engine.cli.compare import compare_command
from engine.cli.ctl import ctl_command
from engine.cli.doctor import doctor_command
from engine.cli.early import begin
from engine.cli.export import export_command
from engine.cli.load import load_command
from engine.cli.mock import mock_command
from engine.cli.quota import quota_command
from engine.cli.retry import retry_command
from engine.cli.run import run_command
from engine.cli.status import status_command
from engine.core.errors import EngineError, ExitCode, InternalFault
from engine.credentials import redact_all
from engine.observe.fault import fault_text
from engine.observe.sanitise import sanitise

_INTERRUPTED_BY_TYPER = 130  # what it ends with after a KeyboardInterrupt, without a word

app = typer.Typer(
    name="engine",
    help="Call an LLM or HTTP endpoint once per row, as fast as its quota allows, and lose no row.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _ending(command: Callable[..., Any]) -> Callable[..., None]:
    """A command that returns its exit code, as typer wants it."""

    @functools.wraps(command)
    def run(*arguments: Any, **flags: Any) -> None:
        begin()
        raise typer.Exit(int(command(*arguments, **flags) or 0))

    return run


for _command in (
    run_command,
    status_command,
    export_command,
    retry_command,
    load_command,
    ctl_command,
    quota_command,
    compare_command,
    mock_command,
    doctor_command,
):
    app.command(_command.__name__.removesuffix("_command"))(_ending(_command))


def _version(value: bool) -> None:
    if value:
        typer.echo(f"engine {engine.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Call an LLM or HTTP endpoint once per row, as fast as its quota allows, and lose no row."""


def _interrupted() -> int:
    """A Ctrl-C that no command has seen to itself: it had begun nothing yet."""
    print("engine: interrupted.", file=sys.stderr)
    return int(ExitCode.INTERRUPTED)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code (see ``core.errors.ExitCode``)."""
    try:
        app(args=arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ExitCode.OK)
        return _interrupted() if code == _INTERRUPTED_BY_TYPER else code
    except KeyboardInterrupt:
        return _interrupted()
    except EngineError as error:
        if isinstance(error, InternalFault) and error.__cause__ is not None:
            sys.stderr.write(fault_text(error.__cause__))
        print(f"engine: {sanitise(redact_all(str(error)))}", file=sys.stderr)
        return int(error.exit_code)
    except BrokenPipeError:
        # Whoever read our standard output has left; there is nobody to tell.
        sys.stderr.close()
        return int(ExitCode.INTERRUPTED)
    except Exception as error:  # the last line of defence: never a silent exit 1
        sys.stderr.write(fault_text(error))
        print(
            f"engine: an internal fault ({type(error).__name__}). Committed rows are safe; the same command goes on.",
            file=sys.stderr,
        )
        return int(ExitCode.INTERNAL)
    return int(ExitCode.OK)
