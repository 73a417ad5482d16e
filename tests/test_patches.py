"""Folding pixels into channels: where each pixel goes, and that it comes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.backends import Array
from convlstm.patches import fold, unfold


def numbered(*shape: int) -> Array:
    """Every element another number, read-only."""
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    array.flags.writeable = False
    return array


sizes = st.integers(1, 3)


@settings(deadline=None)
@given(N=sizes, T=sizes, C=sizes, rows=sizes, columns=sizes, P=st.integers(1, 4))
def test_pixels_go_where_the_docstring_says(N: int, T: int, C: int, rows: int, columns: int, P: int) -> None:
    frames = numbered(N, T, C, rows * P, columns * P)
    folded = fold(frames, P)
    assert folded.shape == (N, T, C * P * P, rows, columns)
    for c, y, x, j, i in np.ndindex(C, rows, columns, P, P):
        np.testing.assert_array_equal(folded[:, :, (c * P + j) * P + i, y, x], frames[:, :, c, P * y + j, P * x + i])


@settings(deadline=None)
@given(N=sizes, T=sizes, C=sizes, rows=sizes, columns=sizes, P=st.integers(1, 4))
def test_unfold_undoes_fold_and_fold_undoes_unfold(N: int, T: int, C: int, rows: int, columns: int, P: int) -> None:
    frames = numbered(N, T, C, rows * P, columns * P)
    np.testing.assert_array_equal(unfold(fold(frames, P), P), frames)
    folded = numbered(N, T, C * P * P, rows, columns)
    np.testing.assert_array_equal(fold(unfold(folded, P), P), folded)


@pytest.mark.parametrize(("H", "W", "P"), [(4, 6, 4), (6, 4, 4), (5, 5, 2), (4, 4, 0), (4, 4, -2)])
def test_a_patch_that_does_not_divide_the_frame(H: int, W: int, P: int) -> None:
    with pytest.raises(ValueError, match=f"patch {P} must divide the height and width of the frames; got {H}×{W}"):
        fold(numbered(1, 1, 1, H, W), P)


@pytest.mark.parametrize(("channels", "P"), [(6, 2), (4, 3), (4, 0)])
def test_channels_that_are_no_patches(channels: int, P: int) -> None:
    with pytest.raises(ValueError, match=f"patch {P} needs a multiple of {P * P} channels to unfold; got {channels}"):
        unfold(numbered(1, 1, channels, 2, 2), P)
