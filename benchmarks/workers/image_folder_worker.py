"""Go twice through a folder of images with a DataLoader of PyTorch and worker processes; prints JSON.

With torchvision its ImageFolder reads them, without it a dataset that does the same by Pillow.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

try:
    import torchvision
except (ImportError, RuntimeError):  # one that was built for another torch
    torchvision = None


_OURS = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


class Folder(Dataset[Any]):
    """As ImageFolder with Resize and ToTensor."""

    def __init__(self, folder: str, side: int) -> None:
        self.paths, self.side = sorted(Path(folder).rglob("*.jpg")), side
        self.classes = sorted({path.parent.name for path in self.paths})

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        path = self.paths[number]
        with path.open("rb") as file:
            image = Image.open(file).convert("RGB").resize((self.side, self.side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.to(torch.float32).div(255), self.classes.index(path.parent.name)


def main() -> None:
    folder, side, batch, workers = sys.argv[1], *map(int, sys.argv[2:5])
    start = time.perf_counter()
    if torchvision is None:
        data: Any = Folder(folder, side)
    else:
        from torchvision.datasets import ImageFolder
        from torchvision.transforms import Compose, Resize, ToTensor

        data = ImageFolder(folder, Compose([Resize((side, side)), ToTensor()]))
    loader = DataLoader(data, batch_size=batch, shuffle=True, num_workers=workers, persistent_workers=True)
    seconds = []
    for _ in range(2):
        count = sum(len(images) for images, _ in loader)
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        assert count == len(data)
    del loader  # which ends the workers, whose time counts from then on
    processor = sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in _OURS)
    versions = {"torch": torch.__version__, "torchvision": torchvision and torchvision.__version__}
    print(
        json.dumps(
            {
                "epochs_seconds": seconds,
                "workers": workers,
                "processor_seconds": processor,
                **versions,
                "pillow": PIL.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
