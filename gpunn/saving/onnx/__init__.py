"""Networks as ONNX files, for other runtimes and from other libraries; the extra `onnx`.

    graph, operators, equations   layers → nodes
    export, checking              a network → a file, compared with the network before it gets its name
    reading, nodes, importing     a file → nodes → layers

Source: https://onnx.ai/onnx/operators, of the default domain alone.
"""

from gpunn.errors import OptionError

OPSETS = range(13, 29)  # that are written; each operator means the same in all of them
OPSET = 18  # with IR 8: runtimes of 2023 and later read it


def require_onnx() -> None:
    """Raise OptionError where the library is missing that writes and reads the format."""
    try:
        import onnx  # noqa: F401  # a fifth of a second, for those who ask for it
    except ImportError:
        mend = "pip install 'gpunn[onnx]'"
        raise OptionError(f"ONNX files need the library onnx, which is not installed: {mend}") from None
