"""Everything that reads a file, by name."""

from fuzz.harness import Target
from fuzz.targets import checkpoints, experiments, histories, idx, images, models, npy, npz, runs

TARGETS: dict[str, Target] = {
    module.TARGET.name: module.TARGET
    for module in (idx, npz, npy, images, models, experiments, runs, histories, checkpoints)
}
