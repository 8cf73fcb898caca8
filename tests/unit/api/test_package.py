"""``import engine``: what it offers, and what it costs."""

import subprocess
import sys

import pytest

import engine


def test_everything_that_is_offered_is_there() -> None:
    for name in engine.__all__:
        assert getattr(engine, name).__name__ == name
    assert set(engine.__all__) < set(dir(engine))
    assert engine.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = engine.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import engine", ("engine.api", "engine.core", "msgspec", "asyncio", "rich")),
        ("import engine; engine.Pool", ("aiohttp", "pandas", "polars", "pyarrow", "rich")),
    ],
)
def test_what_is_not_used_is_not_imported(code: str, absent: tuple[str, ...]) -> None:
    look = f"{code}\nimport sys\nprint(*[name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
