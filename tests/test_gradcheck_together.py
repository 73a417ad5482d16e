"""What the gradients of several parameters say together."""

from __future__ import annotations

import numpy as np
import pytest

from convlstm.gradcheck.factors import name_factor
from tests.gradient_problems import THREE, Problem, Shape


@pytest.mark.parametrize("names", [("f", "i"), ("f", "g", "i"), ("f", "g", "i", "o")])
@pytest.mark.parametrize("shape", [(3, 4), (5,)])
def test_exchanged_names(names: tuple[str, ...], shape: Shape) -> None:
    problem = Problem({**dict.fromkeys("ifgo", shape), "b": (6,)})
    right = problem.gradients_at_start()
    following = dict(zip(names, (*names[1:], names[0]), strict=True))
    report = problem.check({name: right[other] for name, other in following.items()})
    assert set(report.faults) == set(names)
    for name, other in following.items():
        assert report.faults[name].endswith(f"this is the gradient of {other!r}")


def test_one_gradient_given_under_two_names() -> None:
    problem = Problem({"i": (3, 4), "f": (3, 4)})
    report = problem.check({"i": problem.gradients_at_start()["f"]})
    assert list(report.faults) == ["i"]


@pytest.mark.parametrize("factor", [2.0, -1.0, 1 / 9, 0.001])
def test_same_factor_in_all(factor: float) -> None:
    problem = Problem({**THREE, "one": (1,)})
    report = problem.check({n: factor * g for n, g in problem.gradients_at_start().items()}, {"N": 9})
    assert len(set(report.faults.values())) == 1
    assert set(report.faults) == {*THREE, "one"}
    said = report.faults["one"]
    assert said.startswith(f"{name_factor(factor, {'N': 9})} (the same ")


def test_different_factors_are_named_one_by_one() -> None:
    problem = Problem(THREE)
    right = problem.gradients_at_start()
    report = problem.check({"W_x": 2 * right["W_x"], "b": -right["b"]})
    assert report.faults["W_x"].startswith("constant factor 2")
    assert report.faults["b"].startswith("wrong sign")
    assert "W_h" not in report.faults


@pytest.mark.parametrize(("name", "said"), [("W_x", "summed over time with = in place of +="), ("b", "a bias's")])
def test_one_alone_without_a_pattern(name: str, said: str) -> None:
    problem = Problem({"W_x": (5, 7), "W_h": (5, 5), "b": (5,)})
    noise = np.random.default_rng(0).normal(size=problem.parameters[name].shape)
    report = problem.check({name: noise})
    assert list(report.faults) == [name]
    assert report.faults[name].startswith("only this gradient is wrong")
    assert said in report.faults[name]
