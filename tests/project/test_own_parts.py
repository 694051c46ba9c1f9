"""Parts of one's own, defined outside the package: each kind trains, is saved, loaded, shown, and resumed."""

import ast
import copy
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.checkpoint_helpers import calling
from support.cli_helpers import assert_resumes_to_the_same_bytes, own_folder, without_pictures
from support.harness import one_line

import gpunn as gn
from gpunn.backend.cuda import CupyBackend
from gpunn.config import PARTS, from_config, to_built_config, to_config
from gpunn.errors import DeviceError, ModelFileError, OptionError
from gpunn.kernels import Elementwise, Raw, registry
from gpunn.nn.footprint import count_network
from gpunn.train.arguments import TrainOptions
from gpunn.train.trainer import Trainer

folder = pytest.fixture(own_folder)
plain = pytest.fixture(without_pictures)


def _swish(z: Any, beta: float, a: Any) -> None:
    a[...] = z / (1 + np.exp(-beta * z))


def _swish_gradient(da: Any, z: Any, beta: float, dz: Any) -> None:
    s = 1 / (1 + np.exp(-beta * z))
    dz[...] = da * (s + beta * z * s * (1 - s))


@gn.register
class Swish(gn.Activation):
    """f(z) = z sigmoid(βz), with NumPy alone; its argument has no annotation."""

    name_prefix = "swish"
    kernel = Raw("own_swish", host=_swish)
    gradient_kernel = Raw("own_swish_gradient", host=_swish_gradient)
    derivative_from_output = False
    output_is_free = True

    def __init__(self, beta=1.0):  # type: ignore[no-untyped-def]  # as many a notebook has it
        self.beta = beta

    def _constants(self) -> tuple[Any, ...]:
        return (self.beta,)


@gn.register
class Gain(gn.Layer):
    """y = g x, one g a feature, that begins with numbers of an initializer of one's own."""

    name_prefix = "gain"

    def __init__(self, *, begin: gn.Initializer | None = None) -> None:
        self.begin = begin

    def build(self, context: Any, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        self.g = context.parameter("g", input_shape, self.begin or Near(1.0))
        self._y, self._dx = context.buffer(input_shape), context.buffer(input_shape)
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        self._x = x
        return np.multiply(x, self.g.value[:, None], out=self._y[x.shape[-1]])

    def backward(self, dy: Any) -> Any:
        np.sum(dy * self._x, axis=1, out=self.g.grad)
        return np.multiply(dy, self.g.value[:, None], out=self._dx[dy.shape[-1]])


@gn.register
class Around(gn.Layer):
    """y = x + f(x), f a layer within this one."""

    def __init__(self, inner: gn.Layer) -> None:
        self.inner = inner

    def build(self, context: Any, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        needs, context.needs_input_gradient = context.needs_input_gradient, True
        shape = self.inner.build(context, input_shape)
        context.needs_input_gradient = needs
        self._y, self._dx = context.buffer(shape), context.buffer(shape)
        return shape

    def forward(self, x: Any, training: bool) -> Any:
        return np.add(x, self.inner.forward(x, training), out=self._y[x.shape[-1]])

    def backward(self, dy: Any) -> Any:
        return np.add(dy, self.inner.backward(dy), out=self._dx[dy.shape[-1]])


def _scaled(
    z: Any, bias: Any, t: Any, weight: float, gradient: Any, db: Any, costs: Any, totals: Any, each: bool, factor: float
) -> None:
    difference = z + bias[:, None] - t
    costs[...] = factor * np.square(difference).sum(axis=0)
    gradient[...] = 2 * factor / z.shape[1] * difference
    db[...] = gradient.sum(axis=1)
    totals[0] += weight * costs.sum()


@gn.register
class Scaled(gn.Loss):
    """factor · ‖a − y‖²; the factor must be given."""

    kernel = Raw("own_scaled", host=_scaled)

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def _constants(self) -> tuple[Any, ...]:
        return (self.factor,)


@gn.register
class SignSGD(gn.Optimizer):
    """p := p − η sign v, v := μ v + g. It says nothing of the clock."""

    def __init__(self, learning_rate: float | gn.Schedule = 0.01, mu: float = 0.5) -> None:
        super().__init__(learning_rate)
        self.mu = mu

    def _build(self) -> None:
        self._velocity = self._zeros()

    def update(self, rates: Any, clock: Any) -> None:
        self._velocity *= self.mu
        self._velocity += self.parameters.gradients
        self.parameters.learned[...] -= rates[int(clock[0])] * np.sign(self._velocity)

    @property
    def state(self) -> dict[str, Any]:
        return {"velocity": self._velocity}


@gn.register
class Falling(gn.Schedule):
    """η / (1 + epoch)."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def rates(self, epochs: NDArray[Any], total: int) -> NDArray[Any]:
        return self.rate / (1 + epochs)


@gn.register
class Elastic(gn.Regularizer):
    """L1 and L2, one as strong as the other."""

    def coefficients(self, n: int) -> tuple[float, float]:
        return self.strength / n, self.strength / n

    def cost(self, weights: NDArray[Any], n: int) -> float:
        return self.strength / n * float(np.abs(weights).sum() + np.square(weights).sum() / 2)


@gn.register
class Near(gn.Initializer):
    """Uniform on center ± 0.1."""

    def __init__(self, center: float = 0.0) -> None:
        self.center = center

    def __call__(self, shape: tuple[int, ...], fan_in: int, fan_out: int, generator: Any) -> NDArray[Any]:
        return np.asarray(generator.uniform(self.center - 0.1, self.center + 0.1, shape))


# Only the tests of this file know them.
OWN = {
    kind: {name: part for name, part in parts.items() if part.__module__ == __name__} for kind, parts in PARTS.items()
}
for kind, parts in OWN.items():
    for name in parts:
        del PARTS[kind][name]
for kernel in (Swish.kernel, Swish.gradient_kernel, Scaled.kernel):
    del registry[kernel.name]


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    before = set(registry)
    for kind, parts in OWN.items():
        PARTS[kind].update(parts)
    yield
    for kind, parts in OWN.items():
        for name in parts:
            del PARTS[kind][name]
    for name in set(registry) - before:
        del registry[name]


def data(seed: int = 0, count: int = 60, validation: float = 0.2) -> gn.Data:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 5))
    return gn.Data.from_arrays(x, x @ rng.normal(size=(5, 2)), validation=validation)


def layers() -> list[Any]:
    return [gn.Dense(6, weights=Near()), Swish(1.5), Gain(begin=Near(1.0)), Around(gn.Dense(6)), "swish", gn.Dense(2)]


def options() -> dict[str, Any]:
    return {
        "loss": Scaled(0.5),
        "optimizer": SignSGD(Falling(0.1)),
        "regularizer": Elastic(0.1),
        "batch_size": 8,
        "device": "cpu",
        "progress": False,
    }


@pytest.fixture(scope="module")
def trained() -> gn.Sequential:
    model = gn.Sequential(layers())
    model.fit(data(), epochs=6, **options())
    return model


def test_parts_of_ones_own_learn() -> None:
    history = gn.Sequential(layers()).fit(data(), epochs=12, **options())
    assert history[-1].validation_loss < 0.5 * history[0].validation_loss
    assert history[-1].penalty > 0


def test_a_network_of_ones_own_parts_is_saved_and_loaded(trained: gn.Sequential, tmp_path: Path) -> None:
    trained.save(tmp_path / "own.safetensors")
    again = gn.load_model(tmp_path / "own.safetensors", "cpu")
    x = data().train.inputs
    np.testing.assert_array_equal(again.predict(x), trained.predict(x))
    assert [to_built_config(layer) for layer in again.layers] == [to_built_config(layer) for layer in trained.layers]
    assert isinstance(again.loss, Scaled)
    assert again.loss.factor == 0.5
    again.fit(data(), epochs=1, **options())


def test_ones_own_layers_stand_in_the_summary(trained: gn.Sequential) -> None:
    for words in ("Swish(beta=1.5)", "Gain(begin=", "Around(inner="):
        assert words in trained.summary()


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_network_with_layers_in_layers_learns_for_itself(trained: gn.Sequential, way: Any) -> None:
    other = way(trained)
    x, before = data().train.inputs, trained.predict(data().train.inputs)
    np.testing.assert_array_equal(other.predict(x), before)
    other.fit(data(1), epochs=1, **options())
    np.testing.assert_array_equal(trained.predict(x), before)


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
weights = { type = "Near", center = 0.1 }
[[layers]]
type = "Swish"
beta = 1.5
[[layers]]
type = "Gain"
[[layers]]
type = "Around"
inner = { type = "Dense", units = 6 }
[[layers]]
type = "Dense"
units = "outputs"
[loss]
type = "Scaled"
factor = 0.5
[optimizer]
type = "SignSGD"
learning_rate = { type = "Falling", rate = 0.1 }
[regularizer]
type = "Elastic"
strength = 0.1
[checkpoints]
every = 5
keep = 9
"""


@pytest.mark.usefixtures("plain")
def test_a_run_of_ones_own_parts_resumes_to_the_same_bits(folder: Path) -> None:
    assert_resumes_to_the_same_bytes(folder, RECIPE, data(validation=0).train)


# What stands for a layer of gpunn is not taken for one


class ElsewhereBack(gn.ReLU):
    """max(z, 0), and back-propagated as something else."""

    gradient_kernel = gn.Sigmoid.gradient_kernel


class Doubled(gn.ReLU):
    def forward(self, x: Any, training: bool) -> Any:
        return np.multiply(super().forward(x, training), 2, out=x)


class Halved(gn.ReLU):
    def backward(self, dy: Any) -> Any:
        return super().backward(dy / 2)


@pytest.mark.parametrize("activation", [ElsewhereBack, Doubled, Halved])
def test_a_subclass_of_an_activation_is_not_made_one_with_the_bias_before(activation: type[gn.Layer]) -> None:
    def stages(kind: type[gn.Layer]) -> list[type]:
        model = gn.Sequential([gn.Dense(3), kind(), gn.Dense(2)]).build((5,), 8, "cpu")
        return [type(stage) for stage in model.stages]

    assert activation in stages(activation)
    assert gn.ReLU not in stages(gn.ReLU)


def test_pooling_stays_behind_an_activation_of_ones_own_that_may_fall() -> None:
    model = gn.Sequential([gn.Conv2D(2, 3), Swish(), gn.MaxPool2D(2), gn.Flatten(), gn.Dense(2)])
    names = [type(stage).__name__ for stage in model.build((8, 8, 1), 4, "cpu").stages]
    assert names.index("Swish") < names.index("MaxPool2D")


# What cannot be loaded is not saved


class Unregistered(gn.Layer):
    name_prefix = "unregistered"

    def build(self, context: Any, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return input_shape

    def forward(self, x: Any, training: bool) -> Any:
        return x

    def backward(self, dy: Any) -> Any:
        return dy


@pytest.fixture
def registering() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    before = {kind: dict(parts) for kind, parts in PARTS.items()}
    yield
    for kind, parts in PARTS.items():
        parts.clear()
        parts.update(before[kind])


def refused(part: gn.Layer, path: Path) -> str:
    model = gn.Sequential([part, gn.Dense(2)])
    model.fit(data(), epochs=1, device="cpu", progress=False)
    path.write_text("what was there")
    with pytest.raises(OptionError) as caught:
        model.save(path)
    assert path.read_text() == "what was there"
    one_line(caught.value)
    return str(caught.value)


def test_a_layer_that_is_not_registered_trains_and_is_not_saved(tmp_path: Path) -> None:
    assert "Unregistered" in (said := refused(Unregistered(), tmp_path / "file"))
    assert "@gn.register" in said


@pytest.mark.usefixtures("registering")
def test_a_layer_that_does_not_keep_an_argument_is_not_saved(tmp_path: Path) -> None:
    @gn.register
    class Forgetful(Unregistered):
        def __init__(self, slope: float = 2.0) -> None:
            self._slope = slope

    assert repr(Forgetful()) == "Forgetful()"
    assert re.search("Forgetful .*slope", refused(Forgetful(), tmp_path / "file"))


@pytest.mark.usefixtures("registering")
def test_a_layer_with_an_argument_that_no_file_holds_is_not_saved(tmp_path: Path) -> None:
    @gn.register
    class Mask(Unregistered):
        def __init__(self, mask: Any) -> None:
            self.mask = mask

    assert re.search("Mask .*mask", refused(Mask(np.ones(5)), tmp_path / "file"))
    assert re.search("Mask .*mask", refused(Mask(float("nan")), tmp_path / "file"))


@pytest.mark.usefixtures("registering")
def test_a_layer_that_is_made_otherwise_from_what_it_keeps_is_not_saved(tmp_path: Path) -> None:
    @gn.register
    class Doubling(Unregistered):
        def __init__(self, width: int = 2) -> None:
            self.width = 2 * width

    assert re.search("Doubling .*width", refused(Doubling(3), tmp_path / "file"))


def test_a_loss_that_is_not_registered_is_not_saved(tmp_path: Path) -> None:
    class Other(Scaled):
        pass

    model = gn.Sequential([gn.Dense(2)])
    model.fit(data(), loss=Other(1.0), epochs=1, device="cpu", progress=False)
    with pytest.raises(OptionError, match="Other"):
        model.save(tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_file_that_names_an_unknown_part_says_which_and_what_to_do(trained: gn.Sequential, tmp_path: Path) -> None:
    trained.save(tmp_path / "own.safetensors")
    known = PARTS["layer"].pop("Swish")
    try:
        with pytest.raises(ModelFileError, match=r"layer '.*:Swish'.*custom=\[Swish\].*@gn\.register") as caught:
            gn.load_model(tmp_path / "own.safetensors")
    finally:
        PARTS["layer"]["Swish"] = known
    one_line(caught.value)


# Names


def test_a_layer_is_named_after_its_class_where_it_says_nothing_else() -> None:
    model = gn.Sequential([gn.Conv2D(1, size=1), gn.Flatten(), Around(gn.Dense(6)), Doubled()]).build((2, 3, 1))
    assert [layer.name for layer in model.layers] == ["conv1", "flatten1", "around1", "relu1"]


def test_the_old_names_of_attributes_of_a_layer_are_taken_and_said_to_be_old() -> None:
    with pytest.warns(DeprecationWarning, match="family of Old is now name_prefix"):

        class Old(Unregistered):
            family = "older"

    assert Old.name_prefix == "older"
    with pytest.warns(DeprecationWarning, match="hands_gradient_on of Older is now aliases_gradient"):

        class Older(Unregistered):
            hands_gradient_on = True

    assert Older.aliases_gradient


@pytest.mark.usefixtures("registering")
def test_a_cell_that_is_run_twice_replaces_what_it_defined() -> None:
    def cell() -> type[gn.Layer]:
        Elementwise("own_cell", host=lambda z, a: None)

        @gn.register
        class Cell(Unregistered):
            pass

        return Cell

    first, second = cell(), cell()
    assert first is not second
    assert type(from_config("layer", "Cell")) is second
    # A network that was made before is loaded as the new one.
    assert to_config(first()) == {"type": "Cell"}


@pytest.mark.parametrize("name", ["Dense", "ReLU", "Relu", "dense"])
def test_a_name_of_gpunn_is_not_taken_from_it(name: str) -> None:
    with pytest.raises(OptionError, match=rf"{name}.*gpunn") as caught:
        gn.register(type(name, (Unregistered,), {}))
    one_line(caught.value)
    assert PARTS["layer"]["Dense"] is gn.Dense


def test_a_name_may_be_that_of_a_part_of_another_kind() -> None:
    assert from_config("schedule", {"type": "Constant", "rate": 0.1}).rate == 0.1
    assert from_config("initializer", {"type": "Constant", "value": 0.1}).value == 0.1


@pytest.mark.usefixtures("registering")
def test_a_part_of_another_module_does_not_take_a_name_silently() -> None:
    other = type("Swish", (Unregistered,), {"__module__": "elsewhere"})
    with pytest.raises(OptionError, match=r"Swish.*test_own_parts"):
        gn.register(other)
    from_notebook = type("Swish", (Unregistered,), {"__module__": "__main__"})
    assert gn.register(from_notebook) is from_notebook
    with pytest.raises(OptionError, match="Swish"):
        to_config(Swish())


@pytest.mark.parametrize("thing", [int, Elementwise, 3, Swish(), gn.Layer], ids=str)
def test_what_is_no_part_is_not_registered(thing: Any) -> None:
    with pytest.raises(OptionError, match=r"gn\.Layer") as caught:
        gn.register(thing)
    one_line(caught.value)


def test_a_part_whose_arguments_no_file_could_give_is_not_registered() -> None:
    class Loose(Unregistered):
        def __init__(self, **sizes: int) -> None:
            self.sizes = sizes

    with pytest.raises(OptionError, match=r"Loose.*\*\*sizes"):
        gn.register(Loose)


@pytest.mark.usefixtures("registering")
def test_arguments_of_any_number_are_a_list_in_a_file() -> None:
    @gn.register
    class Several(Unregistered):
        def __init__(self, *sizes: int, scale: float = 1.0) -> None:
            self.sizes, self.scale = sizes, scale

    config = to_config(Several(3, 4, scale=0.5))
    assert config == {"type": "Several", "sizes": [3, 4], "scale": 0.5}
    assert repr(from_config("layer", config)) == "Several(3, 4, scale=0.5)"
    with pytest.raises(OptionError, match="sizes of Several must be a list, got 3"):
        from_config("layer", {"type": "Several", "sizes": 3})


@pytest.mark.usefixtures("registering")
def test_a_loss_of_ones_own_may_be_called_as_one_likes() -> None:
    @gn.register
    class MSE(gn.Loss):
        kernel = gn.MeanSquaredError.kernel

    model = gn.Sequential([gn.Dense(2)])
    model.fit(data(), loss="mse", epochs=1, device="cpu", progress=False)
    assert isinstance(model.loss, MSE)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (None, 1e-5, ""),
        (None, "x", ""),
        (float, 1e-5, ""),
        (float | None, 0.5, ""),
        ("float | None", 0.5, ""),
        ("Optional[float]", 0.5, ""),
        ("typing.Literal['a']", "a", ""),
        (float, "x", "a number"),
        (int, 1.5, "a whole number"),
        (bool, 1, "true or false"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("registering")
def test_an_argument_is_checked_by_its_annotation_where_it_has_one(annotation: Any, value: Any, message: str) -> None:
    class Option(Unregistered):
        def __init__(self, option=None):  # type: ignore[no-untyped-def]
            self.option = option

    if annotation is not None:
        Option.__init__.__annotations__["option"] = annotation
    gn.register(Option)
    config = {"type": "Option", "option": value}
    if message:
        with pytest.raises(OptionError, match=f"option of Option must be {message}"):
            from_config("layer", config)
    else:
        assert from_config("layer", config).option == value


# Defects that were found from outside


def test_validation_keeps_the_arguments_of_a_loss() -> None:
    def losses(factor: float) -> tuple[float, float]:
        model = gn.Sequential([gn.Dense(2)])
        record = model.fit(data(), loss=Scaled(factor), epochs=1, batch_size=60, device="cpu", progress=False)[0]
        return record.train_loss, record.validation_loss

    (train, validation), (train_7, validation_7) = losses(1.0), losses(7.0)
    assert train_7 == pytest.approx(7 * train)
    assert validation_7 / train_7 < 7 * validation / train  # after a step of another length, but not 7 times off
    model = gn.Sequential([gn.Dense(2)])
    model.fit(data(), loss=Scaled(7.0), epochs=1, device="cpu", progress=False)
    x, t = data().validation.inputs, data().validation.targets  # type: ignore[union-attr]
    expected = 7 * np.square(model.predict(x) - t).sum(axis=1).mean()
    assert model.evaluate(data().validation).loss == pytest.approx(expected, rel=1e-5)  # type: ignore[arg-type]


class _Forgets(gn.SGD):
    """It has a kernel that ends the step for its base class, and does not call it."""

    def update(self, rates: Any, clock: Any) -> None:
        self.parameters.learned[...] -= rates[int(clock[0])] * self.parameters.gradients


@pytest.mark.parametrize("optimizer", [SignSGD(0.1, 0.0), _Forgets(0.1), gn.SGD(0.1), gn.Adam()], ids=repr)
def test_an_optimizer_cannot_forget_to_end_the_step(optimizer: gn.Optimizer) -> None:
    trainer = Trainer(
        gn.Sequential([gn.Dense(2)]),
        TrainOptions(optimizer=optimizer, batch_size=8, device="cpu", progress=False),
        data(),
    )
    places = []
    with calling(trainer, lambda: places.append(tuple(int(place) for place in trainer.model.clock))):
        trainer.run()
    steps = trainer.step.steps_per_epoch
    assert places == [(n % steps, n, n % steps + 1, n + 1) for n in range(trainer.steps)]


def test_an_optimizer_without_a_word_about_the_clock_learns_as_sgd_does() -> None:
    class Plain(gn.Optimizer):
        def _build(self) -> None:
            pass

        def update(self, rates: Any, clock: Any) -> None:
            self.parameters.learned[...] -= rates[int(clock[0])] * self.parameters.gradients

    mine, known = gn.Sequential([gn.Dense(2)]), gn.Sequential([gn.Dense(2)])
    for model, optimizer in ((mine, Plain(0.05)), (known, gn.SGD(0.05))):
        model.fit(data(), optimizer=optimizer, epochs=3, batch_size=8, device="cpu", progress=False)
    for name, array in known.arrays().items():
        np.testing.assert_allclose(mine.arrays()[name], array, rtol=1e-5, atol=1e-6)


def test_a_kernel_that_is_defined_again_replaces_the_first() -> None:
    first, second = (Elementwise("own_twice", host=lambda z, a: None) for _ in range(2))
    assert registry["own_twice"] is second is not first


def test_counting_memory_leaves_layers_in_layers_as_they_are(trained: gn.Sequential) -> None:
    x, before = data().train.inputs, trained.predict(data().train.inputs)
    inner = trained.layers[3].inner  # type: ignore[attr-defined]
    held = dict(vars(inner))
    assert count_network(trained.layers, trained.input_shape, 512, trained._built(), "float32").nbytes > 0
    assert {name: id(value) for name, value in vars(inner).items()} == {name: id(v) for name, v in held.items()}
    assert inner._z[1].strides != (0, 0)
    np.testing.assert_array_equal(trained.predict(x), before)


def test_a_layer_in_a_layer_that_goes_to_another_network_is_one_of_its_own(trained: gn.Sequential) -> None:
    x, before = data().train.inputs, trained.predict(data().train.inputs)
    other = gn.Sequential(trained.layers)
    assert other.layers[3].inner is not trained.layers[3].inner  # type: ignore[attr-defined]
    other.fit(data(1), epochs=1, **options())
    np.testing.assert_array_equal(trained.predict(x), before)


def test_the_link_of_the_checkpoints_is_looked_at_once() -> None:
    tree = ast.parse((Path(gn.__file__).parent / "experiments" / "run.py").read_text("utf-8"))
    assert sum(isinstance(node, ast.Attribute) and node.attr == "is_symlink" for node in ast.walk(tree)) == 1


def test_a_kernel_without_cuda_source_says_on_cuda_that_it_is_for_the_cpu() -> None:
    elementwise, raw = Elementwise("own_elementwise", host=lambda z, a: None), Raw("own_raw", host=lambda z, a: None)
    device = object.__new__(CupyBackend)
    device._compiled, device.cupy = {}, SimpleNamespace(ElementwiseKernel=pytest.fail, RawKernel=pytest.fail)
    for kernel, compiled in (
        (elementwise, lambda: device._elementwise(elementwise)),
        (raw, lambda: device._raw(raw, (np.ones(1, np.float32),))),
    ):
        with pytest.raises(DeviceError, match=rf"{kernel.name} .*CPU only.*device='cpu'") as caught:
            compiled()
        one_line(caught.value)


@pytest.mark.gpu
def test_a_network_with_such_a_kernel_is_not_trained_on_a_gpu() -> None:
    with pytest.raises(DeviceError, match=r"own_swish .*CPU only.*device='cpu'") as caught:
        gn.Sequential([gn.Dense(3), Swish(), gn.Dense(2)]).fit(data(), epochs=1, device="cuda", progress=False)
    one_line(caught.value)
