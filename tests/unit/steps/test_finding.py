"""Functions by their names: in modules, in scripts, among what was handed over."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

from engine.core.errors import UsageError
from engine.steps import finding, functions
from engine.steps.finding import check, parts_of, resolve
from engine.steps.functions import SCRIPT_MODULE


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """No test leaves modules or folders behind."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path
    finding._scripts.clear()


def written(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path


def refused(spec: str, folder: str = "") -> str:
    with pytest.raises(UsageError) as caught:
        resolve(spec, folder)
    return str(caught.value)


def test_a_name_has_a_kind_a_place_and_a_name_there() -> None:
    assert parts_of("a.b:c.d") == ("", "a.b", "c.d")
    assert parts_of("script:/x:y/z.py:f") == ("script", "/x:y/z.py", "f")
    assert parts_of("script:main") == ("", "script", "main")  # a module of that name
    assert parts_of("pickled:f-12") == ("pickled", "f-12", "")
    for wrong in ("a", "a:", ":b", "a:b:c", "a b:c", "a:b()", "../a:b", "pickled:", ""):
        with pytest.raises(UsageError, match="names no function"):
            parts_of(wrong)


def test_a_module_of_the_working_folder_is_found_and_so_is_a_method_in_it(tmp_path: Path) -> None:
    written(
        tmp_path / "colours.py",
        "class Paint:\n    @staticmethod\n    def mix(row):\n        return 'green'\n",
    )
    assert resolve("colours:Paint.mix", str(tmp_path))({}) == "green"
    assert resolve("json:dumps") is sys.modules["json"].dumps
    assert "has no function Paint.mixed. Did you mean mix?" in refused("colours:Paint.mixed", str(tmp_path))


def test_what_a_module_prints_when_it_is_checked_goes_to_standard_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "import os\nprint('by print')\nos.write(1, b'by descriptor')\ndef f(row): ...\n"
    written(tmp_path / "talking.py", text)
    written(tmp_path / "failing.py", text + "int('one')\n")
    check("talking:f", str(tmp_path))
    with pytest.raises(UsageError):
        check("failing:f", str(tmp_path))
    print("afterwards", flush=True)
    shown = capfd.readouterr()
    assert shown.out == "afterwards\n"
    assert shown.err.count("by print") == shown.err.count("by descriptor") == 2


def test_a_module_that_cannot_be_imported_says_what_happened_and_where(tmp_path: Path) -> None:
    written(tmp_path / "broken.py", "x = 1\nint('one')\n")
    written(tmp_path / "needy.py", "import no_such_package\n")
    written(tmp_path / "leaving.py", "import sys\nsys.exit('enough')\n")
    written(
        tmp_path / "running.py",
        "from engine.steps.functions import begin_run\nbegin_run()\ndef f(row): ...\n",
    )
    folder = str(tmp_path)
    assert "ValueError: invalid literal" in refused("broken:f", folder)
    assert f"({tmp_path}/broken.py, line 2)" in refused("broken:f", folder)
    assert "it needs no_such_package, which is not installed" in refused("needy:f", folder)
    assert "SystemExit: enough" in refused("leaving:f", folder)
    assert "runs rows when it is imported" in refused("running:f", folder)
    assert f"There is no module nowhere. It was looked for in {folder}" in refused("nowhere.inner:f", folder)
    assert not functions.is_importing_script


def test_a_script_is_read_up_to_where_it_would_run_rows(tmp_path: Path) -> None:
    script = written(
        tmp_path / "main.py",
        """
        from __future__ import annotations
        import dataclasses, pickle, sys
        from engine.steps.functions import begin_run

        @dataclasses.dataclass
        class Point:
            x: int

        def f(row):
            return [__name__, pickle.loads(pickle.dumps(Point(3))).x]

        try:
            begin_run()
        except Exception:
            pass
        raise RuntimeError("never reached in a worker")
        """,
    )
    found = resolve(f"script:{script}:f")
    assert found({}) == [SCRIPT_MODULE, 3]
    assert resolve(f"script:{script}:f") is found  # it is run once
    assert "The script" in refused(f"script:{script}:g") and "has no function g" in refused(
        f"script:{script}:g"
    )
    assert not functions.is_importing_script
    functions.begin_run()  # out of a script's import it is harmless


def test_a_script_may_leave_and_may_belong_to_a_package(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    written(package / "__init__.py", "")
    written(package / "prices.py", "VAT = 19\n")
    script = written(
        package / "run.py", "import sys\nfrom .prices import VAT\ndef f(row):\n    return VAT\nsys.exit(2)\n"
    )
    sys.path.insert(0, str(tmp_path))
    assert resolve(f"script:{script}:f")({}) == 19


def test_a_script_that_fails_or_is_gone_is_refused_with_the_place(tmp_path: Path) -> None:
    script = written(tmp_path / "main.py", "\nopen('/no/such/file')\n")
    said = refused(f"script:{script}:f")
    assert "FileNotFoundError" in said and f"({script}, line 2)" in said and "__main__" in said
    assert "SyntaxError" in refused(f"script:{written(tmp_path / 'odd.py', 'def f(:')}:f")
    assert "is not there any more" in refused(f"script:{tmp_path}/gone.py:f")
    with pytest.raises(UsageError, match="is not there any more"):
        check(f"script:{tmp_path}/gone.py:f")


def test_what_was_pickled_is_loaded_once_and_only_where_it_was_handed_over() -> None:
    data = cloudpickle.dumps(lambda row: row["a"] + 1)
    found = resolve("pickled:f", pickled={"f": data})
    assert found({"a": 1}) == 2
    assert resolve("pickled:f", pickled={"f": data}) is found
    assert "which only the script or notebook that made it has" in refused("pickled:f")
    with pytest.raises(UsageError, match="cannot be made again in a worker: .*: .*Define it in a module"):
        resolve("pickled:f", pickled={"f": b"no pickle"})
    check("pickled:f")  # nothing is unpickled to check a job


def test_generators_and_what_cannot_be_called_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "many.py", "def f(row):\n    yield 1\nasync def g(row):\n    yield 1\nh = 3\n")
    folder = str(tmp_path)
    assert "many:f is a generator" in refused("many:f", folder)
    assert "many:g is a generator" in refused("many:g", folder)
    assert "many:h is no function, but of type int" in refused("many:h", folder)
