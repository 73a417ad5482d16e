"""How fast what differs from the climatology fades: the factor of damped persistence, which is hard to beat.

    a_k = Σ x_t x_{t+k} / Σ x_t²             x: value minus climatology, over all pixels and pairs of training frames

The forecast a_k x_T + climatology is the best that a multiple of the last anomaly can make in the training frames: with
a_k = 1 it is persistence of the anomaly, with a_k = 0 climatology.

Source: H. van den Dool, "Empirical methods in short-term climate prediction", Oxford University Press 2007, chapter 8.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from convlstm.data.scaling import read_in_chunks
from convlstm.data.series import Series


def damping(anomalies: Series, frames: Sequence[range], lags: int) -> NDArray[np.float64]:
    """Return a_k of each channel for k = 1 … lags, (lags, C); 0 where no pair has a value other than 0.

    Args:
        anomalies: a series whose values are differences from a climatology, NaN where missing.
        frames: which to look at, each range without a hole: those of the training split.
        lags: ≥ 1.
    """
    products, squares = np.zeros((lags, anomalies.shape[1])), np.zeros((lags, anomalies.shape[1]))
    for stretch in frames:
        before: deque[NDArray[np.float64]] = deque(maxlen=lags)  # the newest first
        for _, chunk in read_in_chunks(anomalies, [stretch]):
            for frame in chunk.astype(np.float64):
                for k, earlier in enumerate(before):
                    known = ~np.isnan(earlier) & ~np.isnan(frame)
                    first = np.where(known, earlier, 0)
                    products[k] += (first * np.where(known, frame, 0)).sum(axis=(1, 2))
                    squares[k] += (first * first).sum(axis=(1, 2))
                before.appendleft(frame)
    return np.where(squares > 0, products / np.where(squares > 0, squares, 1), 0)
