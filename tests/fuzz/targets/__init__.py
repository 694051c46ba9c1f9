"""Everything that reads a file, by name."""

from fuzz.harness import Target
from fuzz.targets import archives, checkpoints, experiments, histories, idx, images, models, npy, npz, runs

TARGETS: dict[str, Target] = {
    module.TARGET.name: module.TARGET
    for module in (idx, archives, npz, npy, images, models, experiments, runs, histories, checkpoints)
}
