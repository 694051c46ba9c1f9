"""Fill in a vowel that was rubbed out, from the six characters on each side: `python examples/vowels.py`.

The text is gpunn's own documents; every fifth paragraph is kept for the test. An Embedding looks the characters up. It
also writes vowels.npz, from which `gpunn train` learns the same by an experiment file: docs/embedding.md.
"""

from pathlib import Path

import numpy as np

import gpunn as gn

CHARACTERS, VOWELS, SIDE = " abcdefghijklmnopqrstuvwxyz", "aeiou", 6


def codes_of(text: str) -> np.ndarray:
    """Number the characters of a text, 0 for all between the words."""
    words = "".join(letter if letter in CHARACTERS else " " for letter in text.lower()).split()
    return np.array([CHARACTERS.index(letter) for letter in " ".join(words)], np.uint8)


def gaps_in(paragraphs: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Cut the neighbours of each vowel out of a text, (n, 2 · SIDE), and number the vowels, (n,)."""
    codes = codes_of(" ".join(paragraphs))
    vowels = [CHARACTERS.index(vowel) for vowel in VOWELS]
    at = SIDE + np.flatnonzero(np.isin(codes[SIDE:-SIDE], vowels))
    beside = [place for place in range(-SIDE, SIDE + 1) if place]
    return np.stack([codes[at + place] for place in beside], axis=1), np.searchsorted(vowels, codes[at])


files = sorted((Path(__file__).resolve().parents[1] / "docs").rglob("*.md"))
paragraphs = "\n\n".join(file.read_text("utf-8") for file in files).split("\n\n")
(x, y), (x_test, y_test) = gaps_in([each for n, each in enumerate(paragraphs) if n % 5]), gaps_in(paragraphs[::5])
np.savez_compressed("vowels.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test, class_names=list(VOWELS))

model = gn.Sequential([gn.Embedding(27, 16), gn.Flatten(), gn.Dense(256), gn.ReLU(), gn.Dense(5)])
model.fit(gn.load_data("vowels.npz", tokens=27), optimizer=gn.Adam(gn.OneCycle(0.003)), epochs=6)
print(model.summary())
print(f"test accuracy {model.evaluate(x_test, y_test).accuracy:.2%}, always e {np.mean(y_test == 1):.2%}")
for text in ("the grad_ent of", "that it l_arned from", "fill in a v_wel of"):
    before, after = text.split("_")
    codes = np.concatenate([codes_of(before)[-SIDE:], codes_of(after)[:SIDE]])
    (vowel,) = model.predict_names(codes[None])
    print(f"{text}: {vowel}")
