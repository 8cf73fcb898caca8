"""What all tests share: the support folder on the path, and limiters that no other test can join."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))


@pytest.fixture(autouse=True)
def limiter_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of its own for the limiters of each test: a port is used again, its quota is not."""
    folder = Path(tempfile.mkdtemp(prefix="el-"))  # pytest's own are too long for a socket's path
    monkeypatch.setenv("ENGINE_LIMITER_DIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
