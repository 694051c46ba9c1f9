"""The cases of the library onnx that gpunn has passed: tests/saving/onnx_cases.txt; .ci/run tries all there are."""

import importlib.util

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from support.onnx_suite import answers, cases_of_files, cases_of_nodes, known, outcome

# Modules of cases that are made within seconds; those of averagepool and maxpool take six each, convtranspose three.
MODULES = """
abs atan batch_normalization celu clip conv cos cosh div dropout elu erf exp flatten gelu gemm
globalaveragepool globalmaxpool hardsigmoid hardswish leakyrelu log matmul max min mish mul neg pow reciprocal
relu selu shrink sigmoid sign sin sinh softmax softplus softsign sqrt sub swish tan tanh thresholdedrelu
"""


def test_the_list_is_as_long_as_it_was() -> None:
    names = known()
    assert len(names) == len(set(names)) >= 170
    assert names == sorted(names)


def test_the_cases_of_files_pass_or_are_refused() -> None:
    found = {case.name: outcome(case) for case in cases_of_files()}
    assert [name for name, why in found.items() if why.startswith("WRONG") or not why.isprintable()] == []
    assert [name for name in known() if found.get(name)] == []
    assert sum(name in found for name in known()) >= 40


def test_the_cases_of_nodes_pass_or_are_refused() -> None:
    modules = [name for name in MODULES.split() if importlib.util.find_spec(f"onnx.backend.test.case.node.{name}")]
    found = {case.name: outcome(case) for case in cases_of_nodes(*modules)}
    assert [name for name, why in found.items() if why.startswith("WRONG") or not why.isprintable()] == []
    assert [name for name in known() if found.get(name)] == []
    assert sum(name in found for name in known()) >= 100


def test_a_wrong_answer_would_be_seen() -> None:
    case = next(case for case in cases_of_files() if case.name == "pytorch-converted/test_Conv2d")
    inputs, (right,) = case.sets[0]
    wrong = right.copy()
    wrong.flat[3] += 0.01
    assert outcome(case._replace(sets=[(inputs, [wrong])])).startswith("WRONG by 0.0")
    assert outcome(case._replace(sets=[(inputs, [right[:, :1]])])).startswith("WRONG shape")
    assert len(answers(case.model, inputs)) == 1
