"""Draw an image of a digit as people photograph one: a pen on paper, chalk on a board, light, lines, a table."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Array = NDArray[Any]
Kind = Callable[[Array, np.random.Generator], Image.Image]
GREY, NAVY, WHITE = (230,) * 3, (30, 40, 120), (250, 250, 248)


def ink(
    digit: Array,
    height: int = 300,
    width: int = 400,
    size: int = 280,
    at: tuple[int, int] | None = None,
    pen: int = 0,
    turn: float = 0,
    crisp: bool = True,
) -> Array:
    """Return how much ink lies at each pixel of a page, 0 to 1, of a digit (28, 28) of bytes drawn `size` large.

    `pen` above 0 thickens strokes by so many pixels of the digit's image times ten, below 0 it thins them.
    """
    drawn = Image.fromarray(digit).resize((560, 560), Image.Resampling.BICUBIC)
    if turn:
        drawn = drawn.rotate(turn, Image.Resampling.BICUBIC)
    if pen:
        drawn = drawn.point(lambda v: 255 * (v > 110))
        for _ in range(abs(pen)):
            drawn = drawn.filter(ImageFilter.MaxFilter(5) if pen > 0 else ImageFilter.MinFilter(5))
    if crisp:  # a pen leaves ink or none, with soft edges
        drawn = drawn.point(lambda v: min(255, max(0, (v - 64) * 2)))
    small = np.asarray(drawn.resize((size, size), Image.Resampling.LANCZOS), np.float64) / 255
    page = np.zeros((height, width))
    top, left = ((height - size) // 2, (width - size) // 2) if at is None else at
    page[top : top + size, left : left + size] = small[: height - top, : width - left]
    return page.clip(0, 1)


def on(paper: Any, colour: Any, drawn: Array) -> Array:
    """Lay ink of a colour on paper, which is a colour or a picture: (height, width, 3), 0 to 255."""
    ground = np.broadcast_to(np.asarray(paper, float), (*drawn.shape, 3))
    return np.asarray(ground + (np.asarray(colour, float) - ground) * drawn[..., None])


def image(pixels: Array) -> Image.Image:
    return Image.fromarray(np.asarray(pixels).clip(0, 255).round().astype(np.uint8))


def grid(height: int, width: int) -> tuple[Array, Array]:
    """Return rows and columns from 0 to 1."""
    down, across = np.mgrid[0:height, 0:width]
    return down / max(1, height - 1), across / max(1, width - 1)


def ruled(
    height: int,
    width: int,
    gap: int,
    colour: Any = (150, 170, 220),
    squared: bool = False,
    slant: float = 0,
    thick: int = 2,
) -> Array:
    """Return paper with lines."""
    paper = np.full((height, width, 3), 248.0)
    down, across = np.mgrid[0:height, 0:width]
    for along, over in ((down, across), (across, down))[: 1 + squared]:
        paper[(along + slant * over + 5) % gap < thick] = colour
    return paper


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    held = BytesIO()
    picture.save(held, "JPEG", quality=quality)
    return Image.open(BytesIO(held.getvalue())).convert("RGB")


def noisy(pixels: Array, rng: np.random.Generator, deviation: float) -> Array:
    return np.asarray(pixels + rng.normal(0, deviation, pixels.shape))


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> Array:
    """Return soft blotches from -1 to 1."""
    small = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def paper_and_ink(paper: int, pen: int) -> Kind:
    return lambda x, rng: image(on((paper,) * 3, (pen,) * 3, ink(x, 280, 280)))


def corner(x: Array, rng: np.random.Generator) -> Image.Image:
    top, left = ((0, 0), (0, 250), (250, 0), (250, 250))[rng.integers(4)]
    return image(on(WHITE, (20, 20, 20), ink(x, 400, 400, 150, (top, left))))


def tight(x: Array, rng: np.random.Generator) -> Image.Image:
    rows, columns = (np.flatnonzero(x.max(axis=axis) > 60) for axis in (1, 0))
    drawn = Image.fromarray(ink(x, 280, 280))
    scale = 10
    box = (columns[0] * scale, rows[0] * scale, (columns[-1] + 1) * scale, (rows[-1] + 1) * scale)
    margin = 6
    crop = drawn.crop((box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin))
    return image(on(GREY, (40, 40, 45), np.asarray(crop, np.float64)))


def lit(light: Callable[[Array, Array], Array], **options: Any) -> Kind:
    """A page under a light, which gives the share of brightness at rows and columns from 0 to 1."""

    def draw(x: Array, rng: np.random.Generator) -> Image.Image:
        drawn = ink(x, **options)
        return image(on(GREY, (45, 45, 50), drawn) * light(*grid(*drawn.shape))[..., None])

    return draw


def shadow(x: Array, rng: np.random.Generator) -> Image.Image:
    drawn = ink(x, size=200)
    down, across = grid(*drawn.shape)
    angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(-0.2, 0.2)
    side = (across - 0.5) * np.cos(angle) + (down - 0.5) * np.sin(angle) - offset
    return image(on(GREY, (45, 45, 50), drawn) * (0.55 + 0.45 / (1 + np.exp(-side * 60)))[..., None])


def spot(x: Array, rng: np.random.Generator) -> Image.Image:
    drawn = ink(x, size=200)
    down, across = grid(*drawn.shape)
    cy, cx = rng.uniform(0.2, 0.8, 2)
    light = 0.45 + 0.55 * np.exp(-((down - cy) ** 2 + (across - cx) ** 2) / 0.12)
    return image(on(GREY, (45, 45, 50), drawn) * light[..., None])


def turned(x: Array, rng: np.random.Generator) -> Image.Image:
    return image(on(GREY, NAVY, ink(x, size=260, turn=float(rng.uniform(-10, 10)))))


def pencil(x: Array, rng: np.random.Generator) -> Image.Image:
    drawn = ink(x, size=200, pen=-1) * (0.75 + 0.25 * rng.uniform(-1, 1, (300, 400)))
    paper = 232 + 6 * smooth_noise(rng, 300, 400, 6)[..., None]
    return image(noisy(on(paper, (120, 120, 125), drawn), rng, 4))


def board(green: bool, yellow: bool = False) -> Kind:
    def draw(x: Array, rng: np.random.Generator) -> Image.Image:
        colour = np.asarray((40, 85, 65) if green else (35, 36, 38), float)
        smear = colour + 14 * smooth_noise(rng, 300, 400, 5)[..., None]
        chalk = ink(x, size=240) * (0.8 + 0.2 * rng.uniform(-1, 1, (300, 400)))
        return image(noisy(on(smear, (235, 220, 110) if yellow else (225, 228, 225), chalk), rng, 5))

    return draw


def pen(width: int, paper: Any = WHITE) -> Kind:
    return lambda x, rng: image(on(paper, (25, 25, 40), ink(x, size=260, pen=width)))


def lined(**options: Any) -> Kind:
    def draw(x: Array, rng: np.random.Generator) -> Image.Image:
        paper = ruled(300, 400, **options)
        return image(on(paper, NAVY, ink(x, size=220, at=(int(rng.integers(0, 80)), int(rng.integers(0, 180))))))

    return draw


def table(x: Array, rng: np.random.Generator) -> Image.Image:
    """Paper that lies on a dark table, which shows at one side or at all."""
    edges = rng.integers(0, 50, 4) * (rng.random(4) < 0.7)
    pixels = on(GREY, (40, 40, 50), ink(x, size=200))
    top, bottom, left, right = map(int, edges)
    outside = np.ones((300, 400), bool)
    outside[top : 300 - bottom, left : 400 - right] = False
    pixels[outside] = np.asarray((90, 60, 40)) + rng.normal(0, 6, (int(outside.sum()), 3))
    return image(pixels)


def sheet(x: Array, rng: np.random.Generator) -> Image.Image:
    """A small sheet on a large dark table."""
    pixels = np.asarray((70.0, 50, 38)) + rng.normal(0, 5, (480, 640, 3))
    pixels[150:330, 220:420] = on(GREY, (40, 40, 50), ink(x, 180, 200, 150))
    return image(pixels)


def small_spot(x: Array, rng: np.random.Generator) -> Image.Image:
    drawn = ink(x, size=200)
    down, across = grid(*drawn.shape)
    light = 0.15 + 0.85 * np.exp(-((down - 0.5) ** 2 + (across - 0.3) ** 2) / 0.05)
    return image(on(GREY, (45, 45, 50), drawn) * light[..., None])


def margin(x: Array, rng: np.random.Generator) -> Image.Image:
    paper = ruled(300, 400, 30)
    paper[:, 60:63] = (220, 90, 90)
    return image(on(paper, NAVY, ink(x, size=200, at=(40, 120))))


def hand(x: Array, rng: np.random.Generator) -> Image.Image:
    pixels = on(GREY, (40, 40, 50), ink(x, size=150, at=(20, 200)))
    down, across = np.mgrid[0:300, 0:400]
    pixels[((down - 300) / 150) ** 2 + ((across - 100) / 120) ** 2 < 1] = (190, 140, 120)
    return image(pixels)


def finger(x: Array, rng: np.random.Generator) -> Image.Image:
    drawn = ink(x, size=180)
    down, across = np.mgrid[0:300, 0:400]
    at = rng.uniform(60, 240)
    tip = ((down - at) / 28) ** 2 + (np.maximum(across - 40, 0) / 30) ** 2 < 1
    pixels = on(GREY, (40, 40, 50), drawn)
    pixels[tip & (drawn < 0.1)] = (205, 150, 125)
    return image(pixels)


def transparent(colour: tuple[int, int, int]) -> Kind:
    def draw(x: Array, rng: np.random.Generator) -> Image.Image:
        drawn = ink(x)
        rgba = np.zeros((*drawn.shape, 4), np.uint8)
        rgba[..., :3], rgba[..., 3] = colour, (drawn * 255).round()
        return Image.fromarray(rgba)

    return draw


def deep(x: Array, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray((60_000 - 50_000 * ink(x)).astype(np.uint16))


def sideways(x: Array, rng: np.random.Generator) -> Image.Image:
    """A photograph that lies on its side, and says so in its EXIF."""
    picture = image(on(GREY, NAVY, ink(x, size=220))).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[274] = 6
    held = BytesIO()
    picture.save(held, "JPEG", quality=90, exif=exif)
    return Image.open(BytesIO(held.getvalue()))


def several_lights(x: Array, rng: np.random.Generator) -> Image.Image:
    """All at once, as a phone sees it."""
    drawn = ink(
        x, 480, 640, 260, (int(rng.integers(20, 200)), int(rng.integers(20, 360))), turn=float(rng.uniform(-8, 8))
    )
    down, across = grid(480, 640)
    light = 0.7 + 0.25 * (across * rng.uniform(-1, 1) + down * rng.uniform(-1, 1))
    warm = np.asarray((1.0, 0.96, 0.86))
    pixels = on((225, 222, 215), NAVY, drawn) * light[..., None] * warm
    blurred = image(noisy(pixels, rng, 7)).filter(ImageFilter.GaussianBlur(1.2))
    return jpeg(blurred, 60)


def large(x: Array, rng: np.random.Generator) -> Image.Image:
    """Twelve megapixels."""
    small = on(GREY, NAVY, ink(x, 1500, 2000, 700, (500, int(rng.integers(100, 1200))), turn=float(rng.uniform(-5, 5))))
    light = grid(1500, 2000)[1][..., None] * 0.4 + 0.6
    return jpeg(image(small * light).resize((4000, 3000), Image.Resampling.BILINEAR), 85)


KINDS: dict[str, Kind] = {
    "black on white": paper_and_ink(255, 0),
    "grey paper 230, ink 30": paper_and_ink(230, 30),
    "grey paper 180, ink 40": paper_and_ink(180, 40),
    "grey paper 140, ink 30": paper_and_ink(140, 30),
    "grey paper 120, ink 20": paper_and_ink(120, 20),
    "grey paper 100, ink 20": paper_and_ink(100, 20),
    "grey paper 60, ink 10": paper_and_ink(60, 10),
    "white on black": paper_and_ink(0, 255),
    "landscape 4:3": lambda x, rng: image(on(GREY, (30,) * 3, ink(x))),
    "small on the page": lambda x, rng: image(on(WHITE, (0,) * 3, ink(x, size=90, at=(150, 220)))),
    "very small on the page": lambda x, rng: image(on(WHITE, (0,) * 3, ink(x, 600, 800, 70, (300, 520)))),
    "in a corner": corner,
    "tight crop": tight,
    "light from one side": lit(lambda down, across: 0.4 + 0.6 * across),
    "vignette": lit(lambda down, across: 1 - 1.1 * ((down - 0.5) ** 2 + (across - 0.5) ** 2)),
    "a lamp's spot": spot,
    "a shadow's edge": shadow,
    "turned by up to 10 degrees": turned,
    "blue ink": lambda x, rng: image(on(WHITE, (40, 60, 190), ink(x, size=240))),
    "red ink": lambda x, rng: image(on(WHITE, (200, 40, 45), ink(x, size=240))),
    "red ink on green paper": lambda x, rng: image(on((150, 190, 150), (190, 40, 45), ink(x, size=240))),
    "pencil": pencil,
    "chalk on a green board": board(green=True),
    "yellow chalk on a green board": board(green=True, yellow=True),
    "chalk on a black board": board(green=False),
    "thin pen": pen(-2),
    "thick pen": pen(6),
    "lined paper": lined(gap=32),
    "lined paper, slanted": lined(gap=32, slant=0.06),
    "lined paper, dark lines": lined(gap=40, colour=(110, 120, 150)),
    "lines as dark as the ink": lined(gap=40, colour=NAVY),
    "squared paper": lined(gap=22, squared=True, thick=1),
    "squared paper, dark lines": lined(gap=26, squared=True, colour=(120, 130, 160)),
    "noise": lambda x, rng: image(noisy(on(GREY, (50,) * 3, ink(x, size=220)), rng, 25)),
    "strong JPEG": lambda x, rng: jpeg(image(on(GREY, NAVY, ink(x, size=200))), 12),
    "paper on a table": table,
    "a finger at the edge": finger,
    "black on transparent": transparent((0, 0, 0)),
    "white on transparent": transparent((255, 255, 255)),
    "16 bits": deep,
    "turned by EXIF": sideways,
    "a phone's picture": several_lights,
    "small file, 56 pixels": lambda x, rng: image(on(GREY, (30,) * 3, ink(x, 56, 56, 56))),
    "a small sheet on a large table": sheet,
    "a lamp's small spot": small_spot,
    "lined paper with a margin": margin,
    "a hand on the paper": hand,
    "low contrast, 200 and 165": lambda x, rng: image(noisy(on((200,) * 3, (165,) * 3, ink(x, size=200)), rng, 4)),
    "yellow ink": lambda x, rng: image(on(WHITE, (240, 220, 60), ink(x, size=200))),
    "out of focus": lambda x, rng: image(on(GREY, NAVY, ink(x, size=220))).filter(ImageFilter.GaussianBlur(6)),
    "crumpled paper": lambda x, rng: image(
        on(GREY, (40,) * 3, ink(x, size=220)) * (1 + 0.18 * smooth_noise(rng, 300, 400, 9)[..., None])
    ),
    "grey paper, 28 pixels": lambda x, rng: image(on((140,) * 3, (30,) * 3, x / 255.0)),
}
LARGE: dict[str, Kind] = {"12 megapixels": large}
