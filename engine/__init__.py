"""engine: call an LLM or HTTP endpoint once per row, as fast as its quota allows, and lose no row."""


def __getattr__(name: str) -> str:
    """``__version__``, looked up when asked for: the look-up costs a worker's start 40 ms."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("throughput-engine")
    except PackageNotFoundError:  # running from a source tree that was never installed
        return "0.0.0+source"
