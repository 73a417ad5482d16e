"""How fast anomalies fade: the factors, against a loop over pairs of values, and on what they do not depend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convlstm.data import scaling
from convlstm.data.damping import damping
from tests.field_runs import series_of
from tests.plain_scores import plain_damping

STRETCHES = (range(6), range(6, 7), range(9, 17))


def anomalies(seed: int = 0, missing: float = 0.3, channels: int = 2) -> NDArray[Any]:
    """Return frames (20, C, 3, 4) each of which is partly like the one before, NaN here and there."""
    rng = np.random.default_rng(seed)
    frames = rng.normal(size=(20, channels, 3, 4))
    for t in range(1, 20):
        frames[t] += 0.8 * frames[t - 1]
    frames[rng.random(frames.shape) < missing] = np.nan
    return frames.astype(np.float32)


@given(seed=st.integers(0, 2**32), missing=st.sampled_from([0, 0.3, 0.95, 1]), channels=st.integers(1, 3),
       lags=st.integers(1, 9))  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_the_factors_of_pairs_that_are_there(seed: int, missing: float, channels: int, lags: int) -> None:
    frames = anomalies(seed, missing, channels)
    factors = damping(series_of(frames), STRETCHES, lags)
    assert factors.shape == (lags, channels)
    assert np.allclose(factors, plain_damping(frames, STRETCHES, lags), rtol=1e-12, atol=1e-15)


def test_by_hand() -> None:
    frames = np.array([1, 2, np.nan, 1, 5, 3], np.float32)[:, None, None]
    one, two, three = damping(series_of(frames), (range(4), range(4, 6)), 3)[:, 0]
    assert one == (1 * 2 + 5 * 3) / (1 + 25)
    assert two == 2 * 1 / 4
    assert three == 1 * 1 / 1


def test_what_stays_and_what_alternates_and_what_has_no_pair() -> None:
    still, alternating = np.ones((8, 2, 2)), np.array([1, -1] * 4)[:, None, None] * np.ones((8, 2, 2))
    frames = np.stack([still, alternating, 0 * still, np.nan * still], 1)
    factors = damping(series_of(frames), (range(8),), 9)
    assert np.array_equal(factors[:7, 0], np.ones(7))
    assert np.array_equal(factors[:7, 1], [-1, 1, -1, 1, -1, 1, -1])
    assert not factors[:, 2:].any()
    assert not factors[7:].any()  # of eight frames none is that far from another


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_no_bit_depends_on_how_many_are_read_at_once(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    series = series_of(anomalies())
    whole = damping(series, STRETCHES, 4)
    monkeypatch.setattr(scaling, "ELEMENTS_AT_ONCE", at_once * 2 * 3 * 4)
    assert damping(series, STRETCHES, 4).tobytes() == whole.tobytes()


def test_other_frames_do_not_count() -> None:
    frames = anomalies()
    whole = damping(series_of(frames), STRETCHES, 4)
    frames[[7, 8, 17, 18, 19]] = 1e6
    assert damping(series_of(frames), STRETCHES, 4).tobytes() == whole.tobytes()


def test_it_is_the_best_multiple() -> None:
    """No other factor makes a smaller error in the training frames."""
    frames = anomalies(missing=0, channels=1).astype(np.float64)
    for k, (factor,) in enumerate(damping(series_of(frames), (range(20),), 3), start=1):
        errors = [((a * frames[:-k] - frames[k:]) ** 2).sum() for a in (factor - 0.01, factor, factor + 0.01)]
        assert errors[1] < min(errors[0], errors[2])


def test_large_values_are_no_overflow() -> None:
    frames = np.array([3e38, -3e38, 3e38], np.float32)[:, None, None]
    assert np.array_equal(damping(series_of(frames), (range(3),), 2)[:, 0], [-1, 1])
