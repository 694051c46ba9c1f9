"""Time how a folder of JPEGs reaches a network: the first epoch, the next, and the first of the next run.

Makes random smooth pictures in a temporary folder (or `--folder`, which stays), and goes through them in batches, as
floats in random order, without a network: by gpunn in two processes, and by a DataLoader of PyTorch with two workers in
another, if `--torch` names a Python that has it (torchvision's ImageFolder, or else the same by Pillow). Beside them:
the time that Pillow alone takes to decode and shrink. Seconds of the processor say more where others use the cores.

    python benchmarks/image_folder.py --torch .venv.torch/bin/python
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from machine import RESULTS, command, commit, machine, write_result
from PIL import Image

import gpunn as gn
from gpunn.kernels.cores import cores

CLASSES, SIDE, FITTED, BATCH, WORKERS = 10, 256, 64, 128, 2


def make(folder: Path, count: int) -> None:
    """Write random smooth pictures of 256×256 as JPEGs, the same for each number."""

    def one(number: int) -> None:
        coarse = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.save(folder / f"class{number % CLASSES}" / f"{number:06}.jpg", quality=90)

    for number in range(CLASSES):
        (folder / f"class{number}").mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(one, range(count)))


def epochs_of_gpunn(folder: Path, epochs: int) -> dict[str, Any]:
    """Load the folder and go through it: seconds of each epoch, the first with the loading, and of the processor."""
    start = time.perf_counter()
    samples = gn.load_data(folder, validation=0, image_size=FITTED).train
    loading = time.perf_counter() - start
    processor, seconds = time.process_time(), list[float]()
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(samples))
        for first in range(0, len(order), BATCH):
            _ = samples.inputs[order[first : first + BATCH]] * np.float32(samples.scale)
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    return {"epochs_seconds": seconds, "loading_seconds": loading, "loading_processor_seconds": processor}


def decoding_alone(folder: Path) -> dict[str, float]:
    """Return the seconds that Pillow takes on all cores to decode and shrink every image, and of the processor."""
    paths = sorted(folder.rglob("*.jpg"))

    def one(path: Path) -> None:
        with Image.open(path) as image:
            image.draft("RGB", (2 * FITTED, 2 * FITTED))
            image.resize((FITTED, FITTED), Image.Resampling.BOX)

    start, processor = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(one, paths))
    return {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - processor}


def in_process(*arguments: object, **environment: str) -> dict[str, Any]:
    """Run a program that prints JSON in its last line."""
    done = subprocess.run(
        list(map(str, arguments)), env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where the images are, or are made; left out, a temporary one")
    parser.add_argument("--torch", help="a Python with torch, and torchvision")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.epochs:
        print(json.dumps(epochs_of_gpunn(options.folder, options.epochs)))
        return
    with contextlib.ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = options.folder or temporary / "images"
        if not folder.is_dir():
            make(folder, options.count)
        again = (sys.executable, __file__, "--folder", folder, "--epochs")
        cache = {"XDG_CACHE_HOME": str(temporary / "cache")}
        result = {
            "what": f"{options.count:,} JPEGs of {SIDE}×{SIDE}, fitted to {FITTED}×{FITTED}×3, batches of {BATCH}",
            "command": command(),
            "commit": commit(),
            "machine": machine(),
            "load_average": os.getloadavg()[0],
            "pillow": PIL.__version__,
            "decoding_alone": decoding_alone(folder),
            "gpunn": in_process(*again, 2, **cache),
            "gpunn_next_run": in_process(*again, 1, **cache),
        }
        if options.torch:
            worker = Path(__file__).with_name("workers") / "image_folder_worker.py"
            result["pytorch"] = in_process(options.torch, worker, folder, FITTED, BATCH, WORKERS)
    write_result(options.out / "image-folder-cpu.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
