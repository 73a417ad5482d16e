from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlstm.backends.geometry import Geometry, as_pair, resolve_geometry, same_padding


@given(size=st.integers(1, 40), extent=st.integers(1, 9), stride=st.integers(1, 4))
def test_same_padding_makes_the_output_size_over_stride_rounded_up(size: int, extent: int, stride: int) -> None:
    before, after = same_padding(size, extent, stride)
    outputs = (size + before + after - extent) // stride + 1
    assert outputs == -(-size // stride)
    assert after - before in (0, 1)


def test_same_padding_of_an_even_kernel_puts_the_odd_zero_behind() -> None:
    assert same_padding(10, 4, 1) == (1, 2)


@pytest.mark.parametrize(
    ("padding", "sides"),
    [
        ("valid", ((0, 0), (0, 0))),
        ("same", ((1, 1), (2, 2))),
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        (((0, 1), (2, 3)), ((0, 1), (2, 3))),
    ],
)
def test_padding_forms(padding: object, sides: object) -> None:
    assert resolve_geometry(8, 9, (3, 5), padding=padding).padding == sides  # type: ignore[arg-type]


@pytest.mark.parametrize("padding", ["full", -1, (1, -1), ((1, 2), 3.0), (1, 2, 3), None, 1.5, True])
def test_a_wrong_padding_is_named(padding: object) -> None:
    with pytest.raises(ValueError, match="padding must be"):
        resolve_geometry(8, 8, (3, 3), padding=padding)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("padding", "dilation", "said"),
    [
        ("same", 1, r"kernel 5×5 is larger than the map 4×9"),
        ("valid", 1, r"kernel 5×5 is larger than the map 4×9"),
        (((0, 0), (1, 1)), 1, r"kernel 5×5 is larger than the map 4×9 padded to 4×11"),
        (1, 2, r"kernel 5×5 \(dilated to 9×9\) is larger than the map 4×9 padded to 6×11"),
    ],
)
def test_a_kernel_larger_than_the_map_is_an_error(padding: object, dilation: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        resolve_geometry(4, 9, (5, 5), padding=padding, dilation=(dilation, dilation))  # type: ignore[arg-type]


def test_padding_may_make_room_for_the_kernel() -> None:
    assert resolve_geometry(4, 9, (5, 5), padding=1).output_shape(4, 9) == (2, 7)


def test_extent_counts_the_gaps_of_dilation() -> None:
    assert Geometry((3, 4), (1, 1), (2, 3), ((0, 0), (0, 0))).extent == (5, 10)


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", (1,), (1, 0), (1, 2, 3), True, None])
def test_as_pair_names_what_is_wrong(value: object) -> None:
    with pytest.raises(ValueError, match="stride must be an integer ≥ 1 or a pair"):
        as_pair("stride", value)  # type: ignore[arg-type]


def test_as_pair() -> None:
    assert as_pair("stride", 3) == (3, 3)
    assert as_pair("stride", (1, 2)) == (1, 2)
    assert as_pair("padding", 0, least=0) == (0, 0)
