"""data.json: every bit comes back, and what no run writes is refused by the file's name; see test_bad_input.py too."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlstm.data.facts import Facts, read_facts, write_facts
from convlstm.data.scaling import Scaling
from convlstm.data.series import DataError

FACTS = Facts(
    "sea.nc", (2, 5, 7), Scaling((0.1, 1e-30), (1 / 3, 2.0)), (-1.5, 0.1), (1e30, 1 / 3), filling=(0.0, -1e-17),
    damping=((0.9, 1 / 3), (-0.1, 0.0)), rows=(20.0, -20.0), columns=(0.1, 359.9), channels=("a", "b"), units="K, m",
    windows={"train": 3}, sha256="ab",
)  # fmt: skip
MADE = Facts("digits", (1, 9, 8), Scaling((0.0,), (1.0,)), (0.0,), (1.0,), filling=(0.0,))
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("facts", [FACTS, MADE])
def test_all_comes_back(facts: Facts, tmp_path: Path) -> None:
    write_facts(tmp_path / "data.json", facts)
    assert read_facts(tmp_path / "data.json") == facts


@given(
    offset=FINITE, scale=st.floats(min_value=0, exclude_min=True, allow_infinity=False), low=FINITE, high=FINITE,
    others=st.lists(FINITE, min_size=6, max_size=6),
)  # fmt: skip
def test_every_bit_of_every_number_comes_back(
    tmp_path_factory: pytest.TempPathFactory, offset: float, scale: float, low: float, high: float, others: list[float]
) -> None:
    file = tmp_path_factory.getbasetemp() / "data.json"
    filling, damping, north, south, west, east = others
    facts = Facts(
        "sea.nc", (1, 5, 7), Scaling((offset,), (scale,)), (low,), (high,), (filling,), ((damping,),), (north, south),
        (west, east),
    )  # fmt: skip
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
    ({"highest": [-1.5, 1]}, "less than highest"),
    ({"highest": [1e31, 0.1]}, "less than highest"),
    ({"highest": [1, float("inf")]}, "highest must be a list of finite numbers; got .1, inf."),
    ({"highest": 1e31}, "highest must be a list of finite numbers; got 1e.31"),
    ({"lowest": [-2]}, "lowest must be of 2 channels; got 1"),
    ({"lowest": [True, 0]}, "lowest must be a list of finite numbers"),
    ({"filling": [0.0] * 3}, "filling must be of 2 channels; got 3"),
    ({"filling": ["0", "0"]}, "filling must be a list of finite numbers"),
    ({"damping": [[0.5, 0.5], [0.5]]}, "damping must be of 2 channels"),
    ({"damping": [0.5, 0.5]}, "damping must be a list of finite numbers; got 0.5"),
    ({"damping": [[0.5, float("nan")]]}, "damping must be a list of finite numbers"),
    ({"damping": None}, "TypeError"),
    ({"rows": [1.0]}, "ValueError"),
    ({"columns": [1.0, 2.0, 3.0]}, "ValueError"),
    ({"rows": "12"}, "rows must be a list of finite numbers"),
    ({"columns": [0.0, float("inf")]}, "columns must be a list of finite numbers"),
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


@pytest.mark.parametrize("key", [field.name for field in fields(Facts)])
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
