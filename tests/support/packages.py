"""Packages that some tests are about, and that a user of the engine need not have."""

import os
from importlib import import_module
from typing import Any

import pytest


def needs_package(name: str) -> Any:
    """The package. Skips the whole test file where it is not installed, fails it in CI."""
    return import_module(name) if os.environ.get("CI") else pytest.importorskip(name)
