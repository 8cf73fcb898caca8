"""Gather the docstrings of the running Python's standard library as JSON lines: module, name, kind, text.

Reads source files with ``ast``; imports and runs nothing of them. Usage: stdlib_docstrings.py OUTPUT [ROWS]
"""

import ast
import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}
KINDS = {
    ast.Module: "module",
    ast.ClassDef: "class",
    ast.FunctionDef: "function",
    ast.AsyncFunctionDef: "function",
}


def docstrings(root: Path) -> Iterator[dict[str, str]]:
    """Every documented module, class and function below ``root``."""
    for path in sorted(root.rglob("*.py")):
        if SKIPPED & set(path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # deliberately broken files are part of some test suites
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        yield from _documented(tree, module, "")


def _documented(node: ast.AST, module: str, name: str) -> Iterator[dict[str, str]]:
    kind = KINDS.get(type(node))
    if kind is not None:
        text = ast.get_docstring(node)  # type: ignore[arg-type]
        if text:
            text = text.encode("utf-8", "replace").decode()
            yield {"module": module, "name": name or module, "kind": kind, "text": text}
    for child in ast.iter_child_nodes(node):
        inner = getattr(child, "name", "") if type(child) in KINDS else ""
        yield from _documented(child, module, f"{name}.{inner}" if name and inner else inner or name)


def main() -> int:
    """Write the rows and say how many."""
    output = Path(sys.argv[1])
    rows_max = int(sys.argv[2]) if len(sys.argv) > 2 else None
    root = Path(sysconfig.get_path("stdlib"))
    count = 0
    with output.open("w", encoding="utf-8") as file:
        for row in docstrings(root):
            if rows_max is not None and count >= rows_max:
                break
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    print(f"{count:,} docstrings of {root} in {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
