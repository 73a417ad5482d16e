"""Records what pysteps' verification makes of a small forecast, for the tests.

From the repository's root, with a Python that has pysteps:

    python -m tests.golden.record_pysteps

Scores are hexadecimal, so that nothing is rounded: `float.fromhex`; None where pysteps says NaN. Frames are in
sixteenths.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("pysteps_scores.json")
N, T, H, W = 3, 4, 6, 7
THRESHOLDS = (0.25, 0.5, 0.9375, 1.5)  # the last one nothing reaches
FRAME = (0, 2, 3, 4)

Numbers = NDArray[np.float64]
Recorded = dict[str, dict[str, list[str | None]]]


def record() -> dict[str, Any]:
    """Return all that is recorded."""
    forecast, truth, valid = _frames()
    known = np.where(valid, forecast, np.nan), np.where(valid, truth, np.nan)
    return {
        "pysteps": importlib.metadata.version("pysteps"),
        "shape": forecast.shape,
        "forecast": _in_whole_numbers(16 * forecast),
        "truth": _in_whole_numbers(16 * truth),
        "valid": _in_whole_numbers(valid),
        "all": _scores(forecast, truth),
        "masked": _scores(*known),
    }


def _frames() -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
    """Return forecast, truth and valid, (N, T, 1, H, W): multiples of 1/16 in 0 … 1, so that thresholds are met."""
    draws = np.random.Generator(np.random.Philox(6)).random((3, N, T, 1, H, W))
    drift = 0.3 * np.arange(T)[:, None, None, None]  # later forecasts are worse
    truth = np.round(16 * draws[0] ** 2) / 16
    forecast = np.round(16 * np.clip(truth + drift * (draws[1] - 0.4), 0, 1)) / 16
    return forecast, truth, draws[2] > 0.3


def _scores(forecast: Numbers, truth: Numbers) -> Recorded:
    """Return pysteps' scores by lead time, and of all lead times together as the last."""
    from pysteps.verification.detcatscores import det_cat_fct  # type: ignore[import-not-found, unused-ignore]
    from pysteps.verification.detcontscores import det_cont_fct  # type: ignore[import-not-found, unused-ignore]

    by_axis = []
    for axis in (FRAME, None):
        scores = dict(det_cont_fct(forecast, truth, ["MSE", "RMSE", "MAE"], axis=axis))
        for threshold in THRESHOLDS:
            # pysteps' event is a value above its threshold, ours one that reaches it: its is the next number below.
            events = det_cat_fct(forecast, truth, np.nextafter(threshold, 0), ["CSI", "POD", "FAR"], axis=axis)
            scores.update({f"{name} >= {threshold:g}": value for name, value in events.items()})
        by_axis.append({name.lower(): np.atleast_1d(value).astype(float) for name, value in scores.items()})
    by_lead_time, together = by_axis
    return {name: {"scores": _in_hex(by_lead_time[name]), "overall": _in_hex(together[name])} for name in by_lead_time}


def _in_whole_numbers(array: NDArray[Any]) -> str:
    return " ".join(str(int(number)) for number in array.flat)


def _in_hex(numbers: Numbers) -> list[str | None]:
    return [None if np.isnan(number) else float(number).hex() for number in numbers]


if __name__ == "__main__":
    FILE.write_text(json.dumps(record(), indent=1) + "\n", encoding="utf-8")
