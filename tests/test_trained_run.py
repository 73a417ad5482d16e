"""A trained run on other frames: its forecast is what is scored; where and when it lies; what cannot be continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm.data.opening import open_series
from convlstm.data.series import DataError
from convlstm.forecast_files import save_forecast
from convlstm.metrics import Totals, persistence
from convlstm.recorded_run import NoRun
from convlstm.scoring import evaluate, forecasts
from convlstm.sources import open_source
from convlstm.trained_run import TrainedRun, predict, trained_run
from convlstm.trainer import Trainer
from tests.field_runs import LAND, TRAINING, Field, config_of, field, months, trained, write_field
from tests.plain_scores import plain_damping
from tests.runs import changed

for package in ("scipy", "xarray", "h5netcdf"):
    pytest.importorskip(package, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainedRun]:
    folder = tmp_path_factory.mktemp("runs")
    data = write_field(folder / "sea.nc", field())
    north = write_field(folder / "north.nc", field(), south_first=False)
    settings: dict[str, dict[str, Any]] = {
        "seasonal": {},
        "standard": {"scaling": "standard"},
        "gap": {"scaling": "standard", "gap": 2, "test_frames": 8, "patch": 3, "kernel_size": 1},
        "peephole": {"scaling": "standard", "peephole": "pixel", "kind": "encoder-forecaster"},
        "one frame": {"scaling": "standard", "context": 1},
        "north": {"scaling": "standard", "path": str(north)},
    }
    return {
        name: trained_run(trained(folder / name, changed(config_of(data), **some)), "numpy")
        for name, some in settings.items()
    }


@pytest.mark.parametrize("name", ["seasonal", "standard", "gap", "peephole"])
def test_a_forecast_is_what_is_scored(name: str, runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    """The frames before the last test window as a file: its forecast is that window's."""
    run = runs[name]
    data, source = run.config.data, run.source()
    count = source.count("test")
    last = forecasts(run.config, run.model(source.shape), source, "test", range(count - 1, count))
    cut = 36 - data.horizon - data.gap
    made = predict(run, str(write_field(tmp_path / "cut.nc", field()[:cut])))
    assert np.array_equal(made.shown, last.shown[0], equal_nan=True)
    land = np.isnan(made.frames)
    assert np.array_equal(land, np.isnan(last.truth[0]))
    assert np.array_equal(made.frames[~land], last.by["model"][0][~land])


def test_by_hand_from_the_weights(runs: dict[str, TrainedRun]) -> None:
    run = runs["seasonal"]
    assert run.climatology is not None
    shown, scaling = field()[-3:, None], run.facts.scaling
    season = run.climatology.at(months()[-3:])
    scaled = (shown.astype(np.float64) - season - scaling.offset[0]) / scaling.scale[0]
    frames = np.zeros((1, 3, 1, 6, 8), np.float32)  # 5×7 pixels and the patch 2
    frames[0, :, :, :5, :7] = np.where(np.isnan(scaled), 0, scaled)
    predicted = run.model((1, 6, 8)).predict(frames, 2)[0, :, :, :5, :7].astype(np.float64)
    expected = predicted * scaling.scale[0] + scaling.offset[0] + run.climatology.at(months(2, "2004-01"))
    made = predict(run, str(run.config.data.path)).frames
    assert np.isnan(made[LAND[0], 0, LAND[1], LAND[2]]).all()
    there = np.isfinite(made)
    assert there.sum() == 2 * 33
    assert np.allclose(made[there], expected[there], rtol=0, atol=1e-4)


def test_where_when_and_in_what_units(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    file = write_field(tmp_path / "other.nc", field(20), south_first=False)
    made = predict(runs["north"], str(file), horizon=7)
    assert made.frames.shape == (7, 1, 5, 7)
    assert made.times is not None
    assert np.array_equal(made.times, months(7, "2002-09"))
    assert made.y is not None
    assert made.x is not None
    assert (made.y.name, made.y.values[0] > made.y.values[-1]) == ("latitude", True)
    assert (made.x.name, made.units) == ("longitude", "K")
    assert made.attributes == {"source": "other.nc", "run": "north"}
    write_field(file, field(20))
    assert np.array_equal(predict(runs["gap"], str(file)).times, months(2, "2002-11"))  # type: ignore[arg-type]


DAYS = np.cumsum([0, *(31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31) * 4])  # before each month of years of 365


def in_calendar(path: Path, calendar: str, values: Any, frames: Any = None) -> Path:
    """Write the field with other times, whose variable has names."""
    from scipy.io import netcdf_file  # type: ignore[import-untyped, unused-ignore]

    with netcdf_file(write_field(path, field() if frames is None else frames), "a") as file:
        time, sea = file.variables["time"], file.variables["temperature"]
        time[:], time.units, time.calendar = values, b"days since 2001-01-01", calendar.encode()
        sea.long_name, sea.standard_name = b"warmth", b"sea_surface_temperature"
    return path


@pytest.mark.parametrize(
    ("calendar", "values"),
    [
        ("noleap", (DAYS[1:] + DAYS[:-1]) / 2),
        ("365_day", DAYS + 0.5),
        ("360_day", 30 * np.arange(48) + 15.0),
        ("360_day", np.arange(48.0)),
    ],
)
def test_the_times_of_other_calendars_go_on(
    calendar: str, values: Any, runs: dict[str, TrainedRun], tmp_path: Path
) -> None:
    file = in_calendar(tmp_path / "model.nc", calendar, values[:36])
    for run, gap in (("standard", 0), ("gap", 2)):
        made = predict(runs[run], str(file), horizon=5)
        assert made.times is None
        assert made.clock is not None
        assert made.clock.values.tolist() == values[36 + gap : 41 + gap].tolist()
        assert (made.clock.units, made.clock.calendar) == ("days since 2001-01-01", calendar)


def test_a_clock_goes_on_after_the_last_hole(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    values = np.concatenate([10.0 * np.arange(30), 1000 + 12.0 * np.arange(6)])
    made = predict(runs["standard"], str(in_calendar(tmp_path / "model.nc", "360_day", values)))
    assert made.clock is not None
    assert made.clock.values.tolist() == [1072, 1084]


def test_a_forecast_has_the_names_and_the_calendar_of_the_frames(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    made = predict(runs["standard"], str(in_calendar(tmp_path / "model.nc", "noleap", DAYS[:36])))
    assert made.variable == "temperature"
    assert made.names == {"standard_name": "sea_surface_temperature", "long_name": "warmth"}
    save_forecast(tmp_path / "out.nc", made)
    written = open_series(tmp_path / "out.nc")
    assert (written.variable, written.names, written.units) == (made.variable, made.names, "K")
    assert written.clock is not None
    assert (written.clock.values.tolist(), written.clock.calendar) == (DAYS[36:38].tolist(), "noleap")
    assert predict(runs["standard"], runs["standard"].config.data.path).clock is None


def test_the_first_frames_do_not_depend_on_how_many_are_asked_for(runs: dict[str, TrainedRun]) -> None:
    for run in runs.values():
        short, long = (predict(run, run.config.data.path, horizon).frames for horizon in (1, 4))
        assert np.array_equal(short, long[:1], equal_nan=True)


def test_frames_of_another_size(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.nan_to_num(field(12, 9, 6), nan=290))
    made = predict(runs["standard"], str(tmp_path / "wide.npy"))
    assert made.frames.shape == (2, 1, 9, 6)
    assert made.times is None
    assert np.isfinite(made.frames).all()
    words = r"^.*weights\.safetensors: does not fit the model for frames of 10×6 pixels: parameter 'encoder.*p_"
    with pytest.raises(ValueError, match=words):
        predict(runs["peephole"], str(tmp_path / "wide.npy"))
    with pytest.raises(DataError, match=r"wide\.npy: the model knows the seasons"):
        predict(runs["seasonal"], str(tmp_path / "wide.npy"))


def test_frames_that_cannot_be_continued(runs: dict[str, TrainedRun], tmp_path: Path) -> None:
    frames = field()
    frames[-3:] = np.nan
    cases = {
        "nothing.nc": (frames, None, "standard", "its last 3 frames hold no value"),
        "hole.nc": (field(), np.concatenate([months(34), months(2, "2009-01")]), "standard", "3 frames in a row"),
        "one.nc": (field(1), None, "one frame", "it has one frame, so nobody can tell the times"),
    }
    for name, (values, times, run, words) in cases.items():
        file = write_field(tmp_path / name, values, times)
        with pytest.raises(DataError, match=f"^{file}: .*{words}"):
            predict(runs[run], str(file))
    file = in_calendar(tmp_path / "one_day.nc", "noleap", [3.0], field(1))
    with pytest.raises(DataError, match=f"^{file}: it has one frame, so nobody can tell the times"):
        predict(runs["one frame"], str(file))
    for horizon in (0, -1):
        with pytest.raises(ValueError, match="horizon must be"):
            predict(runs["standard"], runs["standard"].config.data.path, horizon)


def with_holes() -> Field:
    """Return the field with a third of the values missing, at random, and two whole frames."""
    frames = field()
    frames[np.random.default_rng(5).random(frames.shape) < 0.3] = np.nan
    frames[[12, 32]] = np.nan
    return frames


@pytest.mark.parametrize("frames", [field(), with_holes()], ids=["whole", "with holes"])
@pytest.mark.parametrize("scaling", ["standard", "seasonal", "range", "none"])
def test_an_untrained_residual_model_forecasts_persistence(scaling: Any, frames: Field, tmp_path: Path) -> None:
    """Of the anomaly, where the model knows the seasons; and of the last value of each pixel that has one."""
    config = config_of(write_field(tmp_path / "sea.nc", frames), scaling=scaling)
    source = open_source(config)
    model = Trainer(config, "numpy", source=source).model
    for name in ("readout.W", "readout.b"):
        model.parameters[name] = np.zeros_like(model.parameters[name])
    made = forecasts(config, model, source, "test", range(source.count("test")))
    wanted, there = made.by["persistence"], made.valid()
    if scaling == "seasonal":
        season = source.batch("test", range(source.count("test"))).season
        assert season is not None
        wanted = persistence(made.shown - season[:, :3], 2)[0] + season[:, 3:]
    assert there.sum() > 100
    assert np.allclose(made.by["model"][there], wanted[there], rtol=0, atol=1e-4)
    scores = evaluate(config, model, source)["overall"]
    error = ((wanted.astype(np.float64) - made.truth)[there] ** 2).mean()
    assert scores["model"]["mse"] == pytest.approx(error, rel=1e-4)
    if scaling != "seasonal":
        assert scores["model"]["mse"] == pytest.approx(scores["persistence"]["mse"], rel=1e-4)


def test_scores_are_those_of_all_forecasts_where_each_has_a_value(runs: dict[str, TrainedRun]) -> None:
    run = runs["seasonal"]
    source = run.source()
    model, usual = run.model(source.shape), run.climatology
    assert usual is not None
    scores = evaluate(run.config, model, source)
    assert list(scores["overall"]) == ["model", "persistence", "damped persistence", "climatology"]
    truth, frames, times = np.stack([field()[30 + n : 32 + n, None] for n in range(5)]), field()[:, None], months()
    last = np.stack([frames[[29 + n] * 2] for n in range(5)])
    season = np.stack([usual.at(times[30 + n : 32 + n]) for n in range(5)])
    factors = plain_damping(frames[:27] - usual.at(times[:27]), [TRAINING], 2)  # (2, 1)
    assert ((abs(factors) > 0.1) & (abs(factors) < 0.9)).all()
    anomaly = last - np.stack([usual.at(times[[29 + n] * 2]) for n in range(5)])
    damped = factors.astype(np.float32)[:, :, None, None] * anomaly + season
    sea = np.isfinite(truth)
    assert sea.mean() < 1
    for name, forecast in (("persistence", last), ("damped persistence", damped), ("climatology", season)):
        squares = (forecast.astype(np.float64) - truth) ** 2
        assert scores["overall"][name]["mse"] == pytest.approx(squares[sea].mean(), rel=1e-6)
        for k in range(2):
            expected = squares[:, k][sea[:, k]].mean()
            assert scores["by_lead_time"][name]["mse"][k] == pytest.approx(expected, rel=1e-6)
    made = forecasts(run.config, model, source, "test", range(5))
    total = Totals(2, value_range=None, structural=False)
    total.add(made.by["model"], made.truth, sea)
    assert scores["overall"]["model"]["mse"] == total.overall()["mse"]


def test_a_pixel_that_one_forecast_lacks_is_scored_for_none(tmp_path: Path) -> None:
    """A pixel that is missing in all that is shown: persistence has no value there, so neither is the model scored."""
    frames = field()
    frames[24:30, 4, 4] = np.nan
    config = config_of(write_field(tmp_path / "sea.nc", frames), scaling="standard", test_sequences=1, test_frames=6,
                       horizon=6, validation_frames=6)  # fmt: skip
    source = open_source(config)
    made = forecasts(config, Trainer(config, "numpy", source=source).model, source, "test", range(1))
    assert np.isfinite(made.truth[0, :, 0, 4, 4]).all()
    assert not made.valid()[0, :, 0, 4, 4].any()
    assert made.valid().sum() == 6 * (35 - 3)


def test_no_run(tmp_path: Path, runs: dict[str, TrainedRun]) -> None:
    with pytest.raises(NoRun, match=r"holds no config\.toml, so there is no trained model in it"):
        trained_run(tmp_path)
