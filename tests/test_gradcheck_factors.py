"""What a constant factor is called."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlstm.gradcheck.factors import name_factor


@pytest.mark.parametrize(
    ("k", "sizes", "said"),
    [
        (-1.0, {}, "wrong sign: exactly minus the right gradient"),
        (-1.0, {"N": 1}, "wrong sign: exactly minus the right gradient"),
        (0.3, {}, "^constant factor 0.3$"),
        (1 / 3, {}, "constant factor 0.3333 = 1/3: a mean over 3 "),
        (1 / 7, {"N": 7}, "^constant factor 0.1429 = 1/7: .* divided by N = 7 "),
        (-1 / 7, {"N": 7}, "^wrong sign and constant factor -0.1429 = 1/7: .* divided by N = 7 "),
        (7.0, {"N": 7}, "^constant factor 7: .* not divided by N = 7 "),
        (7 * 3 * 5.0, {"N": 7, "T": 3, "pixels": 5}, "not divided by N·T·pixels = 105 "),
        (0.003, {}, "a learning rate: this is the update η·gradient with η = 0.003"),
        (0.05, {}, "constant factor 0.05 = 1/20: "),
        (0.02, {}, "a learning rate: .* η = 0.02, .*or a mean over 50 "),
        (0.0123, {}, "^constant factor 0.0123$"),
        (1e-4, {}, "η = 0.0001"),
        (1e-4, {"pixels": 10_000}, " divided by pixels = 10000 "),
    ],
)
def test_name_of_a_factor(k: float, sizes: dict[str, int], said: str) -> None:
    assert re.search(said, name_factor(k, sizes))


def test_sizes_of_one_explain_nothing() -> None:
    assert "N" not in name_factor(3.7, {"N": 1, "T": 1}).replace("samples N", "")


def test_a_factor_two_sizes_explain_names_both() -> None:
    said = name_factor(1 / 4, {"N": 4, "T": 4})
    assert " divided by N = 4 " in said
    assert " divided by T = 4 " in said


@given(k=st.floats(1e-9, 1e9), sign=st.sampled_from([-1, 1]))
@settings(max_examples=100, deadline=None)
def test_every_factor_has_one_line(k: float, sign: int) -> None:
    said = name_factor(sign * k, {"N": 8})
    assert said
    assert "\n" not in said
    assert said.startswith("wrong sign") == (sign < 0)
