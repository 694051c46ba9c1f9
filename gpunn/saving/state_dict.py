"""Convert weights to and from PyTorch's state dicts.

    Dense, Conv2D, ConvTranspose2D    w, b                           weight, bias
    BatchNorm                         gamma, beta, mean, variance    weight, bias, running_mean, running_var
    LayerNorm                         gamma, beta                    weight, bias
    Embedding                         w                              weight

Arrays have the same shapes and meanings; both libraries update running_var by the unbiased variance of a batch.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.checks import as_array
from gpunn.errors import DataError, ModelFileError, OptionError, ShapeError
from gpunn.files import as_path, open_regular
from gpunn.nn.layers.base import Layer
from gpunn.nn.network import Network
from gpunn.nn.parameter import Arrays
from gpunn.saving.safetensors import read_header, read_values

_WORDS = {"w": "weight", "b": "bias", "gamma": "weight", "beta": "bias"}
_WORDS |= {"mean": "running_mean", "variance": "running_var"}
_DEFAULTS = {"weight": 1.0, "bias": 0.0}  # for a BatchNorm with affine=False
_COUNT = "num_batches_tracked"
_MOST_HEADER = 8 << 20  # bytes
_PICKLES = b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"


@dataclass(frozen=True)
class _Place:
    """A layer with weights: its name, its name in `torch.nn.Sequential`, and its arrays by PyTorch's words."""

    name: str
    path: str
    words: dict[str, str]  # names of its arrays in the network
    shapes: dict[str, tuple[int, ...]]

    @property
    def is_batchnorm(self) -> bool:
        return "running_var" in self.words

    def fits(self, group: Mapping[str, Any]) -> bool:
        """Return whether words and shapes of a module's arrays match this layer."""
        missing = self.words.keys() - group.keys()
        if not group.keys() <= self.words.keys() or missing - (_DEFAULTS.keys() if self.is_batchnorm else set()):
            return False
        return all(tuple(np.shape(group[word])) == self.shapes[word] for word in group)


def state_dict(model: Network, names: Sequence[str] | None = None) -> Arrays:
    """Return copies of weights and statistics by PyTorch's names; see `Sequential.state_dict`."""
    arrays, made = model.arrays(), Arrays()
    for place, module in _named(model, arrays, names):
        for word, name in place.words.items():
            made[f"{module}.{word}"] = arrays[name]
        if place.is_batchnorm:
            made[f"{module}.{_COUNT}"] = np.array(model.steps_trained)
    return made


def load_state_dict(
    model: Network, source: Mapping[str, Any] | str | os.PathLike[str], names: Sequence[str] | None = None
) -> dict[str, str]:
    """Load weights and statistics of a PyTorch model into a built network.

    Modules are matched by the names of `model.state_dict()`. If these differ, each layer takes the first remaining
    module of its kind and shapes, in the order of the state dict. A file has no order: where several modules fit, and
    their names differ by more than numbers, give `names`.

    Args:
        model: Built network.
        source: State dict, a mapping of names to arrays or tensors, or the path of its safetensors file.
        names: Names of the modules with weights, such as ["conv1", "bn1", "fc"], in the order of the layers.

    Returns:
        Name of the source module for each layer with weights.

    Raises:
        GpunnError: The network is not built.
        ModelFileError: The file is no safetensors file, or damaged. A .pt file is a pickle, which can execute code.
        ShapeError, DataError: The modules do not fit the layers, or values are not numbers.
        OptionError: Several modules of a file fit a layer, or the number of names differs from the number of layers.
    """
    if not isinstance(model, Network):
        raise OptionError(f"load_state_dict takes a network first, got {type(model).__name__}")
    with model.lock:
        arrays, is_file = model.arrays(), isinstance(source, str | os.PathLike)
        found = _read(source) if isinstance(source, str | os.PathLike) else source
        if not isinstance(found, Mapping):
            mend = "give module.state_dict(), or the path of a safetensors file"
            raise OptionError(f"expected a state dict of names and arrays, got {type(source).__name__}: {mend}")
        groups = _groups(found)
        taken = _matched(_places(model, arrays), groups, names, ordered=not is_file)
        for place, module in taken:
            for word, name in place.words.items():
                own = arrays[name]
                value = groups[module].get(word)
                arrays[name] = np.full_like(own, _DEFAULTS[word]) if value is None else value.astype(own.dtype)
        model.load_arrays(arrays)
        model.optimizer_memory = None  # its moments belong to other weights
        return {place.name: module for place, module in taken}


def _walk(layers: Sequence[Layer], before: str = "") -> Iterator[tuple[Layer, str]]:
    """Yield every layer with its name in `torch.nn.Sequential`."""
    for number, layer in enumerate(layers):
        path = f"{before}{number}"
        yield layer, path
        own, *others = layer.branches or ([],)
        if getattr(layer, "layers", None) is own:  # one chain, perhaps with a projection beside it
            yield from _walk(own, f"{path}.")
            for projection in (each for branch in others for each in branch):
                yield projection, f"{path}.projection"
                yield from _walk(getattr(projection, "layers", ()), f"{path}.projection.")
        else:
            for at, branch in enumerate(layer.branches):
                yield from _walk(branch, f"{path}.{at}.")


def _places(model: Network, arrays: Mapping[str, NDArray[Any]]) -> list[_Place]:
    """Return the layers with weights or statistics, in the order of the network."""
    of_layers: dict[str, list[str]] = {}
    for name in arrays:
        of_layers.setdefault(name.rpartition(".")[0], []).append(name)
    places = []
    for layer, path in _walk(model.layers):
        words = {}
        for name in of_layers.get(layer.name, ()):
            word = name.rpartition(".")[2]
            words[_WORDS.get(word, word)] = name
        if words:
            shapes = {word: arrays[name].shape for word, name in words.items()}
            places.append(_Place(layer.name, path, words, shapes))
    return places


def _named(model: Network, arrays: Mapping[str, NDArray[Any]], names: Sequence[str] | None) -> list[tuple[_Place, str]]:
    """Return the layers with weights and a name for each, by default its number."""
    places = _places(model, arrays)
    if names is None:
        return [(place, place.path) for place in places]
    return list(zip(places, _checked_names(names, places), strict=True))


def _checked_names(names: Any, places: Sequence[_Place]) -> list[str]:
    is_list = isinstance(names, list | tuple) and all(isinstance(name, str) and name for name in names)
    if not is_list or len(names) != len(places) or len({*names}) < len(names):
        of = ", ".join(place.name for place in places)
        raise OptionError(f"names are {len(places)} different texts, for {of:.200}; got {names!r:.100}")
    return list(names)


def _groups(found: Mapping[str, Any]) -> dict[str, dict[str, NDArray[Any]]]:
    """Group the arrays of a state dict by module, then by word."""
    groups: dict[str, dict[str, NDArray[Any]]] = {}
    for key, value in found.items():
        if not isinstance(key, str):
            raise DataError(f"a state dict has names of text, got {key!r:.60}")
        module, _, word = key.rpartition(".")
        if word == _COUNT:
            continue
        if isinstance(value, Mapping):
            inner = "; perhaps the state dict is in it" if value else ""
            raise DataError(f"a state dict has arrays, got a {type(value).__name__} for {key!r:.60}{inner}")
        groups.setdefault(module, {})[word] = _as_floats(value, key)
    return groups


def _as_floats(value: Any, key: str) -> NDArray[Any]:
    """Return a tensor as an array on the host; bfloat16 as float32, since NumPy lacks it."""
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        value = value.float()
    return as_array(value, f"the values of {key!r:.60}")


def _matched(
    places: Sequence[_Place],
    groups: Mapping[str, Mapping[str, NDArray[Any]]],
    names: Sequence[str] | None,
    *,
    ordered: bool,
) -> list[tuple[_Place, str]]:
    """Match each layer with a module; raise an error where none fits."""
    left = list(groups)
    if names is not None:
        wanted = _checked_names(names, places)
    elif {place.path for place in places} == set(left):
        wanted = [place.path for place in places]
    else:
        return _by_shapes(places, groups, left if ordered else sorted(left, key=_natural), ordered=ordered)
    for place, name in zip(places, wanted, strict=True):
        if name not in groups:
            raise DataError(f"there is no module {name!r:.60} for {place.name}: there are {_listed(left)}")
        if not place.fits(groups[name]):
            raise ShapeError(f"{name!r:.60} is {_shown(groups[name])}, and {place.name} takes {_shown(place.shapes)}")
    if others := [name for name in left if name not in wanted]:
        raise ShapeError(f"{others[0]!r:.60}, {_shown(groups[others[0]])}, is left over: no layer takes it")
    return list(zip(places, wanted, strict=True))


def _by_shapes(
    places: Sequence[_Place], groups: Mapping[str, Mapping[str, NDArray[Any]]], left: list[str], *, ordered: bool
) -> list[tuple[_Place, str]]:
    taken = []
    for place in places:
        alike = [name for name in left if place.fits(groups[name])]
        if not alike:
            mend = f"the modules left over are {_listed(left, groups)}" if left else "no module is left over"
            raise ShapeError(f"no module fits {place.name}, {_shown(place.shapes)}: {mend}")
        if not ordered and len({_natural(name)[::2] for name in alike}) > 1:
            mend = f'a file has no order, so say which is which: names=["{alike[0]}", ...], one for each layer'
            raise OptionError(f"{place.name} may be {_listed(alike)}, {_shown(place.shapes)}: {mend}")
        taken.append((place, alike[0]))
        left = [name for name in left if name != alike[0]]
    if left:
        raise ShapeError(f"{_listed(left, groups)} left over: no layer takes it")
    return taken


def _natural(name: str) -> tuple[Any, ...]:
    """Split a name into texts and numbers: a key that sorts conv10 after conv9."""
    parts = re.split(r"(\d{1,9})", name)
    return tuple(int(part) if at % 2 else part for at, part in enumerate(parts))


def _listed(names: Sequence[str], groups: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    shown = [f"{name!r:.40}" + (f" {_shown(groups[name])}" if groups else "") for name in names[:4]]
    return ", ".join(shown) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _shown(arrays: Mapping[str, Any]) -> str:
    """Format words and shapes for an error."""
    shapes = {word: value if isinstance(value, tuple) else value.shape for word, value in arrays.items()}
    return " ".join(f"{word} {'×'.join(map(str, shape)) or '1'}" for word, shape in shapes.items()) or "nothing"


def _read(source: str | os.PathLike[str]) -> Arrays:
    """Read the arrays of a safetensors file."""
    path = as_path(source)
    try:
        with open_regular(path) as file:
            if file.peek(4)[:4].startswith(_PICKLES):
                mend = "in Python, safetensors.torch.save_file(module.state_dict(), 'model.safetensors')"
                raise ModelFileError(f"{path} is a pickle, as PyTorch saves, which can execute anything: {mend}")
            metadata, layout = read_header(file, _MOST_HEADER)
            if "gpunn" in metadata:
                raise ModelFileError(f"{path} is a network of gpunn: gn.load_model reads it")
            return read_values(file, layout, str(path))
    except ModelFileError:
        raise
    except DataError as error:
        raise ModelFileError(f"{path} is damaged or no safetensors file: {error}") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror or error}): give a safetensors file") from None
