"""What a launcher of MPI has set, and what one process makes of it, without MPI."""

import pytest

from gpunn.backend import mpi
from gpunn.backend.mpi import cores_of

NAMES = {name for names in mpi._RANK_VARIABLES for name in names}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, (0, 1)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"}, (1, 4)),
        ({"PMI_RANK": "2", "PMI_SIZE": "3"}, (2, 3)),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, (0, 1)),
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8"}, (0, 1)),  # a script of SLURM, or what it runs
        ({"PMIX_RANK": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "8"}, (3, 4)),
        ({"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}, (0, 1)),
        ({"PMIX_RANK": "1"}, (1, 0)),
        ({"PMI_RANK": "x", "PMI_SIZE": "²"}, (0, 1)),
    ],
)
def test_a_launcher_is_known_by_what_it_sets(
    variables: dict[str, str], place: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert mpi.rank_and_size() == place
    if place == (0, 1):
        assert mpi.communicator() is None


class Machine:
    """The ranks of a machine, by the cores that each may run on."""

    def __init__(self, *cores: set[int]) -> None:
        self._cores = cores

    def allgather(self, _own: set[int]) -> list[set[int]]:
        return list(self._cores)

    def Get_size(self) -> int:
        return len(self._cores)


def test_cores_are_shared_among_those_that_may_use_them() -> None:
    machine, bound = set(range(8)), [{0, 1}, {2, 3}]
    assert cores_of(Machine(machine, machine), machine, 8.0) == 4
    assert cores_of(Machine(machine, machine, machine), machine, 8.0) == pytest.approx(8 / 3)
    assert cores_of(Machine(*bound), bound[0], 8.0) == 2  # a launcher that binds has shared them out already
    assert cores_of(Machine(machine, machine), machine, 2.0) == 1  # a container's limit holds for both
