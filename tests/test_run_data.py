"""What a run keeps of its data; and that it goes on, is proved and scored on the same data alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm.data.facts import read_facts
from convlstm.data.series import DataError
from convlstm.parameter_files import save_parameters
from convlstm.run_data import check_data, load_climatology, save_data
from convlstm.sources import open_source
from tests.field_runs import config_of, field, write_field
from tests.runs import TINY

pytest.importorskip("scipy", reason="the files of these tests are written by scipy")
pytest.importorskip("xarray", reason="xarray is not installed")


@pytest.fixture
def sea(tmp_path: Path) -> Path:
    return write_field(tmp_path / "sea.nc", field())


@pytest.mark.parametrize("missing", [np.s_[:0], np.s_[5:27:12, 4, 4]], ids=["land alone", "a pixel in June"])
def test_facts_and_climatology_come_back(missing: Any, sea: Path, tmp_path: Path) -> None:
    frames = field()
    frames[missing] = np.nan
    source = open_source(config_of(write_field(sea, frames)))
    save_data(tmp_path, source)
    assert read_facts(tmp_path / "data.json") == source.facts
    kept = load_climatology(tmp_path, source.facts)
    assert kept is not None
    assert kept.means.tobytes() == source.climatology.means.tobytes()  # type: ignore[attr-defined]
    check_data(tmp_path, source)


def test_a_run_on_made_frames_keeps_no_climatology(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")
    source = open_source(TINY)
    save_data(tmp_path, source)
    assert sorted(os.listdir(tmp_path)) == ["data.json"]
    assert load_climatology(tmp_path, source.facts) is None


def test_a_file_that_moved_is_the_same_data(sea: Path, tmp_path: Path) -> None:
    before = open_source(config_of(sea))
    save_data(tmp_path, before)
    sea.rename(tmp_path / "moved.nc")
    after = open_source(config_of(tmp_path / "moved.nc"))
    check_data(tmp_path, after)
    assert (after.facts.name != before.facts.name, after.facts.sha256) == (True, before.facts.sha256)


def test_a_lost_data_json_is_no_reason_to_refuse(sea: Path, tmp_path: Path) -> None:
    check_data(tmp_path, open_source(config_of(sea)))
    assert not (tmp_path / "data.json").exists()  # nor is it made up


def _last_bit(sea: Path) -> None:
    frames = field()
    frames[-1, -1, -1] = np.nextafter(frames[-1, -1, -1], np.float32(np.inf))
    write_field(sea, frames)


def _one_frame_more(sea: Path) -> None:
    write_field(sea, field(37))


@pytest.mark.parametrize("change", [_last_bit, _one_frame_more])
def test_data_that_changed_are_refused_by_their_name(change: Callable[[Path], None], sea: Path, tmp_path: Path) -> None:
    save_data(tmp_path, open_source(config_of(sea)))
    change(sea)
    with pytest.raises(DataError, match=rf"^{sea}: it has changed since the run began"):
        check_data(tmp_path, open_source(config_of(sea)))


@pytest.mark.parametrize("change", [
    {"units": "degC"}, {"lowest": [280.0]}, {"filling": [0.5]}, {"damping": [[0.5], [0.25]]}, {"rows": [20.0, -20.0]},
    {"columns": None},
])  # fmt: skip
def test_another_reading_of_the_same_file_is_refused(change: dict[str, Any], sea: Path, tmp_path: Path) -> None:
    save_data(tmp_path, open_source(config_of(sea)))
    values = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(DataError, match=rf"^{sea}: .*data.json says other things of it"):
        check_data(tmp_path, open_source(config_of(sea)))


def test_a_climatology_without_means(sea: Path, tmp_path: Path) -> None:
    save_parameters(tmp_path / "climatology.safetensors", {"other": np.zeros(3, np.float32)})
    with pytest.raises(DataError, match=r"climatology\.safetensors: holds no means"):
        load_climatology(tmp_path, open_source(config_of(sea)).facts)
