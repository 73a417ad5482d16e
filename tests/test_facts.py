"""data.json: every bit comes back, and what no run writes is refused by the file's name; see test_bad_input.py too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlstm.data.facts import Facts, read_facts, write_facts
from convlstm.data.scaling import Scaling
from convlstm.data.series import DataError

FACTS = Facts("sea.nc", (2, 5, 7), Scaling((0.1, 1e-30), (1 / 3, 2.0)), -1.5, 1e30, ("a", "b"), "K", {"train": 3}, "ab")
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("facts", [FACTS, Facts("digits", (1, 9, 8), Scaling((0.0,), (1.0,)), 0.0, 1.0)])
def test_all_comes_back(facts: Facts, tmp_path: Path) -> None:
    write_facts(tmp_path / "data.json", facts)
    assert read_facts(tmp_path / "data.json") == facts


@given(offset=FINITE, scale=st.floats(min_value=0, exclude_min=True, allow_infinity=False), low=FINITE, high=FINITE)
def test_every_bit_of_every_number_comes_back(
    tmp_path_factory: pytest.TempPathFactory, offset: float, scale: float, low: float, high: float
) -> None:
    file = tmp_path_factory.getbasetemp() / "data.json"
    facts = Facts("sea.nc", (1, 5, 7), Scaling((offset,), (scale,)), low, high)
    write_facts(file, facts)
    if low < high:
        assert repr(read_facts(file)) == repr(facts)
    else:
        with pytest.raises(DataError, match="lowest must be less than highest"):
            read_facts(file)


@pytest.mark.parametrize(("change", "words"), [
    ({"shape": [2, 5, 0]}, "three integers > 0"),
    ({"shape": [2, 5, 7.0]}, "three integers > 0"),
    ({"shape": [True, 5, 7]}, "three integers > 0"),
    ({"shape": 5}, "TypeError"),
    ({"shape": [1, 5, 7]}, "of 1 channels; got 2"),
    ({"highest": -1.5}, "less than highest"),
    ({"highest": float("inf")}, "both finite"),
    ({"channels": 3}, "TypeError"),
    ({"windows": ["train"]}, "AttributeError"),
    ({"windows": {"train": "x"}}, "ValueError"),
])  # fmt: skip
def test_what_no_run_writes(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    write_facts(tmp_path / "data.json", FACTS)
    values = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(DataError, match=f"^{tmp_path / 'data.json'}: not what a run writes: .*{words}"):
        read_facts(tmp_path / "data.json")


@pytest.mark.parametrize(
    "key", ["name", "shape", "scaling", "lowest", "highest", "channels", "units", "windows", "sha256"]
)
def test_nothing_may_be_missing(key: str, tmp_path: Path) -> None:
    write_facts(tmp_path / "data.json", FACTS)
    values = json.loads((tmp_path / "data.json").read_text())
    del values[key]
    (tmp_path / "data.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=f"KeyError '{key}'"):
        read_facts(tmp_path / "data.json")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.json: No such file or directory"):
        read_facts(tmp_path / "data.json")
