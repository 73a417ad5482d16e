"""`Totals` against plain loops, scikit-learn and scikit-image; masks, parts, thresholds; persistence and skill."""

from __future__ import annotations

import subprocess
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import convlstm.metrics
from convlstm.metrics import UNITS, Totals, higher_is_better, persistence, skill, unit_of
from tests.numerical import freeze
from tests.plain_scores import (
    EDGE,
    SHAPE,
    THRESHOLDS,
    VALUE_RANGE,
    C,
    H,
    N,
    T,
    W,
    batch,
    complete,
    plain_scores,
    totals,
)  # fmt: skip

Array = NDArray[Any]

needs_skimage = pytest.mark.skipif(find_spec("skimage") is None, reason="scikit-image is not installed")


def assert_alike(scores: Any, expected: dict[str, Any]) -> None:
    assert set(scores) == set(expected)
    for name, values in expected.items():
        ours, theirs = (np.array(these, float) for these in (scores[name], values))  # None becomes NaN
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14, err_msg=name)


# Against plain loops --------------------------------------------------------------------------------------------------


def check_against_loops(metrics: Any) -> None:
    """Check by lead time and together, masked, in two batches of which one says nothing at lead time 1."""
    forecast, truth, valid = batch()
    sums = totals(forecast[:1], truth[:1], valid[:1], metrics)
    sums.add(forecast[1:], truth[1:], valid[1:])
    by_lead_time = [plain_scores(*(array[:, t] for array in (forecast, truth, valid))) for t in range(T)]
    assert_alike(sums.scores(), {name: [scores[name] for scores in by_lead_time] for name in by_lead_time[0]})
    together = plain_scores(*(array.reshape(-1, C, H, W) for array in (forecast, truth, valid)))
    assert_alike(sums.overall(), together)


@needs_skimage
def test_scores_are_the_plain_formulas() -> None:
    check_against_loops(convlstm.metrics)


FAULTS = {
    "above the threshold": ("p >= threshold", "p > threshold"),
    "truth above the threshold": ("y >= threshold", "y > threshold"),
    "forecast events not masked": ("valid & (p >= threshold)", "(p >= threshold)"),
    "events seen not masked": ("valid & (y >= threshold)", "(y >= threshold)"),
    "pixels not masked": ('sums["pixels"] += valid.sum', 'sums["pixels"] += np.ones_like(valid).sum'),
    "all frames counted": ('sums["frames"] += valid.any(', 'sums["frames"] += (~valid | valid).any('),
    "misses for false alarms": ("(~forecast_it & saw_it)", "(forecast_it & ~saw_it)"),
    "false alarm rate": ("_ratios(false_alarms, hits + false_alarms)", "_ratios(false_alarms, hits + misses)"),
    "mean of ratios": (
        "{name: score for name, (score,) in self._scores_of(together).items()}",
        "{name: float(np.mean([s for s in scores if s is not None])) for name, scores in self.scores().items()}",
    ),
    "root of the frame's": ("for value in mse]", 'for value in _ratios(sums["squares"], sums["frames"])]'),
    "SSIM of all pixels": ("][inner].mean()", "].mean()"),
    "SSIM with its edge": (
        "by_pixel[edge:-edge, edge:-edge][inner].mean()",
        "by_pixel[valid].mean()",
    ),
    "SSIM filled with 0": ("filling = y[valid].mean()", "filling = 0"),
    "SSIM's range": ("win_size=WINDOW, data_range=value_range", "win_size=WINDOW, data_range=1"),
    "PSNR of all pixels": ("_psnr(p[valid], y[valid], value_range)", "_psnr(p, y, value_range)"),
    "PSNR's range": ("y, p, data_range=value_range)", "y, p, data_range=1)"),
}


@needs_skimage
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault: str) -> None:
    right, wrong = FAULTS[fault]
    source = Path(convlstm.metrics.__file__).read_text("utf-8")
    assert source.count(right) == 1
    faulty = types.ModuleType("faulty_metrics")
    exec(source.replace(right, wrong), vars(faulty))
    with pytest.raises(AssertionError):
        check_against_loops(faulty)


# Against scikit-learn and scikit-image --------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_errors_and_events_are_those_of_scikit_learn(masked: bool) -> None:
    theirs = pytest.importorskip("sklearn.metrics")
    forecast, truth, valid = batch() if masked else (*complete(), np.ones(SHAPE, bool))
    sums = totals(forecast, truth, valid if masked else None, structural=False)
    for t in (*range(T), slice(None)):
        p, y = (array[:, t][valid[:, t]].astype(np.float64) for array in (forecast, truth))
        scores = {name: values[t] for name, values in sums.scores().items()} if isinstance(t, int) else sums.overall()
        assert scores["mse"] == pytest.approx(theirs.mean_squared_error(y, p), rel=1e-12)
        assert scores["mae"] == pytest.approx(theirs.mean_absolute_error(y, p), rel=1e-12)
        for threshold in THRESHOLDS:
            seen, said = y >= threshold, p >= threshold
            assert scores[f"csi >= {threshold}"] == pytest.approx(theirs.jaccard_score(seen, said), rel=1e-12)
            assert scores[f"pod >= {threshold}"] == pytest.approx(theirs.recall_score(seen, said), rel=1e-12)
            assert scores[f"far >= {threshold}"] == pytest.approx(1 - theirs.precision_score(seen, said), rel=1e-12)
            (_, false_alarms), (misses, hits) = theirs.confusion_matrix(seen, said)
            csi = hits / (hits + misses + false_alarms)
            assert scores[f"csi >= {threshold}"] == pytest.approx(csi, rel=1e-12)


def test_sums_per_frame_are_what_openstl_reports() -> None:
    """Its MSE and MAE are means over samples and lead times, then sums over what is left."""
    forecast, truth = (array.astype(np.float64) for array in complete())
    overall = totals(*complete(), structural=False).overall()
    assert overall["mse_per_frame"] == pytest.approx(((forecast - truth) ** 2).mean(axis=(0, 1)).sum(), rel=1e-12)
    assert overall["mae_per_frame"] == pytest.approx(abs(forecast - truth).mean(axis=(0, 1)).sum(), rel=1e-12)


@needs_skimage
def test_structural_scores_are_those_of_scikit_image_frame_by_frame() -> None:
    theirs = pytest.importorskip("skimage.metrics")
    forecast, truth = (array.astype(np.float64) for array in complete())
    scores = totals(*complete()).scores()
    for t in range(T):
        pairs = [(truth[n, t, c], forecast[n, t, c]) for n in range(N) for c in range(C)]
        ssim = np.mean([theirs.structural_similarity(y, p, data_range=VALUE_RANGE) for y, p in pairs])
        psnr = np.mean([theirs.peak_signal_noise_ratio(y, p, data_range=VALUE_RANGE) for y, p in pairs])
        assert scores["ssim"][t] == pytest.approx(ssim, rel=1e-12)
        assert scores["psnr"][t] == pytest.approx(psnr, rel=1e-12)


# Masks ----------------------------------------------------------------------------------------------------------------


@needs_skimage
def test_a_mask_that_hides_nothing_changes_no_bit() -> None:
    forecast, truth = complete()
    plain, masked = totals(forecast, truth), totals(forecast, truth, np.ones(SHAPE, bool))
    assert masked.scores() == plain.scores()
    assert masked.overall() == plain.overall()


@needs_skimage
def test_what_a_mask_hides_changes_no_bit() -> None:
    forecast, truth, valid = batch()
    other = np.where(valid, forecast, np.float32(7)), np.where(valid, truth, np.float32(-3)), valid
    assert totals(*other).scores() == totals(forecast, truth, valid).scores()


def test_masked_errors_are_those_of_the_compressed_arrays() -> None:
    forecast, truth, valid = batch()
    p, y = (array[valid][None, None, None, None] for array in (forecast, truth))  # one frame of one row
    masked, compressed = (totals(*arrays, structural=False).overall() for arrays in ((forecast, truth, valid), (p, y)))
    for name in compressed:
        if not name.endswith("_per_frame"):
            assert masked[name] == pytest.approx(compressed[name], rel=1e-12)


@needs_skimage
def test_coasts_look_better_than_they_are() -> None:
    """As docs/scores.md says: what is filled is right in the forecast too, and lies in coastal pixels' windows."""
    rng = np.random.default_rng(0)
    truth, forecast = rng.random((2, 1, 1, 1, 16, 16))
    sea = np.ones(truth.shape, bool)
    sea[..., :8] = False
    masked, whole = (
        totals(forecast, truth, sea).overall()["ssim"],
        totals(forecast[..., 8 - EDGE :], truth[..., 8 - EDGE :]).overall()["ssim"],  # the same pixels in the mean
    )
    assert masked is not None
    assert whole is not None
    assert masked > whole + 0.01


@needs_skimage
def test_nothing_valid_is_no_score() -> None:
    forecast, truth, _ = batch()
    sums = totals(forecast, truth, np.zeros(SHAPE, bool))
    assert set(sums.overall().values()) == {None}
    assert all(values == [None] * T for values in sums.scores().values())
    assert sums.exact_frames() == [0] * T


# Parts ----------------------------------------------------------------------------------------------------------------


@needs_skimage
@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(0, 6)), seed=st.integers(0, 3))
def test_how_a_batch_is_cut_changes_no_bit(cuts: set[int], seed: int) -> None:
    forecast, truth, valid = batch(seed, (6, 2, 1, 8, 8))
    parts = Totals(2, value_range=VALUE_RANGE, thresholds=THRESHOLDS)
    for part in np.split(np.arange(6), sorted(cuts)):
        parts.add(forecast[part], truth[part], valid[part])
    whole = totals(forecast, truth, valid)
    assert parts.scores() == whole.scores()
    assert parts.overall() == whole.overall()
    assert parts.exact_frames() == whole.exact_frames()


@needs_skimage
def test_memory_does_not_grow_with_batches() -> None:
    sums = totals(*complete())
    before = {name: array.shape for name, array in sums._sums.items()}
    sums.add(*complete(1))
    assert {name: array.shape for name, array in sums._sums.items()} == before
    assert set(before.values()) == {(T,)}


# Extremes -------------------------------------------------------------------------------------------------------------


@needs_skimage
def test_a_perfect_forecast_is_perfect() -> None:
    truth = complete()[1]
    sums = totals(truth, truth)
    scores = sums.overall()
    assert {scores[name] for name in ("mse", "mae", "rmse", "mse_per_frame", "mae_per_frame", "far >= 0.5")} == {0.0}
    assert {scores[name] for name in ("csi >= 0.5", "pod >= 0.5")} == {1.0}
    assert scores["ssim"] == pytest.approx(1, abs=1e-12)
    assert scores["psnr"] is None
    assert sums.exact_frames() == [N * C] * T


@needs_skimage
def test_an_exact_frame_is_left_out_of_psnr_and_counted() -> None:
    forecast, truth = complete(shape=(2, 1, 1, 8, 8))
    alone = totals(forecast[:1], truth[:1])
    alone.add(truth[1:], truth[1:])
    assert alone.exact_frames() == [1]
    assert alone.scores()["psnr"] == totals(forecast[:1], truth[:1]).scores()["psnr"]


@needs_skimage
@pytest.mark.parametrize("size", [(6, 9), (9, 6)])
def test_frames_smaller_than_the_window_have_no_ssim(size: tuple[int, int]) -> None:
    scores = totals(*complete(shape=(1, 2, 1, *size))).scores()
    assert scores["ssim"] == [None, None]
    assert None not in scores["psnr"]


@pytest.mark.parametrize("name", ["csi", "pod", "far"])
def test_a_threshold_that_nothing_reaches_has_no_score(name: str) -> None:
    assert totals(*complete(), thresholds=[50], structural=False).scores()[f"{name} >= 50"] == [None] * T


def test_a_threshold_is_met_in_float32() -> None:
    """Of 0.7 the nearest float32 is a little less; data that say 0.7 have reached it."""
    truth = np.full((1, 1, 1, 1, 1), 0.7, np.float32)
    assert float(truth.item()) < 0.7
    assert totals(truth, truth, thresholds=[0.7], structural=False).overall()["pod >= 0.7"] == 1


def test_sums_are_float64() -> None:
    """In float32 the second sample, 2^-30 of the first, would be lost."""
    forecast = np.zeros((2, 1, 1, 1, 1), np.float32)
    truth = np.array([1, 2**-15], np.float32).reshape(forecast.shape)
    assert totals(forecast, truth, structural=False).overall()["mse"] == (1 + 2**-30) / 2


# What is asked for ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"structural": False}, {"value_range": None}])
def test_structural_scores_are_left_out(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    sums = totals(*complete(), **options)
    assert list(sums.scores()) == [name for name in sums.scores() if name not in ("ssim", "psnr")]
    assert sums.scores()["mse"][0]


def test_the_absence_of_scikit_image_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(
        ModuleNotFoundError, match=r'skimage(\.metrics)? is missing; in the clone, pip install "\.\[scores\]"'
    ):
        Totals(1, value_range=1.0)


def test_importing_needs_no_scikit_image() -> None:
    code = "import sys; sys.modules['skimage'] = None; import convlstm.metrics"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@needs_skimage
def test_every_score_has_a_unit_and_a_direction() -> None:
    scores = list(totals(*complete()).scores())
    assert [unit_of(score) for score in scores] == [UNITS[score.split()[0]] for score in scores]
    assert {score.split()[0] for score in scores} == set(UNITS)
    better = {score.split()[0] for score in scores if higher_is_better(score)}
    assert better == {"ssim", "psnr", "csi", "pod"}


@pytest.mark.parametrize("ask", [unit_of, higher_is_better])
def test_another_score_is_unknown(ask: Any) -> None:
    with pytest.raises(ValueError, match=r"score must be one of mse, .*; got 'lpips'"):
        ask("lpips")


# Persistence and skill ------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 4), horizon=st.integers(1, 3), by_mask=st.booleans())
def test_persistence_repeats_what_was_seen_last(seed: int, length: int, horizon: int, by_mask: bool) -> None:
    rng = np.random.default_rng(seed)
    shown = rng.random((2, length, 1, 3, 2), dtype=np.float32)
    seen = rng.random(shown.shape) > 0.5
    if not by_mask:
        shown[~seen] = np.nan
    freeze((shown, seen))
    forecast, valid = persistence(shown, horizon, seen if by_mask else None)
    assert forecast.dtype == np.float32
    assert forecast.shape == valid.shape == (2, horizon, 1, 3, 2)
    for n, row, column in np.ndindex(2, 3, 2):
        values = [shown[n, t, 0, row, column] for t in range(length) if seen[n, t, 0, row, column]]
        expected = values[-1] if values else np.nan
        np.testing.assert_array_equal(forecast[n, :, 0, row, column], [expected] * horizon)
        assert valid[n, :, 0, row, column].tolist() == [bool(values)] * horizon


def test_persistence_of_what_was_never_seen_is_not_scored_unnoticed() -> None:
    shown = np.full((1, 2, 1, 1, 1), np.nan, np.float32)
    truth = np.zeros((1, 1, 1, 1, 1), np.float32)
    forecast, valid = persistence(shown, 1)
    with pytest.raises(ValueError, match="forecast of sample 0 is nan at lead time 1"):
        totals(forecast, truth, structural=False)
    assert totals(forecast, truth, valid, structural=False).overall()["mse"] is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros((2, 1, 3, 3)), 1), ValueError, r"shown must have shape \(N, T, C, H, W\); got \(2, 1, 3, 3\)"),
        ((np.zeros((1, 1, 1, 3, 3)), 0), ValueError, "horizon must be"),
        ((np.zeros((1, 1, 1, 3, 3), np.int64), 1), TypeError, "shown must be a NumPy array of floating-point numbers"),
        ((np.zeros((1, 1, 1, 3, 3)), 1, np.ones((1, 1, 1, 3, 2), bool)), ValueError, "valid must have the shape of"),
    ],
)
def test_what_cannot_persist_is_named(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        persistence(*arguments)


@pytest.mark.parametrize(
    ("mse", "reference", "expected"),
    [(0.0, 2.0, 1.0), (2.0, 2.0, 0.0), (3.0, 2.0, -0.5), (1.0, 0.0, None), (None, 1.0, None), (1.0, None, None)],
)
def test_skill(mse: float | None, reference: float | None, expected: float | None) -> None:
    assert skill(mse, reference) == expected
