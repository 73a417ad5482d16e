"""What a forecast is worth: errors, structural scores and scores of events, by lead time, where the truth is known.

`Totals` holds sums alone, so that its memory does not grow with the number of sequences.  A batch is added sample by
sample: the same samples in the same order give the same bits, whatever batches they came in.

docs/scores.md has each score's definition, its source and what a mask does to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.backends.geometry import as_count

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Sums = dict[str, NDArray[np.float64]]  # of each quantity, by lead time, (horizon,)

WINDOW = 7  # pixels: scikit-image's own choice for SSIM, a uniform window of 7×7
LARGEST_THRESHOLD = float(np.finfo(np.float32).max)

# For a reader; of "csi >= 0.5" it is that of "csi".
UNITS = {
    "mse": "mean over pixels, squared units of the data",
    "mae": "mean over pixels, units of the data",
    "rmse": "root of the mean over pixels, units of the data",
    "mse_per_frame": "sum over a frame's pixels, mean over frames, squared units of the data",
    "mae_per_frame": "sum over a frame's pixels, mean over frames, units of the data",
    "ssim": "mean over frames, no unit: 1 is perfect",
    "psnr": "mean over frames, dB",
    "csi": "share of all events forecast or seen, no unit: 1 is perfect",
    "pod": "share of the events seen, no unit: 1 is perfect",
    "far": "share of the events forecast, no unit: 0 is perfect",
}
_HIGHER_IS_BETTER = {"ssim", "psnr", "csi", "pod"}


def unit_of(score: str) -> str:
    """Return in words what a score is a mean or a share of, and its unit; ``score`` as `Totals.scores` names it."""
    return UNITS[_kind(score)]


def higher_is_better(score: str) -> bool:
    """Return whether more of a score is better, or less; ``score`` as `Totals.scores` names it."""
    return _kind(score) in _HIGHER_IS_BETTER


def _kind(score: str) -> str:
    """Return "csi" of "csi >= 0.5"."""
    kind = score.partition(" ")[0]
    if kind not in UNITS:
        raise ValueError(f"score must be one of {', '.join(UNITS)}, the last three with a threshold; got {score!r}")
    return kind


class Totals:
    """Sums over as many batches as there are, and the scores that they make, by lead time.

    Args:
        horizon: lead times; the first frame after those shown is lead time 1.
        value_range: largest possible value minus the smallest, for SSIM and PSNR; None leaves both out.
        thresholds: of CSI, POD and FAR, in the values' own units; an event is a value ≥ the threshold.
        structural: False leaves SSIM and PSNR out, and scikit-image is not needed.

    Raises:
        ValueError: an argument lies outside its range, or two thresholds print alike.
        ModuleNotFoundError: SSIM and PSNR are asked for, and scikit-image is not installed.
    """

    def __init__(
        self,
        horizon: int,
        *,
        value_range: float | None,
        thresholds: Sequence[float] = (),
        structural: bool = True,
    ) -> None:
        if value_range is not None and not 0 < value_range < math.inf:
            raise ValueError(f"value_range must be a number above 0, or None; got {value_range}")
        self.horizon = as_count("horizon", horizon)
        self.value_range = float(value_range) if structural and value_range is not None else None
        self.thresholds = _named_thresholds(thresholds)
        if self.value_range is not None:
            _skimage_metrics()  # its absence is said before anything is forecast
        names = ["squares", "absolutes", "pixels", "frames", "ssim", "ssim_frames", "psnr", "psnr_frames", "exact"]
        names += [f"{count} {event}" for event in self.thresholds for count in ("hits", "misses", "false alarms")]
        self._sums: Sums = {name: np.zeros(self.horizon) for name in names}
        self._samples = 0
        self._frame_shape: tuple[int, ...] | None = None

    def add(self, forecast: Array, truth: Array, valid: Mask | None = None) -> None:
        """Add a batch; what is raised leaves the sums as they were.

        Args:
            forecast, truth: floating-point numbers, (N, horizon, C, H, W), finite where they are valid.
            valid: bool, of the same shape; where False a pixel counts nowhere.  None: all are valid.

        Raises:
            TypeError: an argument is not a NumPy array of such numbers.
            ValueError: a shape does not fit, or a valid number is not finite; the message names its place, with
                samples counted from 0 over all batches.
        """
        valid = self._checked(forecast, truth, valid)
        for p, y, v in zip(forecast, truth, valid, strict=True):
            self._add_sample(np.where(v, p, 0), np.where(v, y, 0), v)
        self._samples += len(forecast)
        self._frame_shape = forecast.shape[2:]

    def scores(self) -> dict[str, list[float | None]]:
        """Return every score by lead time, (horizon,); None where it is undefined, as where nothing was valid.

        They are "mse", "mae", "rmse", "mse_per_frame", "mae_per_frame"; "ssim" and "psnr" where they are asked for; and
        "csi >= 0.5", "pod >= 0.5", "far >= 0.5" for each threshold, which is written as "%g" does.
        """
        return self._scores_of(self._sums)

    def overall(self) -> dict[str, float | None]:
        """Return every score over all lead times together: from sums over them, not as means of `scores`."""
        together = {name: by_lead_time.sum(keepdims=True) for name, by_lead_time in self._sums.items()}
        return {name: score for name, (score,) in self._scores_of(together).items()}

    def exact_frames(self) -> list[int]:
        """Return by lead time how many frames' channels were forecast exactly: PSNR is infinite, and leaves them out.

        They are counted only where PSNR is asked for.
        """
        return [int(count) for count in self._sums["exact"]]

    def _checked(self, forecast: Array, truth: Array, valid: Mask | None) -> Mask:
        """Return the mask of a batch that can be added."""
        _check_array("forecast", forecast, np.floating)
        _check_array("truth", truth, np.floating)
        shape = forecast.shape
        if len(shape) != 5 or shape[1] != self.horizon or 0 in shape[2:]:
            raise ValueError(f"forecast must have shape (N, {self.horizon}, C, H, W), C, H, W not 0; got {shape}")
        if self._frame_shape not in (None, shape[2:]):
            raise ValueError(f"frames must have the shape {self._frame_shape} of those before them; got {shape[2:]}")
        if valid is None:
            valid = np.ones(shape, np.bool_)
        _check_array("valid", valid, np.bool_)
        for name, array in (("truth", truth), ("valid", valid)):
            if array.shape != shape:
                raise ValueError(f"{name} must have the shape of forecast, {shape}; got {array.shape}")
        self._check_finite("forecast", forecast, valid, "")
        self._check_finite("truth", truth, valid, "; where it is not known, valid must be False")
        return valid

    def _check_finite(self, name: str, array: Array, valid: Mask, hint: str) -> None:
        wrong = valid & ~np.isfinite(array)
        if wrong.any():
            n, t, channel, row, column = np.argwhere(wrong)[0]
            value = array[n, t, channel, row, column]
            place = f"lead time {t + 1}, channel {channel}, row {row}, column {column}"
            raise ValueError(f"{name} of sample {self._samples + n} is {value} at {place}{hint}")

    def _add_sample(self, p: Array, y: Array, valid: Mask) -> None:
        """Add a sample: forecast p, truth y and valid, all (horizon, C, H, W); p and y are 0 where not valid."""
        sums, frame = self._sums, (1, 2, 3)
        errors = p.astype(np.float64) - y
        sums["squares"] += (errors**2).sum(axis=frame)
        sums["absolutes"] += abs(errors).sum(axis=frame)
        sums["pixels"] += valid.sum(axis=frame)
        sums["frames"] += valid.any(axis=frame)
        for event, threshold in self.thresholds.items():
            # In the arrays' own precision: where float32 says 0.7, which is a little less, 0.7 is reached.
            forecast_it, saw_it = valid & (p >= threshold), valid & (y >= threshold)
            sums[f"hits {event}"] += (forecast_it & saw_it).sum(axis=frame)
            sums[f"misses {event}"] += (~forecast_it & saw_it).sum(axis=frame)
            sums[f"false alarms {event}"] += (forecast_it & ~saw_it).sum(axis=frame)
        if self.value_range is not None:
            for t, channel in np.ndindex(p.shape[:2]):
                self._add_structural(t, p[t, channel], y[t, channel], valid[t, channel], self.value_range)

    def _add_structural(self, t: int, p: Array, y: Array, valid: Mask, value_range: float) -> None:
        """Add SSIM and PSNR of one channel of one frame, all (H, W)."""
        sums = self._sums
        p, y = p.astype(np.float64), y.astype(np.float64)
        ssim = _ssim(p, y, valid, value_range)
        if ssim is not None:
            sums["ssim"][t] += ssim
            sums["ssim_frames"][t] += 1
        if valid.any():
            psnr = _psnr(p[valid], y[valid], value_range)
            if psnr is None:
                sums["exact"][t] += 1
            else:
                sums["psnr"][t] += psnr
                sums["psnr_frames"][t] += 1

    def _scores_of(self, sums: Sums) -> dict[str, list[float | None]]:
        """Return the scores that sums make; each sum is of one length, which the scores have too."""
        mse = _ratios(sums["squares"], sums["pixels"])
        scores = {
            "mse": mse,
            "mae": _ratios(sums["absolutes"], sums["pixels"]),
            "rmse": [None if value is None else math.sqrt(value) for value in mse],
            "mse_per_frame": _ratios(sums["squares"], sums["frames"]),
            "mae_per_frame": _ratios(sums["absolutes"], sums["frames"]),
        }
        if self.value_range is not None:
            scores["ssim"] = _ratios(sums["ssim"], sums["ssim_frames"])
            scores["psnr"] = _ratios(sums["psnr"], sums["psnr_frames"])
        for event in self.thresholds:
            hits, misses, false_alarms = (sums[f"{count} {event}"] for count in ("hits", "misses", "false alarms"))
            scores[f"csi {event}"] = _ratios(hits, hits + misses + false_alarms)
            scores[f"pod {event}"] = _ratios(hits, hits + misses)
            scores[f"far {event}"] = _ratios(false_alarms, hits + false_alarms)
        return scores


def persistence(shown: Array, horizon: int, valid: Mask | None = None) -> tuple[Array, Mask]:
    """Return the forecast that nothing changes, and where there is one.

    Args:
        shown: frames, (N, T, C, H, W).
        horizon: frames to forecast.
        valid: bool, of shown's shape: what was seen.  None: all that is not NaN.

    Returns:
        (N, horizon, C, H, W) of shown's dtype: of each pixel the last value that was seen, NaN where none ever was; and
        bool of the same shape, False at the latter.  Who compares a model with it scores both where it is True.

    Raises:
        TypeError: an argument is not a NumPy array of such numbers.
        ValueError: a shape does not fit.
    """
    _check_array("shown", shown, np.floating)
    horizon = as_count("horizon", horizon)
    if shown.ndim != 5:
        raise ValueError(f"shown must have shape (N, T, C, H, W); got {shown.shape}")
    seen = ~np.isnan(shown) if valid is None else valid
    _check_array("valid", seen, np.bool_)
    if seen.shape != shown.shape:
        raise ValueError(f"valid must have the shape of shown, {shown.shape}; got {seen.shape}")
    latest = np.full_like(shown[:, :1], np.nan)  # (N, 1, C, H, W)
    for t in range(shown.shape[1]):
        latest = np.where(seen[:, t : t + 1], shown[:, t : t + 1], latest)
    known = seen.any(axis=1, keepdims=True)
    return latest.repeat(horizon, axis=1), known.repeat(horizon, axis=1)


def skill(mse: float | None, mse_of_reference: float | None) -> float | None:
    """Return 1 - mse / mse_of_reference: 1 is perfect, 0 no better than the reference; None where it is undefined."""
    if mse is None or not mse_of_reference:
        return None
    return 1 - mse / mse_of_reference


def _named_thresholds(thresholds: Sequence[float]) -> dict[str, float]:
    """Return thresholds by their part of a score's name, as ">= 0.5"."""
    named: dict[str, float] = {}
    for threshold in thresholds:
        event = f">= {threshold:g}"
        if not abs(threshold) <= LARGEST_THRESHOLD:  # NaN neither
            raise ValueError(f"a threshold must be a finite float32; got {threshold}")
        if event in named:
            raise ValueError(f"thresholds must differ in their first six digits; got {threshold} and {named[event]}")
        named[event] = float(threshold)
    return named


def _check_array(name: str, array: object, kind: type[np.generic]) -> None:
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, kind):
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        of = "bool" if kind is np.bool_ else "floating-point numbers"
        raise TypeError(f"{name} must be a NumPy array of {of}; got {got}")


def _ratios(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> list[float | None]:
    """Return sum / count each, None where the count is 0."""
    return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]


# Structural scores ----------------------------------------------------------------------------------------------------


def _ssim(p: Array, y: Array, valid: Mask, value_range: float) -> float | None:
    """Return the mean of SSIM over the valid pixels whose window lies within the frame; None where there are none.

    What is not valid is filled alike in p and y, with the mean of y where it is.
    """
    edge = WINDOW // 2
    inner = valid[edge:-edge, edge:-edge]  # (H - 6, W - 6): where the whole window lies within the frame
    if min(valid.shape) < WINDOW or not inner.any():
        return None
    filling = y[valid].mean()
    p, y = np.where(valid, p, filling), np.where(valid, y, filling)
    _, by_pixel = _skimage_metrics().structural_similarity(y, p, win_size=WINDOW, data_range=value_range, full=True)
    return float(by_pixel[edge:-edge, edge:-edge][inner].mean())


def _psnr(p: Array, y: Array, value_range: float) -> float | None:
    """Return 10 log₁₀(range² / mean squared error) of values (n,); None where it is infinite, that error being 0."""
    if not np.mean((p - y) ** 2):
        return None
    return float(_skimage_metrics().peak_signal_noise_ratio(y, p, data_range=value_range))


def _skimage_metrics() -> Any:
    try:
        import skimage.metrics
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'SSIM and PSNR need scikit-image, and {error.name} is missing; in the clone, pip install ".[scores]"',
            name=error.name,
        ) from error
    return skimage.metrics
