"""The trainer, and what is checked before a run directory is made; its steps are tested in test_training.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm import sources
from convlstm.backends import Array
from convlstm.config import Config, Model
from convlstm.data.digits import digit_sequences
from convlstm.from_config import make_model
from convlstm.parameter_files import save_parameters
from convlstm.trainer import check_config
from tests.runs import TINY

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")


def test_a_config_that_works_passes() -> None:
    check_config(TINY, "numpy")
    check_config(Config(), "numpy")


def test_a_setting_that_cannot_work() -> None:
    with pytest.raises(ValueError, match="kernel 33×33 is larger than the map"):
        check_config(Config(model=Model(kernel_size=33)), "numpy")


def test_a_missing_package_for_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **named: object) -> None:
        raise ModuleNotFoundError("scikit-learn is missing")

    monkeypatch.setattr(sources, "digit_sequences", missing)
    with pytest.raises(ModuleNotFoundError, match="scikit-learn is missing"):
        check_config(TINY, "numpy")


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save_parameters(
        tmp_path / "weights.npz", {**make_model(TINY, "numpy").parameters, "readout.b": np.zeros(3, np.float32)}
    )
    config = replace(TINY, model=replace(TINY.model, weights=str(tmp_path / "weights.npz")))
    with pytest.raises(ValueError, match=r"parameter 'readout.b' has shape \(3,\)"):
        check_config(config, "numpy")


def test_weights_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    learnt = make_model(TINY, "numpy").parameters
    save_parameters(tmp_path / "weights.npz", {**learnt, "readout.b": np.full_like(learnt["readout.b"], np.nan)})
    config = replace(TINY, model=replace(TINY.model, weights=str(tmp_path / "weights.npz")))
    with pytest.raises(ValueError, match=r"weights.npz: parameter 'readout.b' holds an infinity or a NaN"):
        check_config(config, "numpy")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_sequences_to_score_that_cannot_be_read_are_found_before_training(
    split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a test file that is not there, which would be noticed after the last step."""

    def damaged(asked: str, indices: range, **named: Any) -> Array:
        if asked == split:
            raise ValueError(f"{split}.npy: is not there")
        return digit_sequences(asked, indices, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(sources, "digit_sequences", damaged)
    with pytest.raises(ValueError, match=rf"^{split}\.npy: is not there$"):
        check_config(TINY, "numpy")


def test_sequences_that_are_not_scored_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    digits = digit_sequences

    def noted(asked: str, indices: range, **named: Any) -> Array:
        read.append(asked)
        return digits(asked, indices, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(sources, "digit_sequences", noted)
    check_config(replace(TINY, data=replace(TINY.data, validation_sequences=0)), "numpy")
    assert set(read) == {"train", "test"}
