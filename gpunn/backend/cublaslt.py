"""Multiply matrices with cublasLt: choose an algorithm once, then use it again."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.backend.algorithms import IN_ORDER, LENGTH, PARTS, SCHEME, Config, Key, in_order, is_repeatable

_CANDIDATES = 8  # number of algorithms to ask cublasLt for
_UNFIT = {7, 8, 15}  # codes for an algorithm that does not fit: invalid value, not for this GPU, not supported


class Plan(NamedTuple):
    """Plan of a product, without its memory: objects of cublasLt, the algorithm, and its attributes."""

    product: int
    layouts: tuple[int, int, int]  # of b, a and c: cublasLt counts by columns, so to it c is cᵀ = bᵀ aᵀ
    algorithm: NDArray[Any]
    config: Config


class CublasLt:
    """Plan and run products of one precision by a handle of cublasLt on the current device.

    Args:
        kinds: CUDA's numbers of the data type and of the compute type, by the bytes of a number.
        workspace: Bytes of device memory that an algorithm may use.
        processors: Number of multiprocessors.
    """

    def __init__(self, kinds: dict[int, tuple[int, int]], workspace: int, processors: int) -> None:
        from nvmath.bindings import cublasLt

        self._lt, self._kinds, self._workspace, self._processors = cublasLt, kinds, workspace, processors
        self._handle = cublasLt.create()
        self.version = int(cublasLt.get_version())
        self.error: type[Exception] = cublasLt.cuBLASLtError
        named = ((int(tile), re.fullmatch(r"TILE_(\d+)x(\d+)", tile.name)) for tile in cublasLt.MatmulTile)
        self._tiles = {number: (int(match[1]), int(match[2])) for number, match in named if match}
        self._attributes = range(LENGTH)

    def plan(self, key: Key, wanted: Config | None) -> Plan | None:
        """Prepare a product with the wanted algorithm, else with the best one; return None if there is none."""
        is_a_transposed, is_b_transposed, m, n, k, lda, ldb, ldc, size, *at = key
        kind, compute = self._kinds[size]
        product = self._lt.matmul_desc_create(compute, kind)
        names = self._lt.MatmulDescAttribute
        for name, value in ((names.TRANSA, is_b_transposed), (names.TRANSB, is_a_transposed)):
            self._set(self._lt.matmul_desc_set_attribute, product, int(name), np.array([value], np.int32))
        shapes = (
            ((k, n) if is_b_transposed else (n, k), ldb),
            ((m, k) if is_a_transposed else (k, m), lda),
            ((n, m), ldc),
        )
        b, a, c = (self._lt.matrix_layout_create(kind, *shape, ld) for shape, ld in shapes)
        about = product, b, a, c, c
        found = self._candidates(about, (at[1], at[0], at[2], at[2]))
        order = [config for _, config in found]
        wishes = in_order(order, (n, m, k), self._tiles, self._processors) if wanted is None else [wanted]
        for config in wishes:
            algorithm = self._make(config, found, about, kind, compute, at)
            if algorithm is not None:
                return Plan(product, (b, a, c), algorithm, config)
        self._forget(product, b, a, c)
        return None

    def run(self, plan: Plan, alpha: int, a: int, b: int, beta: int, c: int, workspace: int, stream: int) -> None:
        """Enqueue c := alpha a b + beta c, all given by their addresses."""
        of_b, of_a, of_c = plan.layouts
        self._lt.matmul(
            self._handle, plan.product, alpha, b, of_b, a, of_a, beta, c, of_c, c, of_c,
            plan.algorithm.ctypes.data, workspace, self._workspace, stream,
        )  # fmt: skip

    def forget(self, plan: Plan) -> None:
        """Destroy the objects of a plan."""
        self._forget(plan.product, *plan.layouts)

    def is_refusal(self, error: Exception) -> bool:
        """Return whether an error means that an algorithm does not fit a product, and not that the GPU failed."""
        return isinstance(error, self.error) and getattr(error, "status", None) in _UNFIT

    def _forget(self, product: int, *layouts: int) -> None:
        self._lt.matmul_desc_destroy(product)
        for layout in layouts:
            self._lt.matrix_layout_destroy(layout)

    def _candidates(self, about: tuple[int, ...], alignments: Sequence[int]) -> list[tuple[NDArray[Any], Config]]:
        """Ask for algorithms that add up in a fixed order, for matrices of these alignments; return the best first."""
        lt, preference = self._lt, self._lt.matmul_preference_create()
        names = lt.MatmulPreferenceAttribute
        of_matrices = (
            names.MIN_ALIGNMENT_A_BYTES, names.MIN_ALIGNMENT_B_BYTES,
            names.MIN_ALIGNMENT_C_BYTES, names.MIN_ALIGNMENT_D_BYTES,
        )  # fmt: skip
        values = {int(names.REDUCTION_SCHEME_MASK): IN_ORDER}
        values |= {int(name): each for name, each in zip(of_matrices, alignments, strict=True)}
        found, count = np.zeros(_CANDIDATES, lt.matmul_heuristic_result_dtype), np.zeros(1, np.int32)
        try:
            most = np.array([self._workspace], np.uint64)
            self._set(lt.matmul_preference_set_attribute, preference, int(names.MAX_WORKSPACE_BYTES), most)
            for name, value in values.items():
                self._set(lt.matmul_preference_set_attribute, preference, name, np.array([value], np.uint32))
            given = preference, _CANDIDATES, found.ctypes.data, count.ctypes.data
            lt.matmul_algo_get_heuristic(self._handle, *about, *given)
        except lt.cuBLASLtError as error:
            if not self.is_refusal(error):  # a refusal means that there is none
                raise
        finally:
            lt.matmul_preference_destroy(preference)
        algorithms = [found["algo"][i : i + 1].copy() for i in range(int(count[0])) if found["state"][i] == 0]
        return [(algorithm, self._config(algorithm)) for algorithm in algorithms]

    def _config(self, algorithm: NDArray[Any]) -> Config:
        """Return the attributes of an algorithm."""
        get, dtype_of = self._lt.matmul_algo_config_get_attribute, self._lt.get_matmul_algo_config_attribute_dtype
        return tuple(self._get(get, algorithm, name, dtype_of(name)) for name in self._attributes)

    def _make(
        self, config: Config, found: list[tuple[NDArray[Any], Config]], about: tuple[int, ...], kind: int,
        compute: int, at: Sequence[int],
    ) -> NDArray[Any] | None:  # fmt: skip
        """Make an algorithm from its attributes, or take the found one; return None if it cannot be used."""
        if len(config) != len(self._attributes) or not is_repeatable(config):
            return None
        lt, result = self._lt, np.zeros(1, self._lt.matmul_heuristic_result_dtype)
        try:
            algorithm = next((one for one, made_of in found if made_of == config), None)
            if algorithm is None:
                like = next((one for one, made_of in found if _without_parts(made_of) == _without_parts(config)), None)
                algorithm = self._initialised(config, kind, compute, at) if like is None else like.copy()
                if algorithm is None or not self._takes_parts(algorithm, config):
                    return None
                for name in self._attributes[PARTS : SCHEME + 1] if like is not None else self._attributes[1:]:
                    dtype = lt.get_matmul_algo_config_attribute_dtype(name)
                    value = np.array([config[name]], np.int64).astype(dtype)
                    self._set(lt.matmul_algo_config_set_attribute, algorithm.ctypes.data, name, value)
            if self._config(algorithm) != config:  # a number that an attribute cannot hold
                return None
            lt.matmul_algo_check(self._handle, *about, algorithm.ctypes.data, result.ctypes.data)
        except lt.cuBLASLtError as error:
            if not self.is_refusal(error):
                raise
            return None
        return algorithm if result["workspace_size"][0] <= self._workspace else None

    def _initialised(self, config: Config, kind: int, compute: int, at: Sequence[int]) -> NDArray[Any] | None:
        """Return a new algorithm of a config's kind, or None if it needs larger alignments than the matrices have."""
        algorithm = np.zeros(1, self._lt.matmul_algo_dtype)
        self._lt.matmul_algo_init(self._handle, compute, kind, kind, kind, kind, kind, config[0], algorithm.ctypes.data)
        names = self._lt.MatmulAlgoCapAttribute
        needs = (
            (names.MIN_ALIGNMENT_A_BYTES, at[1]), (names.MIN_ALIGNMENT_B_BYTES, at[0]),
            (names.MIN_ALIGNMENT_C_BYTES, at[2]), (names.MIN_ALIGNMENT_D_BYTES, at[2]),
        )  # fmt: skip
        return algorithm if all(self._capability(algorithm, int(name)) <= there for name, there in needs) else None

    def _takes_parts(self, algorithm: NDArray[Any], config: Config) -> bool:
        """Return whether an algorithm can cut its sums into the parts of a config."""
        names = self._lt.MatmulAlgoCapAttribute
        return config[PARTS] <= 1 or (
            bool(self._capability(algorithm, int(names.SPLITK_SUPPORT)))
            and bool(self._capability(algorithm, int(names.REDUCTION_SCHEME_MASK)) & IN_ORDER)
        )

    def _capability(self, algorithm: NDArray[Any], name: int) -> int:
        dtype = self._lt.get_matmul_algo_cap_attribute_dtype(name)
        return self._get(self._lt.matmul_algo_cap_get_attribute, algorithm, name, dtype)

    @staticmethod
    def _get(getter: Any, algorithm: NDArray[Any], name: int, dtype: Any) -> int:
        held, size = np.zeros(1, dtype), np.zeros(1, np.uint64)
        getter(algorithm.ctypes.data, name, held.ctypes.data, held.nbytes, size.ctypes.data)
        return int(held[0])

    @staticmethod
    def _set(setter: Any, target: int, name: int, value: NDArray[Any]) -> None:
        setter(target, name, value.ctypes.data, value.nbytes)


def _without_parts(config: Config) -> Config:
    """Return the attributes of an algorithm without those of the parts of its sums."""
    return (*config[:PARTS], *config[SCHEME + 1 :])
