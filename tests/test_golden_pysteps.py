"""`Totals` against pysteps, which verifies nowcasts of rain: its numbers are in golden/pysteps_scores.json."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convlstm.metrics import Totals
from tests.golden import record_pysteps as recorder

FACTS = json.loads(recorder.FILE.read_text("utf-8"))


def recorded(name: str) -> NDArray[Any]:
    return np.array(FACTS[name].split(), np.int64).reshape(FACTS["shape"])


def from_hex(numbers: list[str | None]) -> list[float]:
    return [np.nan if number is None else float.fromhex(number) for number in numbers]


def totals(masked: bool, parts: int = 1) -> Totals:
    """Return the recorded forecast's, added in so many batches."""
    forecast, truth = ((recorded(name) / 16).astype(np.float32) for name in ("forecast", "truth"))
    valid = recorded("valid").astype(bool) if masked else np.ones(forecast.shape, bool)
    sums = Totals(recorder.T, value_range=None, thresholds=recorder.THRESHOLDS)
    for part in np.array_split(np.arange(recorder.N), parts):
        sums.add(forecast[part], np.where(valid, truth, np.float32(np.nan))[part], valid[part])
    return sums


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("which", ["all", "masked"])
def test_scores_are_those_of_pysteps(which: str, parts: int) -> None:
    ours = totals(which == "masked", parts)
    scores, overall = ours.scores(), ours.overall()
    assert set(FACTS[which]) == {name for name in scores if not name.endswith("_per_frame")}
    for name, theirs in FACTS[which].items():
        for mine, recording in ((scores[name], theirs["scores"]), ([overall[name]], theirs["overall"])):
            numbers = [np.nan if number is None else number for number in mine]
            np.testing.assert_allclose(numbers, from_hex(recording), rtol=1e-12, atol=1e-15, err_msg=name)


def test_the_recording_holds_what_could_go_wrong() -> None:
    """Thresholds that values meet, a perfect lead time, undefined scores, and a mask that changes the others."""
    for array in (recorded("forecast"), recorded("truth")):
        assert all((array == 16 * threshold).any() for threshold in recorder.THRESHOLDS[:-1])
    assert FACTS["all"]["csi >= 1.5"]["scores"] == [None] * recorder.T
    assert from_hex(FACTS["all"]["csi >= 0.5"]["scores"])[0] == 1
    assert all(FACTS["all"][name] != FACTS["masked"][name] for name in ("mse", "mae", "csi >= 0.5", "far >= 0.25"))
