"""Say what is missing for a page, before anything of it is imported."""

from gpunn.errors import GpunnError


def require_web() -> None:
    """Raise GpunnError where the libraries are missing that serve a page."""
    try:
        import starlette
        import uvicorn  # noqa: F401
    except ImportError as error:
        mend = "pip install 'gpunn[web]'"
        raise GpunnError(f"gpunn serve needs {error.name or 'starlette'}, which is not installed: {mend}") from None
    del starlette
