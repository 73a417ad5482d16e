"""What a page is told of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm.ledger import read_ledger
from convlstm.page.document import Page
from convlstm.recorded_run import NoRun
from convlstm.run_page import page_of
from convlstm.scoring import evaluate, forecasts
from convlstm.trained_run import trained_run
from tests.field_runs import config_of, field, trained, write_field
from tests.runs import TINY
from tests.runs import trained as trained_on_digits

for package in ("scipy", "xarray"):
    pytest.importorskip(package, reason=f"{package} is not installed")


def page(directory: Path) -> Page:
    run = trained_run(directory, "numpy")
    source = run.source()
    return page_of(run, evaluate(run.config, run.model(source.shape), source), source)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    frames = np.stack([field(), field() + 1], 1)
    np.save(folder / "sea.npy", frames)
    return trained(folder / "run", config_of(folder / "sea.npy", scaling="standard"))


def test_a_page_of_frames(run: Path) -> None:
    made, entries = page(run), read_ledger(run / "ledger.jsonl")
    assert made.title == "Forecasts of sea.npy"
    assert made.data == "sea.npy, 2 channels of 5×7 pixels; 3 frames shown, 2 forecast"
    assert (made.colours, made.units, made.steps, made.digest) == ("viridis", "", 4, entries[-1].digest)
    assert list(made.losses) == [entry.loss for entry in entries]
    assert [step for step, _ in made.validation] == [2, 4]
    assert made.config == (run / "config.toml").read_text()
    assert dict(made.facts)["scored on"] == "5 forecasts of frames that training never saw"
    values = np.concatenate([f[np.isfinite(f)] for film in made.films for f in (film.shown, film.truth)])
    assert made.limits == tuple(np.percentile(values, [0.5, 99.5]))  # not one pixel of heavy rain
    assert made.step_name == "frame"


def test_its_films_are_the_first_middle_and_last_test_sequence(run: Path) -> None:
    made, of_run = page(run), trained_run(run, "numpy")
    source = of_run.source()
    assert [film.name for film in made.films] == [f"test sequence {n} of 5" for n in (1, 3, 5)]
    for film, n in zip(made.films, (0, 2, 4), strict=True):
        one = forecasts(of_run.config, of_run.model(source.shape), source, "test", range(n, n + 1))
        for drawn, frames in ((film.shown, one.shown), (film.forecast, one.by["model"]), (film.truth, one.truth)):
            assert np.array_equal(drawn, frames[0, :, 0], equal_nan=True)


def one_film(folder: Path, times: np.ndarray[Any, Any] | None = None, **settings: Any) -> Page:
    """Return the page of a run with one test sequence."""
    data = write_field(folder / "sea.nc", field(), times, **settings)
    config = config_of(data, test_sequences=1, validation_sequences=0, scaling="standard", gap=1)
    return page(trained(folder / "run", config, steps=1))


def test_north_is_on_top_whichever_row_is_first(tmp_path: Path) -> None:
    for name, south_first in (("south", True), ("north", False)):
        (tmp_path / name).mkdir()
        (film,) = one_film(tmp_path / name, south_first=south_first).films
        order = -1 if south_first else 1
        assert np.array_equal(film.truth, field()[34:, ::order], equal_nan=True)
        assert np.array_equal(film.shown, field()[30:33, ::order], equal_nan=True)


@pytest.mark.parametrize(("step", "name", "first", "last"), [
    (np.timedelta64(1, "h"), "hour", "2001-01-02 06", "2001-01-02 11"),
    (np.timedelta64(1, "D"), "day", "2001-01-31", "2001-02-05"),
    (np.timedelta64(7, "D"), "week", "2001-07-30", "2001-09-03"),
    (np.timedelta64(3, "h"), "frame", "2001-01-04 18", "2001-01-05 09"),
    (None, "month", "2003-07", "2003-12"),
])  # fmt: skip
def test_steps_and_times_have_names(step: Any, name: str, first: str, last: str, tmp_path: Path) -> None:
    times = None if step is None else np.datetime64("2001-01-01", "ns") + step * np.arange(36)
    made = one_film(tmp_path, times)
    assert made.step_name == name
    names = list(made.films[0].times)
    assert len(names) == 5  # the one that is skipped has none
    assert (names[0], names[-1]) == (first, last)


def test_a_page_of_one_test_sequence_has_one_film(tmp_path: Path) -> None:
    config = config_of(write_field(tmp_path / "sea.nc", field()), test_sequences=1, validation_sequences=0)
    made = page(trained(tmp_path / "run", config, steps=1))
    assert [film.name for film in made.films] == ["test sequence 1 of 1"]
    assert dict(made.facts)["scored on"] == "1 forecast of frames that training never saw"
    assert made.validation == []
    assert made.units == "K"
    assert list(made.overall) == ["model", "persistence", "damped persistence", "climatology"]


def test_a_page_of_digits_is_grey(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    made = page(trained_on_digits(tmp_path / "run", TINY))
    assert (made.colours, made.limits) == ("grey", (0.0, 1.0))
    assert "16×16 pixels; 2 frames shown, 3 forecast" in made.data


def test_a_run_without_a_ledger_has_no_page(run: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "ledger.jsonl").unlink()
    with pytest.raises(NoRun, match=r"holds no ledger\.jsonl"):
        page(tmp_path / "run")
