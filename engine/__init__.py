"""engine: call an LLM or HTTP endpoint once per row, as fast as its quota allows, and lose no row."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("throughput-engine")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0.0.0+source"

__all__ = ["__version__"]
