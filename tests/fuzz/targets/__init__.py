"""Everything that reads a file, by name."""

from fuzz.harness import Target
from fuzz.targets import (
    archives,
    checkpoints,
    csv_tables,
    experiments,
    histories,
    idx,
    images,
    models,
    npy,
    npz,
    parquet_tables,
    runs,
)

TARGETS: dict[str, Target] = {
    module.TARGET.name: module.TARGET
    for module in (
        idx,
        archives,
        npz,
        npy,
        images,
        csv_tables,
        parquet_tables,
        models,
        experiments,
        runs,
        histories,
        checkpoints,
    )
}
