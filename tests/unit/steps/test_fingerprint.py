"""The digits that stand for a function: the same for the same code and data, others for any other."""

import functools
import subprocess
import sys
from array import array
from collections import OrderedDict
from datetime import date
from decimal import Decimal
from pathlib import Path
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


class Slots:
    """An object without a dict."""

    __slots__ = ("held",)

    def __init__(self, held: int) -> None:
        self.held = held


class Odd:
    """An object that is among its own, and does not like to be copied."""

    def __init__(self) -> None:
        self.peers = {self}

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError


class Peer:
    """An object that is among its own."""

    def __init__(self) -> None:
        self.peers = {self, 1, 2}


TANGLED: list[Any] = []
TANGLED += [TANGLED, [TANGLED, TANGLED], TANGLED]


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
        adding(Path("a")),
        adding(Path("b")),
        adding(Decimal(1)),
        adding(Decimal(2)),
        adding(date(2024, 1, 1)),
        adding(date(2024, 1, 2)),
        adding({1, 2}),
        adding({1, 3}),
        adding(OrderedDict(a=1)),
        adding(OrderedDict(a=2)),
        adding(array("d", [1.0])),
        adding(array("d", [2.0])),
        adding(Slots(1)),
        adding(Slots(2)),
        adding(b"x" * 1_000_000),
        adding(b"y" * 1_000_000),
        adding(TANGLED),
        adding(Odd()),
        adding(Peer()),
    ]
    assert len({fingerprint(function) for function in functions}) == len(functions)
    assert fingerprint(adding(1)) == fingerprint(adding(1))


READS = """
PLAIN, LIMIT, STATE, TABLE, text = {plain}
import threading
LOCK = threading.Lock()

def helper():
    return {helper}

def function(row):
    global STATE
    STATE += 1
    return [helper(), LIMIT, len(TABLE), LOCK, row.text, [PLAIN for _ in row], undefined]
"""


def reads(plain: str = "({'a': [1]}, 2, 0, [0] * 2000, 'x')", helper: str = "1") -> str:
    names: dict[str, Any] = {"__name__": "script"}
    exec(READS.format(plain=plain, helper=helper), names)
    return fingerprint(names["function"])


def test_plain_globals_that_a_function_reads_make_another_one_and_no_others_do() -> None:
    assert reads() == reads()
    assert reads() != reads("({'a': [2]}, 2, 0, [0] * 2000, 'x')")
    assert reads() != reads("({'a': [1]}, 3, 0, [0] * 2000, 'x')")
    # Its own state, a large table, what only is named like an attribute, and what other functions do.
    assert reads() == reads("({'a': [1]}, 2, 9, [0] * 2000, 'x')")
    assert reads() == reads("({'a': [1]}, 2, 0, [1] * 2000, 'x')")
    assert reads() == reads("({'a': [1]}, 2, 0, [0] * 2000, 'y')")
    assert reads() == reads(helper="2")


def test_a_global_that_holds_itself_is_not_plain() -> None:
    assert fingerprint(lambda: TANGLED) == fingerprint(lambda: TANGLED)
