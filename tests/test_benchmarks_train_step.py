"""A training step and a forecast: everybody computes the same from the same weights, and who does not is refused.

PyTorch and Keras are not here; where they are, each contest compares them before it times anything.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks import inference, train_step
from benchmarks.contest import Entrant, contest
from benchmarks.ours import our_forecast, our_training, weights_of
from benchmarks.peers import chainer_autograd
from benchmarks.shapes import Shape, frames_of
from convlstm.backends import Array
from tests.benchmark_problems import ONCE, TINY, without_waiting

OURS = ["convlstm (numpy)", "convlstm (numpy:winograd)"]


@pytest.mark.parametrize("benchmark", [train_step, inference], ids=["train_step", "inference"])
def test_it_runs_and_says_who_was_there(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    rows = benchmark.measure(ONCE._replace(backends=(*ONCE.backends, "numpy:nonsense")))
    found = rows["tiny"]
    assert {*OURS, "Chainer autograd"} <= found["seconds"].keys()
    assert found["skipped"]["convlstm (numpy:nonsense)"].startswith("backend must be")
    assert found["shape"] == TINY._asdict()
    assert max(found["largest_relative_difference"].values()) < 1e-5
    assert {*found["seconds"], *found["skipped"]} == {*OURS, "convlstm (numpy:nonsense)", *benchmark.PEERS}
    assert benchmark.table(rows).splitlines()[2].startswith("| tiny | ")


def test_the_reference_moves_with_every_parameter() -> None:
    """Else a peer that ignored one would pass."""
    found = our_training(TINY, frames_of(TINY), "numpy").result()
    assert found.keys() == {"loss", *weights_of(TINY)}
    assert all(np.abs(array).max() > 1e-4 for array in found.values())


@pytest.mark.parametrize(
    ("benchmark", "peer"),
    [(train_step, chainer_autograd.training), (inference, chainer_autograd.forecast)],
    ids=["train_step", "inference"],
)
@pytest.mark.parametrize("parameter", sorted(weights_of(TINY)))
def test_a_peer_that_computes_something_else_is_refused(benchmark: Any, peer: train_step.Peer, parameter: str) -> None:
    def wrong(shape: Shape, parameters: dict[str, Array], frames: Array) -> Entrant:
        return peer(shape, {**parameters, parameter: parameters[parameter] + np.float32(0.1)}, frames)

    with pytest.raises(RuntimeError, match=r"^wrong computes something else"):
        contest(benchmark.makers(TINY, ("numpy",), {"wrong": wrong}), 1)


def test_a_forecast_that_reads_one_frame_more_is_refused() -> None:
    def wrong(shape: Shape, parameters: dict[str, Array], frames: Array) -> Entrant:
        return chainer_autograd.forecast(shape, parameters, frames[:, 1:])

    with pytest.raises(RuntimeError, match=r"^wrong computes something else: frame"):
        contest(inference.makers(TINY, ("numpy",), {"wrong": wrong}), 1)


def test_steps_are_taken() -> None:
    """A step that moved no weights, or a forecast that computed nothing, would be quick."""
    frames = frames_of(TINY)
    for made in (our_training(TINY, frames, "numpy"), chainer_autograd.training(TINY, weights_of(TINY), frames)):
        before = float(made.result()["loss"])
        for _ in range(3):
            made.step()
        assert float(made.result()["loss"]) < before
    forecast = our_forecast(TINY, frames, "numpy").result()["frame"]
    assert forecast.shape == (TINY.N, TINY.Cin, TINY.H, TINY.W)


def test_the_speed_beside_pytorch_is_in_the_table() -> None:
    times = {"median_ms": 10.0, "lower_quartile_ms": 9.0, "upper_quartile_ms": 12.0}
    twice = {name: 2 * value for name, value in times.items()}
    rows = {"tiny": {"times": {"ours": times, "PyTorch": twice}, "seconds": {"ours": [0.01], "PyTorch": [0.02]}}}
    assert train_step.table(rows).splitlines()[:3] == [
        "| shape | ours | PyTorch |",
        "| --- | --- | --- |",
        "| tiny | 10.0 (9.0–12.0) **2.00** | 20.0 (18.0–24.0) |",
    ]
