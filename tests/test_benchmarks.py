"""The benchmarks measure what they say: fair turns, and peers that compute the same thing. No time is asserted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks import ledger, measure, train_step
from convlstm import NextFrame

TINY = train_step.Shape(T=3, N=2, Cin=2, C=3, H=5, W=6, K=3)


def test_turns_rotate_and_every_contender_has_one_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PAUSE_S", 0)
    monkeypatch.setattr(measure, "TURN_S", 0)
    calls: list[str] = []
    contenders = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = measure.interleaved(contenders, 3)
    assert "".join(calls) == "aabbcc" + "bbccaa" + "ccaabb"  # once to warm up, once for the clock
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_summary_of_one_round_and_of_many() -> None:
    assert measure.summary([0.5]) == {"median_ms": 500, "lower_quartile_ms": 500, "upper_quartile_ms": 500}
    assert measure.summary([0.001, 0.002, 0.003])["median_ms"] == pytest.approx(2)


def test_the_environment_says_how_busy_the_machine_was() -> None:
    assert measure.environment(("numpy",))["packages"] == {"numpy": np.__version__}
    assert "load_before" in measure.environment(())


def contestants() -> tuple[NextFrame, Any]:
    model = NextFrame(TINY.Cin, (TINY.C,), TINY.K, backend="numpy")
    frames = np.random.default_rng(0).random((TINY.N, TINY.T + 1, TINY.Cin, TINY.H, TINY.W), dtype=np.float32)
    return model, frames


def test_chainer_autograd_computes_the_same() -> None:
    model, frames = contestants()
    loss, gradients = train_step.ours(model, frames)[1]()
    step, peer = train_step.chainer_autograd(TINY, model.parameters, frames)
    assert train_step.largest_difference(gradients, loss, *peer()) < 1e-5
    step()


def test_a_peer_that_computes_something_else_is_refused() -> None:
    model, frames = contestants()
    loss, gradients = train_step.ours(model, frames)[1]()
    wrong = {**gradients, "layers.0.b": 2 * gradients["layers.0.b"]}
    with pytest.raises(RuntimeError, match="computes something else"):
        train_step.largest_difference(gradients, loss, loss, wrong)
    with pytest.raises(RuntimeError, match="computes something else"):
        train_step.largest_difference(gradients, loss, 1.01 * loss, gradients)


def test_the_table_has_a_row_for_each_shape() -> None:
    times = {"median_ms": 10.0, "lower_quartile_ms": 9.0, "upper_quartile_ms": 12.0}
    results = {"tiny": {"times": {"convlstm": times, "peer": times}, "speed_relative_to": {"peer": 1.0}}}
    assert train_step.table(results).splitlines() == [
        "| shape | convlstm, ms | peer, ms | speed ÷ peer's |",
        "|---|---|---|---|",
        "| tiny | 10.0 (9.0–12.0) | 10.0 (9.0–12.0) | 1.00 |",
    ]


def test_the_ledgers_cost_is_its_share_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PAUSE_S", 0)
    monkeypatch.setattr(measure, "TURN_S", 0)
    found = ledger.cost(TINY, 2)
    step, digest = (found["times"][name]["median_ms"] for name in ("step", "digest"))
    assert found["share"] == digest / step > 0
