"""Every figure in the README is one that was measured."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readmes_tables_are_those_of_the_results() -> None:
    spec = importlib.util.spec_from_file_location("bench_readme", ROOT / "bench" / "readme.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (ROOT / "README.md").read_text()
    assert module.written(readme) == readme, "run: python bench/readme.py"
    marks = re.findall(r"<!-- bench: (\w+) -->", readme)
    assert sorted(marks) == sorted(module.PARTS), "a table without results, or results without a table"
