"""Check that the libraries of the page are installed, before importing its modules."""

from gpunn.errors import GpunnError


def require_web() -> None:
    """Raise GpunnError if a library of the extra `web` is missing."""
    try:
        import starlette
        import uvicorn  # noqa: F401
    except ImportError as error:
        mend = "pip install 'gpunn[web]'"
        raise GpunnError(f"gpunn serve needs {error.name or 'starlette'}, which is not installed: {mend}") from None
    del starlette
