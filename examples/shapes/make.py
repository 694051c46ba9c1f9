"""Make the images of this folder again: circles, squares and triangles of 32×32, in random places, sizes and colours.

Run `python examples/shapes/make.py`; the same images each time.
"""

import math
import random
from pathlib import Path

from PIL import Image, ImageDraw

SIZE, FINER = 32, 4  # pixels; how much finer they are drawn, for smooth edges
COUNTS = {"train": 40, "test": 20}
CORNERS = {"circle": 60, "square": 4, "triangle": 3}


def draw(corners: int, rng: random.Random) -> Image.Image:
    """Draw a regular polygon on a ground that is clearly darker or lighter, with a few specks."""
    while True:
        ground, colour = ([rng.randrange(0, 256, 8) for _ in range(3)] for _ in range(2))
        if sum(colour) - sum(ground) > 300:
            break
    whole = SIZE * FINER
    image = Image.new("RGB", (whole, whole), tuple(ground))
    radius, turned = whole * rng.uniform(0.28, 0.42), math.radians(rng.uniform(-12, 12) - 90)
    x, y = (whole / 2 + rng.uniform(-1, 1) * (whole / 2 - radius) for _ in range(2))
    angles = [turned + 2 * math.pi * (k + (corners == 4) / 2) / corners for k in range(corners)]
    points = [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]
    ImageDraw.Draw(image).polygon(points, fill=tuple(colour))
    image = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    for _ in range(6):
        image.putpixel((rng.randrange(SIZE), rng.randrange(SIZE)), tuple(rng.randrange(0, 256, 8) for _ in range(3)))
    return image.quantize(16, dither=Image.Dither.NONE)


def main() -> None:
    """Write all images, numbered from 1."""
    rng = random.Random(0)
    for part, count in COUNTS.items():
        for name, corners in CORNERS.items():
            folder = Path(__file__).parent / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(1, count + 1):
                draw(corners, rng).save(folder / f"{name}-{number}.png", optimize=True)


if __name__ == "__main__":
    main()
