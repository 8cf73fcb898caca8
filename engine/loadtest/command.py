"""One ``engine load`` from its plan to its files and its exit code.

Rules of this file:
1. Where results cannot be written is told before the test, not after it.
2. What was measured reaches all places that take it: a report that cannot be shown costs no file, and the reverse.
"""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import uvloop

from engine.core.errors import EngineError, ExitCode, InternalFault, StoreFailure, UsageError
from engine.loadtest.conduct import conductor
from engine.loadtest.files import check_writable, write
from engine.loadtest.histories import history
from engine.loadtest.live import LoadView
from engine.loadtest.model import LoadPlan, Tested
from engine.loadtest.page import page
from engine.loadtest.plan import Planned
from engine.loadtest.results import results_of
from engine.loadtest.searching import search
from engine.loadtest.verdict import exit_code_of

_LOST: Final = (
    "It says nothing of the endpoint: what was measured is lost, and no results file was written. Requests that were "
    "sent may have been billed."
)


@dataclass(frozen=True, slots=True)
class Outputs:
    """Files to write; "" for none."""

    out: str = ""
    html: str = ""
    hlog: str = ""

    def check(self) -> None:
        """Raises UsageError for one that could not be written, and for two of the same name."""
        paths = [os.path.realpath(path) for path in (self.out, self.html, self.hlog) if path]
        if len(set(paths)) < len(paths):
            raise UsageError("--out, --html and --hlog name the same file. Give each its own.")
        for path, flag in ((self.out, "--out"), (self.html, "--html"), (self.hlog, "--hlog")):
            if path:
                check_writable(path, flag)

    def write(self, results: dict[str, Any], plan: LoadPlan, tested: Tested) -> None:
        """Write them, all that can be written. Raises StoreFailure, or InternalFault, for the first that cannot."""
        texts: dict[str, tuple[str, Callable[[], str]]] = {
            "--out": (self.out, lambda: json.dumps(results, indent=1) + "\n"),
            "--html": (self.html, lambda: page(results)),
            "--hlog": (self.hlog, lambda: history(plan, tested)),
        }
        failures: list[EngineError] = []
        for flag, (path, text) in texts.items():
            if path:
                try:
                    write(path, text(), flag)
                except StoreFailure as failure:
                    failures.append(failure)
                except Exception as error:
                    means = (
                        "That file was not written; the report and the other files are not touched by this."
                    )
                    failures.append(InternalFault(f"making the file of {flag}", error, means))
        if failures:
            raise failures[0]


def run_load(
    planned: Planned, outputs: Outputs, view: LoadView, show: Callable[[dict[str, Any]], None]
) -> ExitCode:
    """Run it, ``show`` what it came to, write its files.

    Raises EngineError where nothing could be measured, KeyboardInterrupt for a Ctrl-C before anything was.
    """

    async def run() -> tuple[dict[str, Any], LoadPlan, Tested]:
        async with conductor(planned.plan, planned.auth, view) as lead:
            if planned.search_from:
                return await search(lead, planned)
            tested = await lead.test(planned.plan)
            return results_of(planned.plan, tested), planned.plan, tested

    try:
        results, plan, tested = uvloop.run(run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except EngineError:
        raise
    except Exception as error:
        raise InternalFault("the load test", error, _LOST) from error
    finally:
        view.end()
    try:
        show(results)
    finally:
        outputs.write(results, plan, tested)
    return exit_code_of(results)
