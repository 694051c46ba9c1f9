"""An activation and a loss as equations: kernels on every device, checks, files, and learned parameters."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_helpers import assert_resumes_to_the_same_bytes, gpunn, own_folder, without_pictures
from support.harness import call, one_line
from support.layer_helpers import Alone, assert_gradients
from support.literature import ACTIVATIONS, LEARNED, LOSSES, POISSON

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.config import from_config, to_config
from gpunn.errors import OptionError
from gpunn.kernels import registry
from gpunn.nn.equations import code as code_module
from gpunn.nn.equations.code import activation_code, activation_program
from gpunn.nn.equations.grammar import FUNCTIONS
from gpunn.nn.footprint import count_network

folder = pytest.fixture(own_folder)
plain = pytest.fixture(without_pictures)
SWISH, PRELU = "z / (1 + exp(-z))", "where(z > 0, z, a * z)"
BUNDLED = {
    "sigmoid": (gn.Sigmoid, "1 / (1 + exp(-z))"),
    "tanh": (gn.Tanh, "tanh(z)"),
    "relu": (gn.ReLU, "max(z, 0)"),
    "leaky": (lambda: gn.LeakyReLU(0.01), "where(z > 0, z, 0.01 * z)"),
    "softplus": (gn.Softplus, "log(1 + exp(z))"),
}


def swish() -> gn.Activation:
    return gn.Activation.from_equation("swish", SWISH)


def prelu(slope: float = 0.25) -> gn.Activation:
    return gn.Activation.from_equation("prelu", PRELU, parameters={"a": slope})


def huber() -> gn.Loss:
    return gn.Loss.from_equation("huber", "sqrt(1 + (a - y)**2) - 1")


def data(seed: int = 0) -> gn.Data:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 5))
    return gn.Data.from_arrays(x, np.tanh(x @ rng.normal(size=(5, 2))), validation=0.2)


def network() -> gn.Sequential:
    return gn.Sequential([gn.Dense(6), swish(), gn.Dense(5), prelu(), gn.Dense(2)])


OPTIONS: dict[str, Any] = {"batch_size": 8, "device": "cpu", "progress": False}


# Kernels


def ulps(a: Any, b: Any) -> float:
    return float((np.abs(a - b) / np.spacing(np.maximum(np.abs(a), np.finfo(a.dtype).tiny))).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_activation_as_its_equation_has_the_same_values(backend: Backend, name: str, dtype: str) -> None:
    make, equation = BUNDLED[name]
    theirs, ours = make(), gn.Activation.from_equation(name, equation)
    assert ours.derivative_from_output is theirs.derivative_from_output
    assert ours.increases == theirs.increases
    assert ours.weights is theirs.weights
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(size=400) * 3, np.linspace(-90, 90, 99), [0.0]]).astype(dtype).reshape(5, 100)
    da = rng.normal(size=z.shape).astype(dtype)
    *_, a = call(backend, theirs.kernel, z, *theirs._constants(), np.empty_like(z))
    *_, b = call(backend, ours.kernel, z, np.empty_like(z))
    assert ulps(a, b) <= 2
    seen = a if theirs.derivative_from_output else z
    *_, dz = call(backend, theirs.gradient_kernel, da, seen, *theirs._constants(), np.empty_like(z))
    *_, own = call(backend, ours.gradient_kernel, da, seen, np.empty_like(z))
    assert ulps(dz, own) <= 2


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_the_same_on_every_device_and_in_place(backend: Backend, name: str) -> None:
    layer = gn.Activation.from_equation(name, ACTIVATIONS[name])
    z = np.linspace(-30, 30, 241)[None, :] + 0.01  # beside the bends, where rounding decides
    a, dz = np.empty_like(z), np.empty_like(z)
    layer.kernel.host(z, a)
    seen = a if layer.derivative_from_output else z
    layer.gradient_kernel.host(np.full_like(z, 0.7), seen, dz)
    np.testing.assert_allclose(call(backend, layer.kernel, z, np.empty_like(z))[-1], a, rtol=1e-12, atol=1e-13)
    da = np.full_like(z, 0.7)
    np.testing.assert_allclose(call(backend, layer.gradient_kernel, da, seen, da)[-1], dz, rtol=1e-12, atol=1e-13)
    if layer.derivative_from_output:
        np.testing.assert_allclose(call(backend, layer.kernel, z, z)[-1], a, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", [*LOSSES, "poisson"])
def test_a_loss_is_the_same_on_every_device_and_weighs_samples(backend: Backend, name: str) -> None:
    loss = gn.Loss.from_equation(name, LOSSES.get(name, POISSON), check=name != "poisson")
    rng = np.random.default_rng(1)
    a, y, w = rng.normal(size=(9, 3)), rng.integers(0, 2, size=(9, 3)).astype(float), rng.uniform(0.5, 2, 9)
    on_host = gn.Loss.from_equation(name, LOSSES.get(name, POISSON), check=name != "poisson")
    for weights in (None, w):
        value = on_host.forward(a, y, weights)
        expected = float(loss.forward(backend.asarray(a), y, weights))
        assert expected == pytest.approx(float(value), rel=1e-12)
        np.testing.assert_allclose(backend.to_host(loss.backward()), on_host.backward(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(value, (w @ on_host.costs) / w.sum(), rtol=1e-12)


@pytest.mark.parametrize("equation", [PRELU, "z * sigmoid(a * z) + b", "where(z > 0, 1, 0) * z + a", "a * b * z"])
def test_the_gradients_are_those_of_differences(backend: Backend, equation: str) -> None:
    parameters = {name: 0.3 for name in "ab" if name in equation.replace("abs", "")}
    rng = np.random.default_rng(2)
    for shape in ((4,), (3, 2, 5)):
        layer = gn.Activation.from_equation("own", equation, parameters=parameters)
        assert_gradients(Alone(layer, shape, backend).draw(rng), rng.normal(size=(6, *shape)) + 0.01, rng)


def test_a_number_is_not_taken_for_a_result_of_the_same_place(backend: Backend) -> None:
    a, y = np.array([[3.0], [5.0]]), np.array([[7.0], [11.0]])
    loss = gn.Loss.from_equation(
        "own", "(a + y) * (a + 1) + (a - y) * (a - 2) + a * y / 8 + a / 3 + max(a, 0) / max(a, 1)"
    )
    expected = (a + y) * (a + 1) + (a - y) * (a - 2) + a * y / 8 + a / 3 + 1
    assert float(loss.forward(backend.asarray(a), y)) == pytest.approx(expected.mean(), rel=1e-14)
    slopes = (a + 1) + (a + y) + (a - 2) + (a - y) + y / 8 + 1 / 3
    np.testing.assert_allclose(backend.to_host(loss.backward()), slopes / 2, rtol=1e-14)


def test_a_choice_of_1_and_0_is_a_number(backend: Backend) -> None:
    z = np.array([[-2.0, 0.5, 3.0]], np.float32)
    for text, expected in (
        ("z - where(z > 0, 1, 0)", [-2, -0.5, 2]), ("z + 2 * where(z > 0, 1, 0)", [-2, 2.5, 5]),
        ("z + where(z > 0, 1, 0) * where(z > 1, 1, 0)", [-2, 0.5, 4]), ("where(z > 0, sign(2), z)", [-2, 1, 1]),
        ("where(z > 0, 1, 0) / (3 + z)", [0, 2 / 7, 1 / 6]),
    ):  # fmt: skip
        a = call(backend, gn.Activation.from_equation("own", text, check=False).kernel, z, np.empty_like(z))[-1]
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, [expected], rtol=1e-6)


def test_the_gradient_may_overwrite_what_it_is_given(backend: Backend) -> None:
    for equation in (PRELU, "z * sigmoid(a * z) + z", "a + z * tanh(z)"):
        layer = gn.Activation.from_equation("own", equation, parameters={"a": 0.3})
        rng = np.random.default_rng(3)
        da, z, slope = rng.normal(size=(4, 6)), rng.normal(size=(4, 6)), np.full((4, 1), 0.3)
        *_, dz, share = call(backend, layer.gradient_kernel, da, z, slope, np.empty_like(z), np.empty_like(z))
        *_, over, beside = call(backend, layer.gradient_kernel, da, z, slope, da, np.empty_like(z))
        np.testing.assert_array_equal(over, dz)
        np.testing.assert_array_equal(beside, share)


def test_no_number_that_is_none_is_hidden_by_a_choice(backend: Backend) -> None:
    for equation in ("where(z > 0, z, 0)", "where(z > 1, 2 * z, min(max(1, z), 3))", "max(0, z)"):
        layer = gn.Activation.from_equation("own", equation, check=False)
        z = np.array([[np.nan, 2.0, -1.0]])
        assert np.isnan(call(backend, layer.kernel, z, np.empty_like(z))[-1]).tolist() == [[True, False, False]]
    loss = gn.Loss.from_equation("own", "where(a > y, a - y, 0)")
    assert np.isnan(float(loss.forward(backend.asarray(np.array([[np.nan]])), np.array([[0.0]]))))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_numpy_warns_of_nothing_on_the_way(name: str) -> None:
    layer = gn.Activation.from_equation(name, ACTIVATIONS[name])
    for dtype, largest in (("float32", 1e12), ("float64", 1e90)):  # whose cubes are floats
        z = np.r_[-np.geomspace(largest, 1e-30, 200), 0.0, np.geomspace(1e-30, largest, 200)].astype(dtype)[None, :]
        a, dz = np.empty_like(z), np.empty_like(z)
        with np.errstate(all="raise", under="ignore"):
            layer.kernel.host(z, a)
            layer.gradient_kernel.host(np.ones_like(z), a if layer.derivative_from_output else z, dz)


def test_softplus_takes_no_time_to_hold_warnings_back(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = gn.Activation.from_equation("softplus", BUNDLED["softplus"][1])
    monkeypatch.setattr(np, "errstate", None)  # calling it would raise
    a, z = np.ones((2, 3)), np.ones((2, 3))
    layer.kernel.host(z, a)
    layer.gradient_kernel.host(np.ones_like(z), a, z)


@pytest.mark.parametrize("name", LEARNED)
def test_one_that_learns_is_the_same_on_every_device(backend: Backend, name: str) -> None:
    equation, begin = LEARNED[name]
    layer = gn.Activation.from_equation(name, equation, parameters=begin)
    z, column = np.linspace(-30, 30, 242).reshape(2, 121) + 0.01, np.array([[0.4], [1.3]])
    da = np.cos(z)
    results = []
    for kernel, given in ((layer.kernel, [z, column, 0 * z]), (layer.gradient_kernel, [da, z, column, 0 * z, 0 * z])):
        on_host = [one.copy() for one in given]
        kernel.host(*on_host)
        results += zip(call(backend, kernel, *given), on_host, strict=True)
    for ours, theirs in results:
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_warnings_are_held_back_only_where_there_may_be_some() -> None:
    def is_quiet(text: str) -> bool:
        return activation_program(text, [])._is_quiet()

    for text in ("log(1 + exp(z))", "exp(-abs(z))", "sqrt(abs(z) + 1)", "exp(-max(z, 0)) - 1", "tanh(max(1, z))",
                 "z * tanh(log(1 + exp(z)))", "exp(-2 * abs(z))", "exp(-abs(z) - 3)"):  # fmt: skip
        assert is_quiet(text), text
    for text in ("exp(z)", "exp(abs(z))", "exp(-z)", "log1p(-abs(z))", "sqrt(z)", "exp(min(z, 1))", "log1p(tanh(z))",
                 "exp(abs(z) - 1)", "sqrt(max(z, -1))", "1 / z", "exp(-abs(z) * z)", "exp(1 - abs(z))"):  # fmt: skip
        assert not is_quiet(text), text


def test_a_kernel_of_an_equation_stands_in_no_registry() -> None:
    before = dict(registry)
    assert swish().kernel is swish().kernel
    huber()
    assert registry == before


# Checks at definition


@pytest.mark.parametrize(
    ("equation", "said"),
    [
        ("exp(z)", r"is inf at z = \S+: write exp\(min\(z, 80\)\), or a form"),
        ("sqrt(z)", r"nan at z = -1000: write sqrt\(max\(z, 1e-7\)\)"),
        ("sqrt(abs(z))", r"derivative of .* at z = 0: write sqrt\(max\(abs\(z\), 1e-7\)\)"),
        ("log(z)", r"write log\(max\(z, 1e-7\)\)"),
        ("1 / z", "add a small number"),
        ("z**20", r"min\(max\(z, -10\), 10\)"),
        ("z * sinh(z)", r"sinh\(min\(z, 80\)\)"),
        ("z + where(z > 0.0123456789, 1, 0)", "differences"),
    ],
)
def test_what_would_not_stay_finite_is_refused_with_the_mend_unless_allowed(equation: str, said: str) -> None:
    with pytest.raises(OptionError, match=f"{said}.*check=False") as caught:
        gn.Activation.from_equation("own", equation)
    one_line(caught.value)
    layer = gn.Activation.from_equation("own", equation, check=False)
    assert eval(repr(layer), {"Activation": gn.Activation}).kernel is layer.kernel


def test_a_loss_that_would_not_stay_finite_is_refused_with_the_mend() -> None:
    with pytest.raises(OptionError, match=r"is inf at a = \S+, y = 0: write exp\(min\(a, 80\)\)"):
        gn.Loss.from_equation("poisson", POISSON)
    gn.Loss.from_equation("poisson", "exp(min(a, 80)) - y * a")


def test_a_wrong_derivative_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    slope = code_module.slope
    monkeypatch.setattr(code_module, "slope", lambda tree, variable: slope(tree, variable) * 2)
    for kind, equation in ((gn.Activation, "z + tanh(z) / 7"), (gn.Loss, "sqrt(7 + (a - y)**2)")):
        with pytest.raises(OptionError, match="is not that of differences"):
            kind.from_equation("own", equation)


@pytest.mark.parametrize("given", [{"z": 1.0}, {"a b": 1.0}, {"a": "x"}, {"a": float("nan")}, ["a"], {"exp": 1.0}])
def test_parameters_that_cannot_be_are_refused(given: Any) -> None:
    with pytest.raises(OptionError) as caught:
        gn.Activation.from_equation("own", PRELU, parameters=given)
    one_line(caught.value)


@pytest.mark.parametrize("name", ["", "a.b", "1a", "é", None, 3, "a" * 41, "a/b"])
def test_a_name_that_cannot_be_is_refused(name: Any) -> None:
    for kind in (gn.Activation, gn.Loss):
        with pytest.raises(OptionError, match="name") as caught:
            kind.from_equation(name, SWISH if kind is gn.Activation else "(a - y)**2")
        one_line(caught.value)


def test_without_sympy_the_mend_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sympy", None)
    with pytest.raises(OptionError, match=r"pip install 'gpunn\[equations\]'") as caught:
        swish()
    one_line(caught.value)


# Networks


def test_a_network_with_equations_learns_and_is_shown() -> None:
    model = network()
    history = model.fit(data(), loss=huber(), optimizer=gn.Adam(0.01), epochs=25, **OPTIONS)
    assert history[-1].validation_loss < 0.5 * history[0].validation_loss
    assert [layer.name for layer in model.layers] == ["dense1", "swish1", "dense2", "prelu1", "dense3"]
    assert (model.arrays()["prelu1.a"] != 0.25).all()
    assert "z / (1 + exp(-z))" in model.summary()


def test_an_activation_may_stand_several_times_in_a_network() -> None:
    one, other = swish(), prelu()
    model = gn.Sequential([gn.Dense(4), one, gn.Dense(4), one, gn.Dense(4), other, gn.Dense(4), other]).build(3)
    assert [layer.name for layer in model.layers[1::2]] == ["swish1", "swish2", "prelu1", "prelu2"]
    assert len({id(layer) for layer in model.layers}) == 8
    assert gn.Activation.from_equation("relu6", "min(max(z, 0), 6)").name_prefix == "relu6_"


def test_a_frozen_parameter_stays() -> None:
    model = network()
    model.layers[3].trainable = False
    model.fit(data(), loss=huber(), epochs=2, **OPTIONS)
    np.testing.assert_array_equal(model.arrays()["prelu1.a"], np.full(5, np.float32(0.25)))


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_learns_for_itself(way: Any) -> None:
    model = network()
    model.fit(data(), loss=huber(), epochs=1, **OPTIONS)
    other, x = way(model), data().train.inputs
    before = model.predict(x)
    np.testing.assert_array_equal(other.predict(x), before)
    other.fit(data(1), loss=huber(), epochs=1, **OPTIONS)
    np.testing.assert_array_equal(model.predict(x), before)


def test_memory_is_counted_as_that_of_the_bundled_ones() -> None:
    def nbytes(activation: gn.Layer) -> int:
        model = gn.Sequential([gn.Dense(64), activation, gn.Dense(8)]).build(10, 32, "cpu")
        return count_network(model.layers, (10,), 32, model._built(), "float32").nbytes

    assert nbytes(gn.Activation.from_equation("leaky", BUNDLED["leaky"][1])) == nbytes(gn.LeakyReLU())
    assert nbytes(gn.Activation.from_equation("sigmoid", BUNDLED["sigmoid"][1])) == nbytes(gn.Sigmoid())
    # A value and a gradient for each unit, and the share of every element in it.
    assert nbytes(prelu()) - nbytes(gn.LeakyReLU()) == 4 * 64 * (256 + 2)


# Shown


def test_it_is_shown_with_its_derivative() -> None:
    assert str(swish()) == "swish\n  f(z) = z*sigmoid(z)\n  f′(z) = z*(1 - sigmoid(z))*sigmoid(z) + sigmoid(z)"
    assert str(prelu()).splitlines()[-1] == "  ∂f/∂a = where(z > 0, 0, z)"
    assert repr(swish()) == f"Activation.from_equation('swish', {SWISH!r})"
    assert repr(prelu()) == f"Activation.from_equation('prelu', {PRELU!r}, parameters={{'a': 0.25}})"
    assert repr(huber()) == "Loss.from_equation('huber', 'sqrt(1 + (a - y)**2) - 1')"
    assert r"\begin{cases}" in prelu()._repr_latex_()  # type: ignore[attr-defined]
    assert r"\sqrt" in huber()._repr_latex_()  # type: ignore[attr-defined]


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name not in ("max", "min", "where")])
def test_every_function_is_shown_and_derived_also_in_a_power(function: str) -> None:
    for text in (f"{function}(z)", f"{function}(z)**2", f"z / {function}(z)**3", f"{function}(max(z, 1)**2)**-0.5"):
        layer = gn.Activation.from_equation("own", text, check=False)
        assert layer._repr_latex_()  # type: ignore[attr-defined]
        assert "f′(z)" in str(layer)


def test_choices_and_extremes_are_shown_in_powers() -> None:
    for text in ("1 / max(z, 1)**2", "min(z, 2)**2", "z / where(z > 1, z, 1)**3", "where(max(z, 1) >= z**2, z, 1) + z"):
        layer = gn.Activation.from_equation("own", text, check=False)
        assert "^{" in layer._repr_latex_()  # type: ignore[attr-defined]


# Files


def test_a_file_holds_the_equation() -> None:
    assert to_config(swish()) == {"type": "Equation", "equation": SWISH, "name_prefix": "swish", "check": True}
    again = from_config("layer", to_config(prelu(0.5)))
    assert repr(again) == repr(prelu(0.5))
    assert from_config("loss", {"type": "Equation", "equation": "(a - y)**2"}).name == "equation"


def test_a_network_is_loaded_in_a_fresh_process_without_code_of_ones_own(tmp_path: Path) -> None:
    model = network()
    model.fit(data(), loss=huber(), epochs=2, **OPTIONS)
    model.save(tmp_path / "own.safetensors")
    np.save(tmp_path / "x.npy", data().train.inputs)
    program = (
        "import numpy as np, gpunn as gn, sys; assert 'sympy' not in sys.modules; "
        "model = gn.load_model('own.safetensors', 'cpu'); np.save('y.npy', model.predict(np.load('x.npy'))); "
        "print(model.layers[1], model.loss)"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "f′(z)" in ran.stdout
    assert "huber" in ran.stdout
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model.predict(data().train.inputs))


RECIPE = """
name = "own"
[data]
source = "arrays.npz"
[training]
epochs = 3
batch_size = 8
device = "cpu"
[[layers]]
type = "Dense"
units = 6
[[layers]]
type = "Equation"
equation = "z / (1 + exp(-z))"
[[layers]]
type = "Dense"
units = 6
[[layers]]
type = "Equation"
name_prefix = "prelu"
equation = "where(z > 0, z, a * z)"
parameters = { a = 0.25 }
[[layers]]
type = "Dense"
units = "outputs"
[loss]
type = "Equation"
equation = "sqrt(1 + (a - y)**2) - 1"
[optimizer]
type = "Adam"
[checkpoints]
every = 5
keep = 9
"""


@pytest.mark.usefixtures("plain")
def test_a_run_of_equations_resumes_to_the_same_bits(folder: Path) -> None:
    assert_resumes_to_the_same_bytes(folder, RECIPE, data().train)


def test_an_experiment_with_a_hostile_equation_is_refused_in_one_line(folder: Path) -> None:
    (folder / "own.toml").write_text(RECIPE.replace("z / (1 + exp(-z))", "z.__class__"))
    ran = gpunn("train", "--recipe", "own.toml", "--out", "run")
    assert ran.code == 2
    assert len(ran.err.strip().splitlines()) == 1
    assert "attribute at character 1" in ran.err


def test_kernels_are_kept_by_what_they_are_made_of() -> None:
    assert activation_code(SWISH, (), True).kernel is swish().kernel
    assert prelu(0.1).kernel.name == prelu(0.2).kernel.name
