"""Winograd's convolution and its gradients against the plain ones, its matrices over the rationals, its rounding.

Layers and models that compute with it are in test_winograd_layers.py, its memory in test_workspace.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.backends import Array, convolution, winograd
from convlstm.backends.geometry import Geometry, Padding, resolve_geometry
from tests.numerical import freeze

KERNELS = list(itertools.product(range(2, 6), repeat=2))
PADDINGS: dict[str, Padding] = {"same": "same", "valid": "valid", "uneven": ((0, 2), (1, 0)), "wider": 5}
OPERATIONS = ("convolve", "gradient_input", "gradient_weights")


class Case(NamedTuple):
    size: tuple[int, int]
    kernel: tuple[int, int] = (3, 3)
    padding: Padding = "same"
    N: int = 2
    C: int = 3
    D: int = 4

    def geometry(self) -> Geometry:
        return resolve_geometry(*self.size, self.kernel, padding=self.padding)

    def operands(self, dtype: str = "float64") -> tuple[Array, Array, Array]:
        """Return read-only x, W, dz."""
        rng = np.random.default_rng(0)
        outputs = (self.N, self.D, *self.geometry().output_shape(*self.size))
        shapes = ((self.N, self.C, *self.size), (self.D, self.C, *self.kernel), outputs)
        x, W, dz = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
        freeze((x, W, dz))
        return x, W, dz


def fast(x: Array, W: Array, dz: Array, geometry: Geometry) -> dict[str, Array]:
    kernel = winograd.transformed(W)
    return {
        "convolve": winograd.convolve(x, kernel, geometry),
        "gradient_input": winograd.gradient_input(dz, kernel, geometry, *x.shape[2:]),
        "gradient_weights": winograd.gradient_weights(x, dz, geometry),
    }


def plain(x: Array, W: Array, dz: Array, geometry: Geometry) -> dict[str, Array]:
    return {
        "convolve": convolution.convolve(x, W, geometry),
        "gradient_input": convolution.gradient_input(dz, W, geometry, *x.shape[2:]),
        "gradient_weights": convolution.gradient_weights(x, dz, geometry),
    }


def distance(found: Array, right: Array) -> float:
    """Return the largest difference, relative to the largest number."""
    assert found.shape == right.shape
    return float(np.abs(found - right).max() / np.abs(right).max())


def assert_agree(case: Case, tolerance: float = 1e-12, dtype: str = "float64") -> None:
    operands, geometry = case.operands(dtype), case.geometry()
    found, right = fast(*operands, geometry), plain(*operands, geometry)
    for name in OPERATIONS:
        assert found[name].dtype == dtype
        assert distance(found[name], right[name]) < tolerance, name


# Against the plain convolution ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", PADDINGS.values(), ids=PADDINGS.keys())
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_with_every_padding(kernel: tuple[int, int], padding: Padding) -> None:
    """On maps as large as the kernel, of one tile more or less, and of several tiles."""
    for size in (kernel, (5, 6), (6, 5), (11, 14)):
        assert_agree(Case(size, kernel, padding))


SHAPES = {
    "one pixel": Case((1, 1), padding=1),
    "one row": Case((1, 9), (3, 5), (2, 2)),
    "one column": Case((9, 1), (2, 4), (0, 3)),
    "one output, a kernel as large as the map": Case((5, 5), (5, 5), "valid"),
    "one channel of outputs": Case((7, 7), C=8, D=1),
    "several pieces of many maps": Case((8, 8), N=37),
    "several pieces of maps of one tile": Case((3, 4), N=140),
    "maps cut into strips": Case((70, 41), N=2, C=2, D=2),
    "a row of more tiles than a strip takes": Case((9, 270), N=2, C=2, D=2),
    "a large kernel: shorter strips": Case((26, 29), C=65, D=64),
    "many tiles in the kernel's gradient": Case((140, 141), N=2, C=2, D=2),
    "uneven strips of 2×2 tiles": Case((47, 13), (5, 5), ((3, 0), (0, 1)), C=2, D=2),
    "as few channels as are worth it": Case((12, 12), C=winograd.LEAST_CHANNELS, D=winograd.LEAST_CHANNELS),
    "padding wider than the map": Case((2, 1), (2, 3), ((7, 6), (9, 0))),
}


@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES.keys())
def test_sizes(case: Case) -> None:
    assert_agree(case)


@settings(deadline=None, max_examples=80)
@given(
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    kernel=st.sampled_from(KERNELS),
    padding=st.one_of(
        st.sampled_from(["same", "valid"]),
        st.tuples(st.tuples(st.integers(4, 7), st.integers(0, 4)), st.tuples(st.integers(0, 4), st.integers(4, 7))),
    ),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)),
    tiles=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_any_shape_cut_anywhere(
    size: tuple[int, int], kernel: tuple[int, int], padding: Padding, channels: tuple[int, int, int],
    tiles: tuple[int, int],
) -> None:  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "strip_tiles", lambda C, D: tiles[0])
        patch.setattr(winograd, "STRIP_TILES_OF_WEIGHTS", tiles[1])
        if isinstance(padding, str):  # which adds no room for the kernel
            size = (max(size[0], kernel[0]), max(size[1], kernel[1]))
        assert_agree(Case(size, kernel, padding, *channels))


@pytest.mark.parametrize("kernel", [(2, 5), (3, 3), (4, 4)])
@pytest.mark.parametrize("case", [Case((9, 13), C=16, D=24), Case((40, 33), N=3, C=8, D=9)])
def test_float32_to_its_rounding(case: Case, kernel: tuple[int, int]) -> None:
    assert_agree(case._replace(kernel=kernel), 4e-6, "float32")


@pytest.mark.parametrize("K", range(2, 6))
@pytest.mark.parametrize(("operation", "times"), [("convolve", 5), ("gradient_input", 7), ("gradient_weights", 5)])
def test_rounding_against_the_plain_products(operation: str, times: float, K: int) -> None:
    """With 128 channels, where 3.5–4.6, 5.6–6.2 and 1.9–3.7 times the plain one's error were measured.

    The plain gradient to the input sums shorter products than the plain convolution, and is nearer to the exact one.
    """
    case = Case((16, 16), (K, K), N=1, C=128, D=128)
    operands, geometry = case.operands("float32"), case.geometry()
    x, W, dz = (operand.astype("float64") for operand in operands)
    exact = plain(x, W, dz, geometry)[operation]
    by_fast, by_plain = (
        np.sqrt(np.square(results(*operands, geometry)[operation] - exact).mean() / np.square(exact).mean())
        for results in (fast, plain)
    )
    assert by_fast < times * by_plain
    assert by_fast < 2e-6


# Gradients ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", PADDINGS.values(), ids=PADDINGS.keys())
@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_the_transposes(kernel: tuple[int, int], padding: Padding) -> None:
    """⟨dz, W ∗ x⟩ = ⟨dx, x⟩ = ⟨dW, W⟩, whatever the plain convolution does; the sum's size by chance is the measure."""
    case = Case((9, 12), kernel, padding)
    x, W, dz = case.operands()
    found = fast(x, W, dz, case.geometry())
    terms = dz * found["convolve"]
    by_chance = np.sqrt(np.square(terms).sum())
    assert abs((found["gradient_input"] * x).sum() - terms.sum()) < 1e-12 * by_chance
    assert abs((found["gradient_weights"] * W).sum() - terms.sum()) < 1e-12 * by_chance


def nudged(K: int, dtype: str) -> winograd.Matrices:
    A, B, G = MATRICES(K, dtype)
    moved = G.copy()
    moved[2, 1] *= 1 + 1e-9
    return winograd.Matrices(A, B, moved)


def not_transposed(rows: Array, columns: Array, values: Array, name: str) -> Array:
    return TRANSFORM(rows.T, columns.T, values, name) if name == "V" else TRANSFORM(rows, columns, values, name)


def all_but_the_last(tiles: winograd.Tiles, N: int, most: int) -> Any:
    yield from list(PIECES(tiles, N, most))[:-1]


TRANSFORM, MATRICES, PIECES = winograd._transform, winograd.matrices, winograd.Tiles.pieces


@pytest.mark.parametrize(
    ("place", "name", "planted"),
    [
        (winograd, "matrices", nudged),
        (winograd, "_transform", not_transposed),
        (winograd.Tiles, "pieces", all_but_the_last),
    ],
    ids=["an entry of G off by 1e-9", "B for its transpose", "a strip left out"],
)
def test_planted_faults_are_seen(
    place: Any, name: str, planted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case((70, 41), C=2, D=2)  # of several strips
    assert_agree(case)
    monkeypatch.setattr(place, name, planted)
    with pytest.raises(AssertionError):
        assert_agree(case)


# The matrices ---------------------------------------------------------------------------------------------------------


def rational(matrix: Array) -> list[list[Fraction]]:
    """Return the fractions that float64 rounded to these numbers."""
    rows = [[Fraction(float(value)).limit_denominator(10**5) for value in row] for row in matrix]
    assert [[float(value) for value in row] for row in rows] == matrix.tolist()
    return rows


@pytest.mark.parametrize("K", range(2, 6))
def test_the_matrices_are_exact_over_the_rationals(K: int) -> None:
    """y = Aᵀ [(G g) ∘ (Bᵀ d)] is Σ_k g_k d_{v+k} for every pair of unit vectors g, d, and so for all."""
    A, B, G = map(rational, winograd.matrices(K, "d"))
    m = winograd.INPUTS + 1 - K
    assert (len(A[0]), len(B[0]), len(G[0])) == (m, winograd.INPUTS, K)
    for v, k, j in itertools.product(range(m), range(K), range(winograd.INPUTS)):
        found = sum(A[p][v] * G[p][k] * B[j][p] for p in range(winograd.INPUTS))
        assert found == (j == v + k)


@pytest.mark.parametrize("K", range(2, 6))
def test_the_matrices_in_float32_are_the_rounded_ones(K: int) -> None:
    for single, double in zip(winograd.matrices(K, "f"), winograd.matrices(K, "d"), strict=True):
        assert single.dtype == np.float32
        np.testing.assert_array_equal(single, double.astype("float32"))


# Tiles and pieces -----------------------------------------------------------------------------------------------------


@given(
    down=st.integers(1, 20), across=st.integers(1, 20), N=st.integers(1, 20), most=st.integers(1, 200)
)  # fmt: skip
def test_pieces_hold_every_tile_once_and_no_more_than_asked_for(down: int, across: int, N: int, most: int) -> None:
    seen = np.zeros((N, down), int)
    for maps, rows in winograd.Tiles((4, 4), (down, across)).pieces(N, most):
        seen[maps, rows] += 1
        size = seen[maps, rows].size * across
        assert size <= most or size == across
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("suits", "C", "D", "options", "size"),
    [
        (True, 8, 8, {}, (8, 8)),
        (False, 7, 8, {}, (8, 8)),
        (False, 8, 7, {}, (8, 8)),
        (True, 8, 8, {"kernel": (2, 5)}, (10, 8)),
        (False, 8, 8, {"kernel": (1, 3)}, (8, 8)),
        (False, 8, 8, {"kernel": (3, 6)}, (8, 8)),
        (False, 8, 8, {"stride": (1, 2)}, (8, 8)),
        (False, 8, 8, {"dilation": (2, 1)}, (8, 8)),
        (False, 8, 8, {"padding": 1}, (1, 1)),  # a tile for one output
        (True, 8, 8, {}, (5, 4)),  # two tiles for twenty outputs
        (False, 8, 8, {}, (3, 5)),  # two tiles for fifteen
    ],
)
def test_suits(suits: bool, C: int, D: int, options: dict[str, Any], size: tuple[int, int]) -> None:
    geometry = resolve_geometry(*size, **{"kernel": (3, 3), **options})
    assert winograd.suits(C, D, geometry, *size) is suits


# Bits -----------------------------------------------------------------------------------------------------------------


def channels_last(array: Array) -> Array:
    moved = np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    moved.flags.writeable = False
    return moved


def with_gaps(array: Array) -> Array:
    """Return the values with other numbers between them in memory."""
    wide = np.full((*array.shape[:3], 2 * array.shape[3]), 7, array.dtype)
    wide[..., ::2] = array
    wide.flags.writeable = False
    return wide[..., ::2]


@pytest.mark.parametrize("ordered", [channels_last, with_gaps, np.asfortranarray])
@pytest.mark.parametrize("case", [Case((12, 9), C=8, D=16), Case((9, 10), (5, 2), "valid", N=1, C=9, D=8)])
def test_bits_do_not_depend_on_how_operands_lie_in_memory(ordered: Callable[[Array], Array], case: Case) -> None:
    x, W, dz = case.operands("float32")
    right = fast(x, W, dz, case.geometry())
    for name, found in fast(ordered(x), ordered(W), ordered(dz), case.geometry()).items():
        np.testing.assert_array_equal(found, right[name], err_msg=name)


def test_the_kernel_is_kept_with_its_shape() -> None:
    _, W, _ = Case((5, 5), (2, 3)).operands()
    kernel = winograd.transformed(W)
    assert kernel.W is W
    assert kernel.shape == W.shape == (4, 3, 2, 3)
    np.testing.assert_array_equal(kernel.U_T, kernel.U.transpose(0, 2, 1))
    assert kernel.U.flags.c_contiguous
    assert kernel.U_T.flags.c_contiguous


def test_part_of_a_kernel_is_the_kernel_of_these_channels() -> None:
    case = Case((12, 9), C=6)
    x, W, dz = case.operands()
    part = winograd.of_channels(winograd.transformed(W), slice(2, 5))
    alone = winograd.transformed(W[:, 2:5])
    assert part.shape == (4, 3, 3, 3)
    np.testing.assert_array_equal(part.W, alone.W)
    geometry = case.geometry()
    for found, right in (
        (winograd.convolve(x[:, 2:5], part, geometry), convolution.convolve(x[:, 2:5], W[:, 2:5], geometry)),
        (
            winograd.gradient_input(dz, part, geometry, 12, 9),
            convolution.gradient_input(dz, W[:, 2:5], geometry, 12, 9),
        ),
    ):
        assert distance(found, right) < 1e-12
