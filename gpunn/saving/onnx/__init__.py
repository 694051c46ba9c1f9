"""Export networks as ONNX files, and import them; needs the extra `onnx`.

    graph, layer_writers, equation_writer           layers → nodes
    export, preparation, checking                   a network → a file, checked before it is saved
    bounds, parsing, folding                        a file → nodes and arrays
    operator_readers, window_readers, elementwise   nodes → layers, by operator
    graph_reader, reader_state, importing           a graph → a network

Source: https://onnx.ai/onnx/operators, default domain only.
"""

from gpunn.errors import OptionError

OPSETS = range(13, 29)  # for export; the operators in use mean the same in all of them
OPSET = 18  # with IR 8, which runtimes of 2023 and later read


def require_onnx() -> None:
    """Raise OptionError if the library onnx is missing."""
    try:
        import onnx  # noqa: F401  # takes a fifth of a second, so only on demand
    except ImportError:
        mend = "pip install 'gpunn[onnx]'"
        raise OptionError(f"ONNX files need the library onnx, which is not installed: {mend}") from None
