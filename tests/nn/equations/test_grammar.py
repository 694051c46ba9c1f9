"""What an equation may have; all else is refused in one line, at once, and nothing of it is executed."""

import random
import re
import signal
import time
from collections.abc import Iterator

import pytest
from support.harness import one_line

import gpunn as gn
from gpunn.errors import OptionError
from gpunn.nn.equations.code import activation_code
from gpunn.nn.equations.derive import stable
from gpunn.nn.equations.functions import value_of
from gpunn.nn.equations.grammar import FUNCTIONS, MOST_CHARACTERS, read

HOSTILE = {
    "attribute": ("z.__class__", "attribute at character 1"),
    "dunder": ("__import__(1) + z", "unknown name '__import__'"),
    "call of an attribute": ("z.real()", "calls something that is no function"),
    "text": ("exp('z')", 'has "\'" at character 5'),
    "f-string": ('f"{z}"', "at character 2"),
    "subclasses": ("z.__class__.__base__.__subclasses__()", "calls something that is no function"),
    "bytes": ("b'z'", 'has "\'" at character 2'),
    "set": ("{z}", r"has '\{'"),
    "await": ("await z", "something else"),
    "yield": ("(yield z)", "something else"),
    "slice": ("z[1:2]", r"has '\['"),
    "index": ("z[0]", "has '\\['"),
    "lambda": ("(lambda: z)()", "has ':'"),
    "comprehension": ("sum(z for z in (z,))", "unknown name 'sum'"),
    "walrus": ("(z := 1)", "has ':'"),
    "power tower": ("9**9**9**9", "exponent"),
    "tower of powers of z": ("((z**64)**64)**64", "limit the power"),
    "chain of powers": ("((((z + 1)**64 + 1)**64 + 1)**64 + 1)**64", "limit the power"),
    "tower of e": ("e**e**e**e**e * z", "not finite"),
    "huge powers": ("((((((z + 9**9)**64)**64)**64)**64)**64)**0 * 9**9**9", "exponent"),
    "power of powers": ("((9**30)**60)**60 + z", "too large"),
    "variable exponent": ("z**z", r"exp\(y \* log\(x\)\)"),
    "long": ("z + " * 300_000 + "z", "at most 4,096 characters"),
    "many": ("z+" * 150 + "z", "more than 200"),
    "deep": ("(" * 1500 + "z" + ")" * 1500, "character"),
    "signs": ("-" * 4000 + "z", "character"),
    "nested calls": ("exp(" * 900 + "z" + ")" * 900, "character"),
    "nested functions": ("abs(" * 190 + "z" + ")" * 190, "nested too deeply"),
    "digits": ("1" * 4000 + " * z", "plain number|digits"),
    "10,000 digits": ("1" * 10_000 + " * z", "at most 4,096 characters"),
    "1e400": ("1e400 * z", "'1e400', which is no plain number"),
    "long exponent": ("1e" + "9" * 3000 + " * z", "plain number|digits"),
    "large number": ("1e31 * z", "beyond"),
    "complex": ("1j * z", "plain number"),
    "hexadecimal": ("0xff * z", "plain number"),
    "complex root": ("(-8)**(1 / 3) * z", "root of a negative"),
    "complex root of a sum": ("(0 - 1)**0.5 + z", "root of a negative"),
    "0 by 0": ("0 / 0 * z", "divides by 0"),
    "a difference of 0": ("1 / (z - z)", "divides by 0"),
    "divided by 0": ("z / 0", "divides by 0"),
    "divided by a hidden 0": ("z / (exp(0) - 1)", "divides by 0"),
    "negative power of a hidden 0": ("z * (exp(0) - 1)**-2", "divides by 0"),
    "hidden 0 among factors": ("1 / (z * (exp(0) - 1))", "inf|nan|finite"),
    "root of a negative number": ("z * sqrt(-2)", "root of a negative"),
    "root of one in disguise": ("z * sqrt(1 - pi)", "root of a negative"),
    "logarithm of 0": ("z * log(0)", "not finite"),
    "unknown function": ("expp(z)", "did you mean exp"),
    "unknown name": ("q * z", "unknown name 'q'"),
    "natural logarithm": ("ln(z)", "did you mean log"),
    "function without arguments": ("exp * z", "exp without its arguments"),
    "too many arguments": ("exp(z, z)", "exp other arguments"),
    "keyword": ("exp(x=z)", "exp other arguments"),
    "star": ("max(*z)", "max other arguments"),
    "comparison": ("z > 0", "comparison outside of where"),
    "where without one": ("where(z, 1, 2)", "single comparison"),
    "nested where": ("where(z > 0, " * 90 + "z" + ", 0)" * 90, "more than 200"),
    "more nested where": ("where(z > 0, " * 300 + "z" + ", 0)" * 300, "at most 4,096 characters"),
    "nested conditions": ("where(" * 90 + "z > 0" + ", 1, 0) > 0" * 89 + ", 1, 0)", "more than 200|character"),
    "chain": ("where(0 < z < 1, z, 0)", "single comparison"),
    "and": ("where(z > 0 and z < 1, z, 0)", "single comparison"),
    "if": ("z if z else 0", "if"),
    "tuple": ("z, z", "comma"),
    "matrix product": ("z @ z", "has '@'"),
    "floor": ("z // 2", "another operation"),
    "bitwise": ("z ^ 2", r"has '\^'"),
    "statement": ("import os", "at character"),
    "several lines": ("z\nz", "at character"),
    "null": ("z\0", r"\\x00"),
    "null first": ("\0z", r"\\x00' at character 1"),
    "Cyrillic": ("\N{CYRILLIC SMALL LETTER IE}xp(z)", "at character 1"),
    "fullwidth": ("\N{FULLWIDTH LATIN SMALL LETTER E}xp(z)", "at character 1"),
    "zero width": ("z\u200b", r"\\u200b"),
    "from right to left": ("z\u202e", r"\\u202e"),
    "surrogate": ("z\ud800", r"\\ud800"),
    "Greek": ("ζ + z", "has 'ζ'"),
    "wide digits": ("z * １", "has '１'"),
    "empty": ("", "at character 1"),
    "no z": ("1 + 2", "does not depend on z"),
    "True": ("True * z", "plain number"),
    "nan": ("nan * z", "unknown name 'nan'"),
}


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    """One that hangs ends the test."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("takes too long"))
    signal.setitimer(signal.ITIMER_REAL, 20)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_equation_has_is_refused_in_one_line(name: str) -> None:
    text, said = HOSTILE[name]
    begin = time.thread_time()  # of this thread alone, whatever else the machine does
    with pytest.raises(OptionError, match=said) as caught:
        gn.Activation.from_equation("own", text)
    assert time.thread_time() - begin < 1
    one_line(caught.value)
    with pytest.raises(OptionError):
        gn.Loss.from_equation("own", text.replace("z", "a"))
    assert time.thread_time() - begin < 2


def test_the_place_is_that_in_the_text() -> None:
    with pytest.raises(OptionError, match="at character 10:"):
        gn.Activation.from_equation("own", "  z + 1 +q")
    with pytest.raises(OptionError, match=r"at character 10: write numbers.*where.*tanh"):
        gn.Activation.from_equation("own", "  z + 1 +q")


@pytest.mark.parametrize("thing", [None, 3, b"z", ["z"], {"z": 1}])
def test_what_is_no_text_is_refused(thing: object) -> None:
    for kind in (gn.Activation, gn.Loss):
        with pytest.raises(OptionError) as caught:
            kind.from_equation("own", thing)  # type: ignore[arg-type]
        one_line(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * 4**2 / 8 - 1", 7.0), ("-2**2", -4.0), ("(1 + 2) * 3", 9.0), (".5 + 5. + 1e-1", 5.6),
        ("max(1, 2) + min(3, 4)", 5.0), ("where(1 < 2, 5, 6)", 5.0), ("where(2 != 2, 5, 6)", 6.0),
        ("sqrt(16) + abs(-3) + sign(-2)", 6.0), ("2**-1 + 4**0.5", 2.5), ("exp(0) + log(e)", 2.0),
        ("sin(pi / 2) + cos(0) + tan(0) + atan(0)", 2.0), ("log1p(0) + expm1(0) + sinh(0) + cosh(0)", 1.0),
        ("tanh(0) + sigmoid(0) + erf(0)", 0.5), ("0.1 + 0.2", 0.3), (" 1 +\n 2\t", 3.0),
    ],
)  # fmt: skip
def test_an_equation_means_what_is_written(text: str, value: float) -> None:
    assert value_of(read(text, ["z"])) == pytest.approx(value, rel=1e-15)


def texts(rng: random.Random, depth: int) -> str:
    """A random equation."""
    if depth == 0:
        return rng.choice(["z", "z", "y", "a", "2", "0.3", "pi", "1e3"])
    parts = [texts(rng, depth - rng.randint(1, 2) if depth > 1 else 0) for _ in range(3)]
    name = rng.choice([one for one in FUNCTIONS if one not in ("max", "min", "where")])
    return rng.choice(
        [
            f"({parts[0]} {rng.choice('+-*/')} {parts[1]})", f"({parts[0]})**{rng.choice([2, -1, 3, 0.5, -64, 64])}",
            f"{name}({parts[0]})", f"{rng.choice(['max', 'min'])}({parts[0]}, {parts[1]})",
            f"where({parts[0]} {rng.choice(['<', '>=', '=='])} {parts[1]}, {parts[2]}, {parts[0]})",
        ]
    )  # fmt: skip


def test_any_equation_is_taken_or_refused_in_one_line() -> None:
    rng, taken = random.Random(0), 0
    for _ in range(150):
        text = texts(rng, rng.randint(1, 5))
        for make in (gn.Activation.from_equation, gn.Loss.from_equation):
            try:
                make("own", re.sub(r"\b[ay]\b", "z", text) if make is gn.Activation.from_equation else text)
                taken += 1
            except OptionError as error:
                one_line(error)
    assert taken > 5


def test_the_largest_equations_are_read_and_derived() -> None:
    for text in (
        "*".join(["sigmoid(z)", "(z+1)"] * 18), "+".join(["exp(-z**2)"] * 20), "tanh(" * 60 + "z" + ")" * 60,
        "where(z > 0, " * 15 + "z" + ", 0)" * 15,
    ):  # fmt: skip
        assert len(text) < MOST_CHARACTERS
        activation_code(text, (), False)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("log(1 + exp(z))", "softplus(z)"), ("log(1 + z)", "log1p(z)"), ("exp(z) - 1", "expm1(z)"),
        ("2 - 2 * exp(z)", "-2*expm1(z)"), ("1 / (1 + exp(-z))", "sigmoid(z)"), ("exp(z) / (1 + exp(z))", "sigmoid(z)"),
        ("1 / (2 + 2 * exp(z))", "sigmoid(-z)/2"), ("log(sigmoid(z))", "-softplus(-z)"),
        ("log(1 - sigmoid(z))", "-softplus(z)"), ("log(cosh(z))", "logcosh(z)"), ("log(exp(z))", "z"),
        ("(exp(z) - exp(-z)) / (exp(z) + exp(-z))", "tanh(z)"), ("sinh(z) / cosh(z)", "tanh(z)"),
        ("sqrt(z**2)", "abs(z)"), ("log(exp(z) + exp(3 * z))", "3*z + softplus(-2*z)"),
        ("max(z, 0) + log1p(exp(-abs(z)))", "softplus(z)"),
        ("exp(-z) / (1 + exp(-z))**2", "sigmoid(z)*sigmoid(-z)"),
    ],
)  # fmt: skip
def test_what_overflows_on_the_way_is_rewritten(text: str, form: str) -> None:
    import sympy

    made = sympy.sstr(stable(read(text, ["z"])))
    assert sorted(made.replace(" ", "")) == sorted(form.replace(" ", "")), made
