"""Every mutant breaks what is there, and names tests that are there."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "tests" / "mutants.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its types are looked up there by name
    spec.loader.exec_module(module)
    return module


mutants = loaded()


def test_the_text_of_every_mutant_is_once_in_its_file_and_differs_from_what_it_becomes() -> None:
    wrong = {mutant.name: what for mutant in mutants.MUTANTS if (what := mutants.mistake(mutant))}
    assert wrong == {}
    assert [mutant.name for mutant in mutants.MUTANTS if mutant.old == mutant.new] == []


def test_the_tests_that_mutants_name_are_there() -> None:
    named = {path for mutant in mutants.MUTANTS for path in mutant.tests.split() if path.startswith("tests/")}
    assert sorted(path for path in named if not (ROOT / path).exists()) == []
    assert [mutant.name for mutant in mutants.MUTANTS if not mutant.tests.startswith("tests/")] == []


def test_no_two_mutants_have_one_name() -> None:
    names = Counter(mutant.name for mutant in mutants.MUTANTS)
    assert [name for name, times in names.items() if times > 1] == []
