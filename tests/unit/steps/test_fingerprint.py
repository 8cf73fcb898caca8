"""The digits that stand for a function: the same for the same code and data, others for any other."""

import functools
import subprocess
import sys
from typing import Any

from engine.steps.fingerprint import DIGITS, fingerprint

SOURCE = """
{blank}
import functools
from engine.steps.fingerprint import fingerprint

def made(more):
    def inner(row, words={{"a", "b", "c"}}):
        return [row + more for _ in range(3)] + [word for word in ("x", "y") if word in {{"x", "z", "w"}}]
    return inner

class Adder:
    def __init__(self, more):
        self.more = more
    def __call__(self, row):
        return row + self.more

print(fingerprint(made(1)), fingerprint(Adder(2)), fingerprint(functools.partial(made(3), 4)))
"""


def test_it_is_the_same_in_every_process_and_wherever_the_function_stands() -> None:
    told = set()
    for blank in ("", "\n\n\n"):
        for seed in ("1", "2"):
            done = subprocess.run(
                [sys.executable, "-c", SOURCE.format(blank=blank)],
                env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
                capture_output=True, text=True, check=True, timeout=60,
            )  # fmt: skip
            told.add(done.stdout)
    assert len(told) == 1
    assert [len(digits) for digits in told.pop().split()] == [DIGITS] * 3


def adding(more: Any, default: int = 1) -> Any:
    def add(row: int, by: int = default) -> Any:
        return [row, by, more]

    return add


class Loop:
    """An object that holds itself."""

    def __init__(self) -> None:
        self.me = self


def test_what_a_function_does_closes_over_or_holds_makes_another_one() -> None:
    functions = [
        adding(1),
        adding(2),
        adding("2"),
        adding(1, default=3),
        adding([1, {"a": 2}]),
        adding([1, {"a": 3}]),
        adding(adding(1)),
        functools.partial(adding(1), 5),
        functools.partial(adding(1), 6),
        lambda row: row + 1,
        lambda row: row + 2,
        lambda row: row.upper(),
        lambda row: row.lower(),
        len,
        print,
        Loop(),
    ]
    assert len({fingerprint(function) for function in functions}) == len(functions)
    assert fingerprint(adding(1)) == fingerprint(adding(1))
