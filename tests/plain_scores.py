"""All scores of a forecast from their definitions, and the forecasts on which `Totals` is held against them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import convlstm.metrics
from convlstm.metrics import Totals
from tests.numerical import freeze

Array = NDArray[Any]

N, T, C, H, W = 3, 2, 2, 9, 10
SHAPE = (N, T, C, H, W)
VALUE_RANGE = 2.0
THRESHOLDS = (0, 0.25, 0.5, 0.75)
EDGE = 3  # half of SSIM's window


def batch(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> tuple[Array, Array, Array]:
    """Forecast, truth and valid; multiples of 1/8, so that thresholds are met; neither is finite where not valid."""
    rng = np.random.default_rng(seed)
    truth = (rng.integers(0, 9, shape) / 8).astype(np.float32)
    forecast = (truth + rng.integers(-3, 4, shape) / 8).astype(np.float32)
    valid = rng.random(shape) > 0.3
    valid[0, 0] = False  # a frame of which nothing is known
    truth[~valid], forecast[~valid] = np.nan, np.inf
    freeze((forecast, truth, valid))
    return forecast, truth, valid


def complete(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> tuple[Array, Array]:
    """Forecast and truth that are valid everywhere."""
    forecast, truth, valid = batch(seed, shape)
    arrays = np.where(valid, forecast, np.float32(0.5)), np.where(valid, truth, np.float32(0.25))
    freeze(arrays)
    return arrays


def totals(
    forecast: Array, truth: Array, valid: Array | None = None, metrics: Any = convlstm.metrics, **options: Any
) -> Totals:
    chosen = {"value_range": VALUE_RANGE, "thresholds": THRESHOLDS, **options}
    sums: Totals = metrics.Totals(forecast.shape[1], **chosen)
    sums.add(forecast, truth, valid)
    return sums


def ratio(sum_: float, count: float) -> float:
    return sum_ / count if count else math.nan


def plain_ssim(p: Array, y: Array, valid: Array) -> float:
    """SSIM as Wang et al. 2004 define it, (H, W), a window of 7×7 after the other, with sample variances."""
    if not valid.any():
        return math.nan
    p, y = p.astype(float), y.astype(float)
    p, y = (np.where(valid, frame, y[valid].mean()) for frame in (p, y))
    c1, c2 = (0.01 * VALUE_RANGE) ** 2, (0.03 * VALUE_RANGE) ** 2
    found = []
    for row, column in np.argwhere(valid):
        window = (slice(row - EDGE, row + EDGE + 1), slice(column - EDGE, column + EDGE + 1))
        if min(row, column) >= EDGE and p[window].shape == (7, 7):
            (vp, cov), (_, vy) = np.cov(p[window].ravel(), y[window].ravel())
            mp, my = p[window].mean(), y[window].mean()
            found.append((2 * mp * my + c1) * (2 * cov + c2) / ((mp**2 + my**2 + c1) * (vp + vy + c2)))
    return ratio(math.fsum(found), len(found))


def plain_scores(forecast: Array, truth: Array, valid: Array) -> dict[str, float]:
    """All scores of frames (M, C, H, W), from their definitions."""
    pairs = [(float(p), float(y)) for p, y, v in zip(forecast.flat, truth.flat, valid.flat, strict=True) if v]
    squares, absolutes = (math.fsum(abs(p - y) ** power for p, y in pairs) for power in (2, 1))
    frames = sum(bool(frame.any()) for frame in valid)
    maps = [
        (p, y, v)
        for p, y, v in zip(*(array.reshape(-1, H, W) for array in (forecast, truth, valid)), strict=True)
        if v.any()
    ]
    ssims = [value for value in (plain_ssim(*one) for one in maps) if not math.isnan(value)]
    errors = [np.mean((p[v].astype(float) - y[v]) ** 2) for p, y, v in maps]
    psnrs = [10 * math.log10(VALUE_RANGE**2 / error) for error in errors if error]
    scores = {
        "mse": ratio(squares, len(pairs)),
        "mae": ratio(absolutes, len(pairs)),
        "rmse": math.sqrt(ratio(squares, len(pairs))),
        "mse_per_frame": ratio(squares, frames),
        "mae_per_frame": ratio(absolutes, frames),
        "ssim": ratio(math.fsum(ssims), len(ssims)),
        "psnr": ratio(math.fsum(psnrs), len(psnrs)),
    }
    for threshold in THRESHOLDS:
        hits = sum(p >= threshold and y >= threshold for p, y in pairs)
        misses = sum(p < threshold <= y for p, y in pairs)
        false_alarms = sum(y < threshold <= p for p, y in pairs)
        scores[f"csi >= {threshold}"] = ratio(hits, hits + misses + false_alarms)
        scores[f"pod >= {threshold}"] = ratio(hits, hits + misses)
        scores[f"far >= {threshold}"] = ratio(false_alarms, hits + false_alarms)
    return scores


def plain_damping(anomalies: Array, stretches: Sequence[range], lags: int) -> Array:
    """Return the factors of damped persistence, (lags, C), of anomalies (T, C, H, W): a loop over pairs of values."""
    C = anomalies.shape[1]
    factors = np.zeros((lags, C))
    for k, c in np.ndindex(lags, C):
        products, squares = 0.0, 0.0
        for stretch in stretches:
            for t in stretch[: -(k + 1)]:
                for x, later in zip(anomalies[t, c].flat, anomalies[t + k + 1, c].flat, strict=True):
                    if not (np.isnan(x) or np.isnan(later)):
                        products, squares = products + float(x) * float(later), squares + float(x) ** 2
        factors[k, c] = products / squares if squares else 0
    return factors
