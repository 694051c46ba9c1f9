"""Compute a convolution in groups, and choose the products of any convolution."""

from collections.abc import Sequence

from gpunn.backend.base import Backend, Scratch, Shape
from gpunn.backend.convolution import PatchProducts, RowProducts
from gpunn.backend.convolution_shape import ConvolutionShape, Products
from gpunn.backend.pointwise_convolution import PointProducts
from gpunn.kernels import numba_loops
from gpunn.kernels.grouped import convolve_groups, convolve_groups_input_gradient, convolve_groups_weight_gradient
from gpunn.kernels.image_grid import Geometry
from gpunn.kernels.record import Array

# Channels times filters of a group up to which direct kernels are faster than matrix products: compiled by Numba, in
# NumPy, and on a GPU (a guess from the memory that each reads).
_SMALL, _SMALL_IN_PASSES, _SMALL_ON_GPU = 4, 1, 64
_MOST = 256  # groups with products of their own: more take longer to call than to compute


class DirectProducts(Products):
    """Convolve in small groups, above all depthwise: by one kernel each, without patches and matrix products."""

    def __init__(self, backend: Backend, shape: ConvolutionShape, groups: int) -> None:
        self._run, self._groups = backend.run, groups
        self._geometry: Geometry = (*shape.size, *shape.stride, *shape.padding)
        self._w = groups, shape.filters // groups, shape.channels // groups, *shape.size

    def forward(self, w: Array, x: Array, z: Array) -> None:
        self._run(convolve_groups, self._by_group(x), w.reshape(self._w), self._geometry, self._by_group(z))

    def weight_gradient(self, x: Array, delta: Array, gradient: Array, is_turned: bool = True) -> None:
        arrays = self._by_group(x), self._by_group(delta)
        self._run(convolve_groups_weight_gradient, *arrays, self._geometry, gradient.reshape(self._w))

    def input_gradient(self, w: Array, delta: Array, dx: Array) -> None:
        arrays = self._by_group(delta), w.reshape(self._w)
        self._run(convolve_groups_input_gradient, *arrays, self._geometry, self._by_group(dx))

    def _by_group(self, array: Array) -> Array:
        return array.reshape(self._groups, -1, *array.shape[1:])


class GroupedProducts(Products):
    """Convolve in large groups: each group by the products of its own channels and filters."""

    def __init__(self, parts: Sequence[Products]) -> None:
        self._parts = parts
        self._views: dict[str, tuple[Array, list[Array]]] = {}

    def forward(self, w: Array, x: Array, z: Array) -> None:
        for part, *arrays in zip(self._parts, *self._cut(w=w, x=x, z=z), strict=True):
            part.forward(*arrays)

    def weight_gradient(self, x: Array, delta: Array, gradient: Array, is_turned: bool = True) -> None:
        for part, *arrays in zip(self._parts, *self._cut(x=x, delta=delta, gradient=gradient), strict=True):
            part.weight_gradient(*arrays, is_turned)

    def input_gradient(self, w: Array, delta: Array, dx: Array) -> None:
        for part, *arrays in zip(self._parts, *self._cut(w=w, delta=delta, dx=dx), strict=True):
            part.input_gradient(*arrays)

    def _cut(self, **arrays: Array) -> list[list[Array]]:
        """Return the views of each array by group, always the same ones: products are planned for them."""
        for name, array in arrays.items():
            if (kept := self._views.get(name)) is None or kept[0] is not array:
                size = len(array) // len(self._parts)
                views = [array[first : first + size] for first in range(0, len(array), size)]
                self._views[name] = array, views
        return [self._views[name][1] for name in arrays]


def products_of(
    backend: Backend, shape: ConvolutionShape, scratch: Scratch, needs_input_gradient: bool = True, groups: int = 1
) -> tuple[Products, Products]:
    """Choose the products of a convolution; return those for any batch and those for a single image."""
    if groups > _MOST or (groups > 1 and shape.filters * shape.channels <= _small(backend) * groups**2):
        direct = DirectProducts(backend, shape, groups)
        return direct, direct
    if groups > 1:
        of_group = shape._replace(filters=shape.filters // groups, channels=shape.channels // groups)
        shared: dict[Shape, Array] = {}

        def scratch_of_patches(shape: Shape) -> Array:  # free after each call, so all groups share it
            if shape not in shared:
                shared[shape] = scratch(shape)
            return shared[shape]

        made = [_products(backend, of_group, scratch, scratch_of_patches, needs_input_gradient) for _ in range(groups)]
        each, each_of_one = (list(parts) for parts in zip(*made, strict=True))
        return GroupedProducts(each), GroupedProducts(each_of_one)
    return _products(backend, shape, scratch, scratch, needs_input_gradient)


def _small(backend: Backend) -> int:
    return _SMALL_ON_GPU if backend.device != "cpu" else _SMALL if numba_loops.version() else _SMALL_IN_PASSES


def _products(
    backend: Backend, shape: ConvolutionShape, scratch: Scratch, scratch_of_patches: Scratch, needs_input_gradient: bool
) -> tuple[Products, Products]:
    if backend.device == "cpu" and shape.size == (1, 1) and not any(shape.padding):
        by_points = PointProducts(backend, shape, scratch)
        return by_points, by_points
    # With filters of one row, patches need no more memory than rows, and fewer products.
    if backend.device != "cpu" or shape.size[0] == 1:
        by_patches = PatchProducts(backend, shape, scratch_of_patches)
        return by_patches, by_patches
    by_rows = RowProducts(backend, shape, scratch, needs_input_gradient)
    if any(shape.padding):
        return by_rows, by_rows
    # For one image, patches are one copy, and rows many short products.
    return by_rows, PatchProducts(backend, shape._replace(capacity=1, batch_size=1), scratch_of_patches)
