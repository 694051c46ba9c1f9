"""Synthetic data: what is done to the pictures, that only seed, step and sample decide it, and where it is not done."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.harness import one_line
from support.kernel_cases import philox

import gpunn as gn
from gpunn.backend.base import Backend
from gpunn.backend.devices import select
from gpunn.data.loader import DataLoader, rows_of
from gpunn.errors import DataError, OptionError, ShapeError
from gpunn.kernels.augmentation import transforms

NOTHING = (0.0, 0.0, 0.0, 0.0, -1.0, 0)


def pictures(
    backend: Backend,
    samples: gn.Samples,
    augmentation: gn.Augmentation | None,
    *,
    seed: int = 3,
    count: int = 5,
    n: int | None = None,
    order: NDArray[Any] | None = None,
    step: int = 0,
    samples_last: bool = False,
    dtype: str = "float32",
    first: int = 0,
) -> NDArray[Any]:
    """A batch as the network gets it, (n, height, width, channels)."""
    n = len(samples) if n is None else n
    batches = DataLoader(backend, samples, dtype, augmentation, seed)
    order = np.arange(len(samples)) if order is None else order
    features = int(np.prod(samples.shape))
    memory = backend.asarray(np.full((features, n) if samples_last else (n, features), np.nan, dtype))
    rows = memory.T if samples_last else memory
    clock = backend.asarray(np.array([-1, -1, step, count], np.int32))
    batches.start(n, order)
    batches.take(clock, n, rows, first)
    taken = backend.to_host(memory)
    height, width, channels = samples.shape
    return (taken.T if samples_last else taken).reshape(n, channels, height, width).transpose(0, 2, 3, 1)


def images(
    n: int = 6, shape: tuple[int, int, int] = (9, 8, 2), dtype: type = np.uint8, scale: float = 1.0
) -> gn.Samples:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, *shape)).astype(dtype)
    return gn.Samples(x, np.arange(n) % 3, scale, 3)


# By limits of 0, and by known maps


@pytest.mark.parametrize("samples_last", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1 / 255])
@pytest.mark.parametrize("shape", [(9, 8, 2), (8, 9, 1), (1, 1, 3), (28, 28, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_limits_of_zero_are_the_plain_gather_to_the_bit(
    backend: Backend, dtype: type, shape: tuple[int, int, int], scale: float, samples_last: bool
) -> None:
    samples = images(6, shape, dtype, scale)
    order = np.array([4, 2, 0, 1, 5, 3])
    options: dict[str, Any] = {"order": order, "n": 2, "step": 1, "samples_last": samples_last}
    plain = pictures(backend, samples, None, **options)
    np.testing.assert_array_equal(pictures(backend, samples, gn.Augmentation(), **options), plain)
    np.testing.assert_allclose(plain, samples.inputs[[0, 1]].astype(np.float64) * scale, rtol=1e-6)


def moved(backend: Backend, samples: gn.Samples, augmentation: gn.Augmentation, count: int = 5) -> Any:
    """Pictures, and the maps that they were made with: (n, 6), rows m₀ … m₅."""
    maps = transforms(len(samples), 3, count, augmentation.limits).T.astype(np.float64)
    return pictures(backend, samples, augmentation, count=count), maps


def looked_up(image: NDArray[Any], y: float, x: float) -> NDArray[np.float64]:
    """Bilinear interpolation between the four pixels around a place, 0 outside the image; (channels,)."""
    height, width, channels = image.shape
    value = np.zeros(channels)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                value += (1 - abs(y - row)) * (1 - abs(x - column)) * image[row, column]
    return value


@pytest.mark.parametrize("samples_last", [False, True])
@pytest.mark.parametrize(
    "augmentation",
    [
        gn.Augmentation(shift=3.0),
        gn.Augmentation(rotation=30.0),
        gn.Augmentation(scale=0.4),
        gn.Augmentation(shear=0.5),
        gn.Augmentation(shift=2.0, rotation=15.0, scale=0.15, shear=0.1),
        gn.Augmentation(shift=100.0),
        gn.Augmentation(shift=2.0, rotation=15.0, flip=0.5),
    ],
    ids=repr,
)
def test_each_picture_is_its_image_seen_through_its_map(
    backend: Backend, augmentation: gn.Augmentation, samples_last: bool
) -> None:
    samples = images(scale=1 / 255)
    _, maps = moved(backend, samples, augmentation)
    taken = pictures(backend, samples, augmentation, samples_last=samples_last)
    for image, picture, (m0, m1, m2, m3, m4, m5) in zip(samples.inputs / 255, taken, maps, strict=True):
        for i in range(9):
            for j in range(8):
                y, x = i - 4.0, j - 3.5  # from the middle
                expected = looked_up(image, m3 * x + m4 * y + m5 + 4.0, m0 * x + m1 * y + m2 + 3.5)
                np.testing.assert_allclose(picture[i, j], expected, atol=2e-5)


@pytest.mark.parametrize("samples_last", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5])
def test_shares_of_a_batch_are_slices_of_its_pictures(backend: Backend, ranks: int, samples_last: bool) -> None:
    n, way = 37, gn.Augmentation(shift=2.0, rotation=15.0, scale=0.1, flip=0.5, cutout=3)
    samples = images(n)
    whole = pictures(backend, samples, way, samples_last=samples_last)
    for rank in range(ranks):
        share = np.arange(rank * n // ranks, (rank + 1) * n // ranks)
        of = {"n": len(share), "order": np.roll(np.arange(n), -share[0]), "first": int(share[0])}
        part = pictures(backend, samples, way, samples_last=samples_last, **of)
        np.testing.assert_array_equal(part, whole[share])


def test_pictures_moved_out_of_all_bounds_are_black(backend: Backend) -> None:
    taken = pictures(backend, images(), gn.Augmentation(shift=9e5, scale=0.9, shear=9.0))
    assert np.isfinite(taken).all()
    np.testing.assert_array_equal(taken, pictures(select("cpu"), images(), gn.Augmentation(9e5, scale=0.9, shear=9.0)))


@pytest.mark.parametrize("limits", [(2.0, 0.0, 0.0, 0.0), (0.0, 0.4, 0.0, 0.0), (1.5, 0.3, 0.2, 0.1)], ids=repr)
def test_maps_are_drawn_evenly_between_minus_and_plus_the_limits(limits: tuple[float, ...]) -> None:
    """Two counters of Philox for a sample: shift across and down, half a turn's tangent, growth; shear."""
    shift, half_tangent, scale, shear = limits
    maps = transforms(50, 8, 11, (*limits, -1.0, 0)).T
    drawn = []
    for sample, m in enumerate(maps):
        a, b = (philox((2 * sample + half, 11, 0, 0), (8, 4)) for half in (0, 1))
        u = [(word >> 8) / 2**23 - 1 for word in (*a, b[0])]
        drawn.append(u)
        angle, size = 2 * math.atan(u[2] * half_tangent), 1 + u[3] * scale
        cosine, sine = size * math.cos(angle), size * math.sin(angle)
        expected = [cosine, u[4] * shear * size - sine, u[0] * shift, sine, cosine, u[1] * shift]
        np.testing.assert_allclose(m, expected, atol=1e-6)
    values = np.array(drawn)
    assert np.abs(values).max() <= 1
    assert (np.abs(values.mean(axis=0)) < 5 * np.sqrt(1 / 3 / 50)).all()
    assert (np.abs(values).max(axis=0) > 0.8).all()


@pytest.mark.parametrize(("down", "across"), [(0, 0), (2, 0), (0, -3), (-1, 4), (20, 0)])
def test_a_shift_by_whole_pixels_is_exact(monkeypatch: pytest.MonkeyPatch, down: int, across: int) -> None:
    backend = select("cpu")  # a kernel on a device draws for itself
    import gpunn.kernels.augmentation as kernels

    def shifts(n: int, *_: Any) -> NDArray[Any]:
        m = np.array([1, 0, -across, 0, 1, -down], np.float32)
        return np.repeat(m[:, None], n, axis=1)

    monkeypatch.setattr(kernels, "transforms", shifts)
    samples = images(scale=1 / 255)
    plain, picture = (pictures(backend, samples, a) for a in (None, gn.Augmentation(shift=1.0)))
    expected = np.zeros_like(plain)
    for i in range(9):
        for j in range(8):
            if 0 <= i - down < 9 and 0 <= j - across < 8:
                expected[:, i, j] = plain[:, i - down, j - across]
    np.testing.assert_array_equal(picture, expected)


def test_a_shift_moves_the_centre_of_what_is_seen_by_what_was_drawn(backend: Backend) -> None:
    dot = np.zeros((40, 21, 21, 1), np.float32)
    dot[:, 9:12, 9:12] = 1.0
    taken, maps = moved(backend, gn.Samples(dot, np.zeros(40, int), classes=1), gn.Augmentation(shift=4.0))
    rows, columns = np.mgrid[:21, :21] - 10.0
    for picture, m in zip(taken[..., 0], maps, strict=True):
        np.testing.assert_allclose(picture.sum(), 9, rtol=1e-5)
        np.testing.assert_allclose((picture * columns).sum() / 9, -m[2], atol=1e-4)
        np.testing.assert_allclose((picture * rows).sum() / 9, -m[5], atol=1e-4)


def test_a_rotation_turns_a_bar_by_the_angle_drawn(backend: Backend) -> None:
    bar = np.zeros((40, 41, 41, 1), np.float32)
    bar[:, 19:22, 6:35] = 1.0
    taken, maps = moved(backend, gn.Samples(bar, np.zeros(40, int), classes=1), gn.Augmentation(rotation=89.0))
    rows, columns = np.mgrid[:41, :41] - 20.0
    angles = []
    for picture, m in zip(taken[..., 0].astype(np.float64), maps, strict=True):
        total = picture.sum()
        np.testing.assert_allclose(total, 3 * 29, rtol=0.03)
        xx, yy, xy = ((picture * a).sum() / total for a in (columns**2, rows**2, columns * rows))
        drawn = math.atan2(m[3], m[0])  # of the look-up; the picture turns the other way
        seen = 0.5 * math.atan2(2 * xy, xx - yy)
        difference = (seen + drawn + math.pi / 2) % math.pi - math.pi / 2
        assert abs(difference) < 0.03
        angles.append(drawn)
    assert min(angles) < math.radians(-60)
    assert max(angles) > math.radians(60)
    assert np.abs(angles).max() <= math.radians(89) + 1e-6


def test_growing_and_shrinking_keep_the_middle(backend: Backend) -> None:
    square = np.zeros((40, 31, 31, 1), np.float32)
    square[:, 10:21, 10:21] = 1.0
    taken, maps = moved(backend, gn.Samples(square, np.zeros(40, int), classes=1), gn.Augmentation(scale=0.3))
    rows, columns = np.mgrid[:31, :31] - 15.0
    for picture, m in zip(taken[..., 0].astype(np.float64), maps, strict=True):
        np.testing.assert_allclose(picture.sum(), 121 / m[0] ** 2, rtol=0.05)
        np.testing.assert_allclose([(picture * rows).sum(), (picture * columns).sum()], 0, atol=1e-3)
    assert maps[:, 0].min() < 0.8
    assert maps[:, 0].max() > 1.2


def test_moderate_changes_keep_the_ink_of_digits(backend: Backend) -> None:
    samples = gn.load_data("digits", limit=200, validation=0).train
    taken = pictures(backend, samples, gn.Augmentation(shift=0.5, rotation=8.0, scale=0.05, shear=0.05))
    plain = pictures(backend, samples, None)
    assert abs(taken.sum() / plain.sum() - 1) < 0.05
    assert not np.array_equal(taken, plain)
    assert taken.min() >= 0
    assert taken.max() <= 1


def test_channels_move_together(backend: Backend) -> None:
    grey = images(4, (9, 8, 1))
    colour = gn.Samples(np.repeat(grey.inputs, 3, axis=3), grey.targets, classes=3)
    augmentation = gn.Augmentation(shift=1.5, rotation=20.0, scale=0.2, shear=0.2)
    one, three = (pictures(backend, samples, augmentation) for samples in (grey, colour))
    for channel in range(3):
        np.testing.assert_array_equal(three[..., channel], one[..., 0])


# What decides the pictures


AUGMENTATION = gn.Augmentation(shift=1.5, rotation=20.0, scale=0.2, shear=0.2)


def test_pictures_follow_the_seed_and_the_step(backend: Backend) -> None:
    samples = images()
    first = pictures(backend, samples, AUGMENTATION, seed=3, count=5)
    np.testing.assert_array_equal(pictures(backend, samples, AUGMENTATION, seed=3, count=5), first)
    for seed, count in ((4, 5), (3, 6)):
        assert not np.array_equal(pictures(backend, samples, AUGMENTATION, seed=seed, count=count), first)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pictures_are_the_same_samples_first_and_samples_last(backend: Backend, dtype: str) -> None:
    for n in (1, 5):
        rows, columns = (
            pictures(backend, images(scale=1 / 255), AUGMENTATION, n=n, samples_last=last, dtype=dtype)
            for last in (False, True)
        )
        np.testing.assert_array_equal(rows, columns)


def test_pictures_are_computed_in_float32_in_every_dtype(backend: Backend) -> None:
    """So that they are the same on every device, whatever the network computes in."""
    single, double = (pictures(backend, images(scale=1 / 255), AUGMENTATION, dtype=d) for d in ("float32", "float64"))
    np.testing.assert_array_equal(double, single.astype(np.float64))


def test_a_picture_depends_on_its_place_in_the_batch_and_not_on_how_many_come_after(backend: Backend) -> None:
    samples = images()
    np.testing.assert_array_equal(
        pictures(backend, samples, AUGMENTATION, n=3), pictures(backend, samples, AUGMENTATION)[:3]
    )


def test_neighbours_and_repeated_samples_are_changed_in_other_ways(backend: Backend) -> None:
    samples = images()
    same = pictures(backend, samples, AUGMENTATION, order=np.zeros(6, int))
    assert len({picture.tobytes() for picture in same}) == 6


# In training, and nowhere else


@pytest.mark.parametrize(
    "layers",
    [[gn.Dense(12), gn.ReLU(), gn.Dense(10)], [gn.Conv2D(4, 3), gn.ReLU(), gn.Flatten(), gn.Dense(10)]],
    ids=len,
)
def test_fit_trains_on_changed_images_and_looks_at_unchanged_ones(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, layers: list[Any]
) -> None:
    data = gn.load_data("digits", limit=200, validation=40)
    seen: dict[bool, list[NDArray[Any]]] = {True: [], False: []}
    model = gn.Sequential(layers)
    propagate = model.propagate

    def watched(x: Any, training: bool, stages: Any) -> Any:
        seen[training].append(backend.to_host(x).reshape(64, -1))
        return propagate(x, training, stages)

    monkeypatch.setattr(model, "propagate", watched)
    options: dict[str, Any] = {"optimizer": gn.SGD(0.05), "epochs": 2, "device": backend, "progress": False}
    model.fit(data, batch_size=32, augmentation=AUGMENTATION, **options)
    assert data.validation is not None

    def known(samples: gn.Samples) -> set[bytes]:
        rows = rows_of(samples.inputs).astype(np.float32) * np.float32(samples.scale)
        return {row.tobytes() for row in rows}

    originals, validation = known(data.train), known(data.validation)
    trained = {np.ascontiguousarray(column).tobytes() for batch in seen[True] for column in batch.T}
    assert len(trained) == 2 * len(data.train)  # another picture each time an image is seen
    assert not trained & originals
    looked_at = [np.ascontiguousarray(column).tobytes() for batch in seen[False] for column in batch.T]
    assert looked_at
    assert set(looked_at) <= validation


def test_an_image_is_changed_in_another_way_each_epoch_and_the_same_in_each_run(backend: Backend) -> None:
    data = gn.load_data("digits", limit=100, validation=0)
    runs = []
    for seed, augmentation in ((0, AUGMENTATION), (0, AUGMENTATION), (1, AUGMENTATION), (0, None)):
        model = gn.Sequential([gn.Dense(8), gn.ReLU(), gn.Dense(10)])
        model.fit(data, epochs=2, batch_size=25, seed=seed, augmentation=augmentation, device=backend, progress=False)
        runs.append(model.parameters.to_host()["dense1.w"].tobytes())
    assert runs[0] == runs[1]
    assert len(set(runs)) == 3


def test_augmenting_flat_samples_is_refused(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    data = gn.Data("flat", gn.Samples(rng.normal(size=(20, 64)), rng.integers(0, 2, 20), classes=2), None, ("a", "b"))
    with pytest.raises(ShapeError, match=r"needs images \(height, width, channels\), got samples of \(64,\)") as caught:
        gn.Sequential([gn.Dense(2)]).fit(data, batch_size=10, augmentation=AUGMENTATION, device=backend, progress=False)
    one_line(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"shift": -1.0}, {"shift": float("inf")}, {"shift": float("nan")}, {"rotation": 90.0}, {"rotation": -5.0},
        {"scale": 1.0}, {"scale": -0.1}, {"shear": -0.1}, {"shear": 1e9},
    ],
    ids=repr,
)  # fmt: skip
def test_a_limit_that_cannot_be_is_refused(arguments: dict[str, float]) -> None:
    name = next(iter(arguments))
    with pytest.raises(OptionError, match=f"{name} of Augmentation must lie from 0 to below") as caught:
        gn.Augmentation(**arguments)
    one_line(caught.value)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"flip": 1.1}, "flip of Augmentation must lie from 0 to 1, got 1.1"),
        ({"flip": -0.1}, "flip of Augmentation must lie from 0 to 1"),
        ({"flip": float("nan")}, "flip of Augmentation must lie from 0 to 1"),
        ({"flip": True}, "flip of Augmentation must be a number, got True"),
        ({"cutout": -1}, "cutout of Augmentation must be a whole number of at least 0"),
        ({"cutout": 2.5}, "cutout of Augmentation must be a whole number of at least 0"),
        ({"cutout": 2**50}, "cutout of Augmentation must be at most"),
    ],
    ids=repr,
)
def test_a_flip_or_a_cutout_that_cannot_be_is_refused(arguments: dict[str, Any], wrong: str) -> None:
    with pytest.raises(OptionError, match=wrong) as caught:
        gn.Augmentation(**arguments)
    one_line(caught.value)


# Mirrored, and cut out


def drawn_by(n: int, seed: int = 3, count: int = 5) -> list[list[int]]:
    """The eight words of each sample."""
    return [philox((2 * j, count, 0, 0), (seed, 4)) + philox((2 * j + 1, count, 0, 0), (seed, 4)) for j in range(n)]


@pytest.mark.parametrize("flip", [0.0, 0.25, 0.5, 1.0])
def test_images_are_mirrored_left_to_right_with_a_probability(backend: Backend, flip: float) -> None:
    samples = images(200, (3, 4, 2))
    taken = pictures(backend, samples, gn.Augmentation(flip=flip))
    is_mirrored = np.array([words[5] < flip * 2**32 for words in drawn_by(200)])
    expected = np.where(is_mirrored[:, None, None, None], samples.inputs[:, :, ::-1], samples.inputs)
    np.testing.assert_array_equal(taken, expected)
    assert abs(is_mirrored.mean() - flip) < 0.1


@pytest.mark.parametrize("samples_last", [False, True])
@pytest.mark.parametrize("side", [1, 2, 3, 8, 100, 2**40])
def test_a_square_of_each_picture_is_cut_out(backend: Backend, side: int, samples_last: bool) -> None:
    samples = images(40, (7, 5, 2))
    samples.inputs[...] = np.maximum(samples.inputs, 1)
    taken = pictures(backend, samples, gn.Augmentation(cutout=side), samples_last=samples_last)
    for image, picture, words in zip(samples.inputs, taken, drawn_by(40), strict=True):
        middle = words[6] * 7 >> 32, words[7] * 5 >> 32
        assert (picture[middle] == 0).all()
        for i in range(7):
            for j in range(5):
                inside = all(-(side // 2) <= at - of < side - side // 2 for at, of in zip((i, j), middle, strict=True))
                np.testing.assert_array_equal(picture[i, j], 0 if inside else image[i, j])


def test_every_pixel_is_the_middle_of_a_square_equally_often(backend: Backend) -> None:
    samples = gn.Samples(np.ones((4000, 3, 4, 1), np.float32), np.zeros(4000, int), classes=1)
    share = (pictures(backend, samples, gn.Augmentation(cutout=1)) == 0).mean(axis=0)
    np.testing.assert_allclose(share, 1 / 12, atol=0.02)


def test_what_else_is_drawn_stays_as_it_was_where_images_are_mirrored_and_cut(backend: Backend) -> None:
    samples = images()
    plain, other = (
        pictures(backend, samples, gn.Augmentation(shift=2.0, rotation=15.0, flip=flip, cutout=side))
        for flip, side in ((0.0, 0), (1e-9, 1))
    )
    assert ((plain == other) | (other == 0)).all()


def test_it_shows_how_it_was_made() -> None:
    assert repr(gn.Augmentation(shift=2, rotation=10)) == "Augmentation(2.0, rotation=10.0)"
    assert gn.Augmentation().limits == NOTHING


# Applied to images at hand


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_pictures_applied_are_those_of_the_batch_of_this_step(backend: Backend, dtype: type) -> None:
    samples = images(5, dtype=dtype)
    augmentation = gn.Augmentation(shift=1.5, rotation=20.0, scale=0.2, shear=0.2, flip=0.5, cutout=3)
    applied = augmentation.apply(samples.inputs, seed=3, step=5)
    assert applied.dtype == np.float32
    np.testing.assert_array_equal(applied, pictures(backend, samples, augmentation, seed=3, count=5))
    assert not np.array_equal(applied, augmentation.apply(samples.inputs, seed=3, step=6))


def test_images_of_one_channel_are_applied_to_with_and_without_it() -> None:
    grey, augmentation = images(4, (9, 8, 1)).inputs, gn.Augmentation(shift=2.0, cutout=2)
    before = grey.copy()
    flat = augmentation.apply(grey[..., 0])
    assert flat.shape == (4, 9, 8)
    np.testing.assert_array_equal(flat, augmentation.apply(grey)[..., 0])
    np.testing.assert_array_equal(grey, before)
    np.testing.assert_array_equal(gn.Augmentation().apply(grey), grey)


@pytest.mark.parametrize(
    ("given", "options", "error", "wrong"),
    [
        (np.zeros((8, 8)), {}, ShapeError, r"got shape \(8, 8\): image\[None\] makes a batch of one image"),
        (np.zeros((0, 8, 8, 1)), {}, ShapeError, r"got shape \(0, 8, 8, 1\): give an array of images"),
        (np.full((1, 8, 8), np.nan), {}, DataError, "NaN in sample 0"),
        ("images", {}, DataError, "images must be numbers"),
        (np.zeros((1, 8, 8)), {"seed": -1}, OptionError, "seed must be a whole number"),
        (np.zeros((1, 8, 8)), {"step": 0.5}, OptionError, "step of Augmentation.apply must be a whole number"),
        (np.zeros((1, 8, 8)), {"step": 2**31}, OptionError, "step of Augmentation.apply must be below"),
    ],
    ids=["one image", "none", "nan", "text", "seed", "half a step", "late step"],
)
def test_images_that_cannot_be_applied_to_are_refused(
    given: Any, options: dict[str, Any], error: type[Exception], wrong: str
) -> None:
    with pytest.raises(error, match=wrong) as caught:
        gn.Augmentation(shift=1.0).apply(given, **options)
    one_line(caught.value)
