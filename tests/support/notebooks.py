"""Notebooks that a real kernel of Jupyter runs, cell by cell."""

import ast
import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from packages import needs_package

nbclient = needs_package("nbclient")
nbformat = needs_package("nbformat")
needs_package("ipykernel")
needs_package("ipywidgets")


COLOUR = re.compile("\x1b\\[[0-9;]*m")


class Cell:
    """A cell that was run, and what the notebook holds of it."""

    def __init__(self, cell: Any) -> None:
        self.outputs: list[Any] = cell.outputs

    def printed(self, name: str = "stdout") -> str:
        """What it wrote to a stream."""
        return "".join(
            output.text for output in self.outputs if output.output_type == "stream" and output.name == name
        )

    @property
    def value(self) -> Any:
        """The value of its last line, which is a literal; None without one."""
        found = [
            output.data["text/plain"] for output in self.outputs if output.output_type == "execute_result"
        ]
        return ast.literal_eval(found[0]) if found else None

    @property
    def shown(self) -> list[str]:
        """What it displays, as text."""
        return [output.data["text/plain"] for output in self.outputs if output.output_type == "display_data"]

    @property
    def error(self) -> str:
        """The traceback of what it raised, without colours; empty if it did not."""
        found = [output for output in self.outputs if output.output_type == "error"]
        return COLOUR.sub("", "\n".join(found[0].traceback)) if found else ""


class Notebook:
    """A notebook in a folder, with its kernel."""

    def __init__(self, folder: Path) -> None:
        self._book = nbformat.v4.new_notebook()
        place = {"metadata": {"path": str(folder)}}
        self._client = nbclient.NotebookClient(
            self._book, timeout=60, kernel_name="python3", allow_errors=True, resources=place
        )

    def __enter__(self) -> Self:
        self._kernel = self._client.setup_kernel(stdout=-3, stderr=-3)
        self._kernel.__enter__()
        self.pid = self.value("import os; os.getpid()")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kernel.__exit__(kind, error, trace)

    def run(self, source: str, meanwhile: Callable[[], object] | None = None) -> Cell:
        """Add a cell and run it to its end. ``meanwhile``: what is done, in another thread, while it runs."""
        cell = nbformat.v4.new_code_cell(source.strip())
        self._book.cells.append(cell)
        beside = threading.Thread(target=meanwhile) if meanwhile else None
        if beside:
            beside.start()
        try:
            self._client.execute_cell(cell, len(self._book.cells) - 1)
        finally:
            if beside:
                beside.join()
        nbformat.validate(self._book)
        return Cell(cell)

    def value(self, source: str) -> Any:
        """The value of a cell's last line, which is a literal; None without one. The cell raises nothing."""
        cell = self.run(source)
        assert not cell.error, cell.error
        return cell.value

    def interrupt(self) -> None:
        """As the button does."""
        asyncio.run(self._client.km.interrupt_kernel())

    def end(self, *, at_once: bool) -> None:
        """Shut the kernel down, killing it or asking it to."""
        asyncio.run(self._client.km.shutdown_kernel(now=at_once))

    def processes(self) -> list[psutil.Process]:
        """What the kernel has started and what still runs of it."""
        return psutil.Process(self.pid).children(recursive=True)
