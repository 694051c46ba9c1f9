"""Fit texts into a picture: measure, cut and wrap them, and drop letters that its fonts lack."""

import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import cache

# Fonts for letters that Matplotlib's own font lacks; the first installed one with the letter draws it.
_FURTHER = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo",
    "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS", "Noto Emoji", "Symbola", "Segoe UI Symbol",
)  # fmt: skip
_WIDE, _BROAD = 1.7, frozenset("WM@%m—…ŒÆ")  # width of a wide letter beside an ordinary one, and such letters
_SLACK = 0.96  # share of the width to fill: hinting makes drawn text some per cent wider


@cache
def families() -> tuple[str, ...]:
    """Return the fonts of all pictures: Matplotlib's own, then installed ones for the letters that it lacks."""
    from matplotlib.font_manager import fontManager

    known = {font.name for font in fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _FURTHER if name in known))


@cache
def _letters() -> frozenset[int]:
    """Return the code points of all letters in the fonts."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    paths = (findfont(FontProperties(family=[name])) for name in families())
    return frozenset().union(*(get_font(path).get_charmap() for path in paths))


def drawable(text: str) -> str:
    """Leave out letters that no installed font can draw, since boxes in their place say nothing."""
    if text.isascii():
        return text
    kept = "".join(letter for letter in text if letter == "\n" or ord(letter) in _letters())
    return kept if kept == text else "\n".join(" ".join(line.split()) for line in kept.split("\n"))


@cache
def width_of(text: str, size: float, bold: bool = False) -> float:
    """Return the width in inches of the longest line of a text of `size` points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=list(families()), size=size, weight="bold" if bold else "normal")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing letters
        lines = (text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n"))
        return float(max(lines)) / 72


def fitted(text: str, width: float, size: float, bold: bool = False) -> str:
    """Cut a text to one line of at most `width` inches."""
    text = " ".join(text.split())
    if width_of(text, size, bold) <= _SLACK * width:
        return text
    low, high = 0, len(text)  # bisect for the longest beginning that fits
    while low < high:
        middle = (low + high + 1) // 2
        is_short = width_of(f"{text[:middle].rstrip()}…", size, bold) <= _SLACK * width
        low, high = (middle, high) if is_short else (low, middle - 1)
    return f"{text[:low].rstrip()}…"


def wrapped(title: str, width: float, size: float = 13.0, bold: bool = True, most: int = 3) -> str:
    """Wrap a text into at most `most` lines of at most `width` inches; break words that are too long."""
    lines, rest = list[str](), title.split()
    while rest:
        line, last = "", len(lines) == most - 1
        if last:
            line, rest = fitted(" ".join(rest), width, size, bold), []
        elif width_of(rest[0], size, bold) > _SLACK * width:
            line = fitted(rest[0], width, size, bold)[:-1]  # without the ellipsis
            rest[0] = rest[0][len(line) :]
            if not line:
                return ""
        else:
            while rest and width_of(f"{line} {rest[0]}".strip(), size, bold) <= _SLACK * width:
                line = f"{line} {rest.pop(0)}".strip()
        lines.append(line)
    return "\n".join(lines)


def shortened(name: str, length: int = 16) -> str:
    """Cut the name of a class to one line as wide as `length` ordinary letters."""
    name = " ".join(str(name).split())
    return name if _room(name) <= length else f"{_beginning(name, length - 1)}…"


def short_names(names: Sequence[str], length: int = 16) -> list[str]:
    """Cut the names of classes and keep them distinct: names with equal beginnings are cut in the middle.

    A name without any letter in the fonts becomes the class's number.
    """
    whole = [" ".join(drawable(str(name)).split()) for name in names]
    whole = [name or f"class {place}" for place, name in enumerate(whole)]
    cut = [shortened(name, length) for name in whole]
    alike = {name for name, count in Counter(cut).items() if count > 1}
    if not alike:
        return cut
    tail = (length - 1) // 2
    middle = [
        f"{_beginning(full, length - 1 - tail)}…{_beginning(full[::-1], tail)[::-1]}"
        if name in alike and _room(full) > length
        else name
        for full, name in zip(whole, cut, strict=True)
    ]
    return [
        shortened(f"{place}: {name}", length) if count > 1 else name
        for place, (name, count) in enumerate(zip(middle, map(middle.count, middle), strict=True))
    ]


def _room(text: str) -> float:
    return sum(map(_room_of, text))


@cache
def _room_of(letter: str) -> float:
    return _WIDE if letter in _BROAD or unicodedata.east_asian_width(letter) in "WF" else 1.0


def _beginning(text: str, length: int) -> str:
    """Return the longest beginning of a text that is at most as wide as `length` ordinary letters."""
    room = 0.0
    for place, letter in enumerate(text):
        room += _room_of(letter)
        if room > length:
            return text[:place]
    return text
