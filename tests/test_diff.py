"""Where two runs part: down to the array and element in which a fault was planted, and no further back or on."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm import cell, diff, next_frame, sources
from convlstm.backends import Array, get_backend
from convlstm.backends.contract import Gates
from convlstm.backends.numpy_backend import NumpyBackend
from convlstm.data.digits import digit_sequences
from convlstm.determinism.replay.compare import Difference
from convlstm.diff import Divergence
from convlstm.losses import LOSSES
from convlstm.optimizers import Adam
from convlstm.recorded_run import read_run
from convlstm.recording import Operation
from convlstm.trainer import Trainer
from tests.cupy_stand_in import forget_backends
from tests.runs import TINY, at_call, changed, nudged, trained

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")

# Two layers, three samples, two frames shown, two fed back: t = 0 … 3.
DEEP = changed(TINY, hidden_channels=(3, 3), batch_size=3, peephole="channel")
SAMPLES, STEP = 3, 1
Plant = Callable[[pytest.MonkeyPatch], None]


def divergence(one: Path, other: Path) -> Divergence:
    return diff.diff(read_run(one), read_run(other), lambda text: None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("tiny") / "run")


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("deep") / "run", DEEP)


# Runs that differ in their settings -----------------------------------------------------------------------------------


def test_identical_runs(tiny: Path, tmp_path: Path) -> None:
    found = divergence(tiny, trained(tmp_path / "again"))
    assert found == Divergence(True, steps=(3, 3))
    assert str(found) == "the runs are identical in every bit of every step"


def test_another_seed_is_seen_in_the_first_weights(tiny: Path, tmp_path: Path) -> None:
    found = divergence(tiny, trained(tmp_path / "other", changed(TINY, seed=6)))
    assert not found.identical
    assert (found.step, found.reproduced) == (0, (True, True))
    assert found.settings == ("[training] seed: 5 in the first, 6 in the second",)
    assert found.array is not None
    assert found.array.where == "layers.0.W_x before the step, element [0, 0, 0, 0]"
    assert str(found).splitlines() == [
        f"setting {found.settings[0]}",
        f"step 0: the first array that differs: {found.array}",
    ]


@pytest.mark.parametrize(
    ("settings", "step"), [({"learning_rate": 4e-3}, 0), ({"schedule": "linear"}, 1), ({"optimizer": "sgd"}, 0)]
)
def test_another_way_of_moving_is_seen_in_the_weights_after_a_step(
    settings: dict[str, Any], step: int, tiny: Path, tmp_path: Path
) -> None:
    """A linear schedule begins as a constant one."""
    found = divergence(tiny, trained(tmp_path / "other", changed(TINY, **settings)))
    assert (found.identical, found.step, len(found.settings)) == (False, step, 1)
    assert found.array is not None
    assert found.array.where.startswith("layers.0.W_x after the step, element [")
    assert found.array.ulp is not None
    assert found.array.ulp > 0


def test_other_data_is_seen_in_what_is_read(tiny: Path, tmp_path: Path) -> None:
    """The same model, with one pixel of one sample brighter: the pixel at row 5, column 6 of its first frame."""

    def brighter(split: Any, indices: Any, **named: Any) -> Array:
        made = digit_sequences(split, indices, **named)
        return nudged(made, (1, 0, 0, 5, 6)) if len(indices) == 2 else made

    found = planted(tiny, TINY, tmp_path, lambda patch: patch.setattr(sources, "digit_sequences", brighter))
    assert found.step == 0
    assert found.array is not None
    assert found.array.where == "sample 1, t = 0, layers.0: x, element [6, 1, 1]"  # patches of 4: (5 % 4) * 4 + 6 % 4


def test_other_layers(tiny: Path, tmp_path: Path) -> None:
    found = divergence(tiny, trained(tmp_path / "wider", changed(TINY, hidden_channels=(4,))))
    assert found.array == Difference("layers.0.W_x before the step", "float32 (12, 16, 3, 3)", "float32 (16, 16, 3, 3)")
    found = divergence(tiny, trained(tmp_path / "peephole", changed(TINY, peephole="channel")))
    assert found.array == Difference(
        "what is computed next", "readout.W before the step", "layers.0.p_i before the step"
    )
    assert found.settings == ('[model] peephole: "none" in the first, "channel" in the second',)


def test_a_larger_batch_is_seen_where_the_smaller_ends(tiny: Path, tmp_path: Path) -> None:
    """The samples of both are the same up to the scale of the loss: the first gradient is not."""
    found = divergence(tiny, trained(tmp_path / "larger", changed(TINY, batch_size=3)))
    assert found.array is not None
    assert found.array.where.startswith("sample 0, t = 3, readout: δz, element [")


@pytest.mark.parametrize("turned", [False, True])
def test_a_run_that_ended_earlier(turned: bool, tiny: Path, tmp_path: Path) -> None:
    runs = [tiny, trained(tmp_path / "longer", changed(TINY, steps=4))]
    found = divergence(*runs[:: -1 if turned else 1])
    assert (found.identical, found.step, found.array) == (False, 3, None)
    assert found.steps == ((4, 3) if turned else (3, 4))
    a, b = found.steps
    assert str(found).splitlines() == [
        f"setting [training] steps: {a} in the first, {b} in the second",
        f"the first run has {a} steps, the second {b}; those of both are identical",
    ]


def test_other_environments_are_said(tiny: Path, tmp_path: Path) -> None:
    other = trained(tmp_path / "other", changed(TINY, seed=6))
    environment = json.loads((other / "environment.json").read_text())
    numpy = environment["packages"]["numpy"]
    environment["packages"]["numpy"] = "1.0 then and now"
    (other / "environment.json").write_text(json.dumps(environment))
    found = divergence(tiny, other)
    assert found.environments == (f"numpy: {numpy} in the first, 1.0 then and now in the second",)
    assert f"made with {found.environments[0]}" in str(found).splitlines()


def test_what_is_being_done_is_told(tiny: Path, tmp_path: Path) -> None:
    told: list[str] = []
    other = trained(tmp_path / "other", changed(TINY, schedule="linear"))
    diff.diff(read_run(tiny), read_run(other), told.append)
    assert told == ["taking 2 steps of the first run again", "taking 2 steps of the second run again"]


def test_as_json(tiny: Path, tmp_path: Path) -> None:
    found = divergence(tiny, trained(tmp_path / "other", changed(TINY, seed=6)))
    data = json.loads(json.dumps(found.as_json()))
    assert data["identical"] is False
    assert (data["step"], data["steps"], data["reproduced"]) == (0, [3, 3], [True, True])
    assert found.array is not None
    assert data["array"]["where"] == found.array.where
    assert data["array"]["ulp"] == found.array.ulp
    assert float.fromhex(data["array"]["plain_hex"]) == float(data["array"]["plain"])


# Faults planted inside a step -----------------------------------------------------------------------------------------


def planted(one: Path, config: Any, directory: Path, plant: Plant, lasting: bool = True) -> Divergence:
    """Make a second run with a fault, and compare: while diff takes the second run again, the fault is there, too."""

    class Faulty(Trainer):
        made = 0

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            Faulty.made += 1
            if Faulty.made == 2 and lasting:
                plant(patch)

    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        other = trained(directory / "faulty", config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diff, "Trainer", Faulty)
        return divergence(one, other)


def of_backend(name: str, calls: list[str], sample: int, call: str, change: Callable[[Any], Any]) -> Plant:
    """Return what changes the result of one call of a method, of those that one sample makes in a step."""
    number = (STEP * SAMPLES + sample) * len(calls) + calls.index(call)
    method = getattr(NumpyBackend, name)

    return lambda patch: patch.setattr(NumpyBackend, name, staticmethod(at_call(number, method, change)))


# The calls of one sample in one step, in order, each as (layer or read-out, t, operand).
CONVOLVE = [
    "0.0.x", "0.1.x", "0.1.h", "1.0.x", "1.1.x", "1.1.h", "R.0", "R.1",
    "0.2.x", "0.2.h", "1.2.x", "1.2.h", "R.2", "0.3.x", "0.3.h", "1.3.x", "1.3.h", "R.3",
]  # fmt: skip
GATES_FORWARD = ["0.0", "0.1", "1.0", "1.1", "0.2", "1.2", "0.3", "1.3"]
GATES_BACKWARD = ["1.3", "0.3", "1.2", "0.2", "1.1", "1.0", "0.1", "0.0"]
GRADIENT_INPUT = [
    "R.3", "1.3.x", "1.3.h", "0.3.x", "0.3.h", "R.2", "1.2.x", "1.2.h", "0.2.x", "0.2.h",
    "R.1", "R.0", "1.1.x", "1.1.h", "1.0.x", "0.1.h",
]  # fmt: skip
GRADIENT_WEIGHTS = ["R.3", "R.2", "R.1", "R.0", "0.x", "0.h", "1.x", "1.h"]  # a layer's steps are taken together
AT = (0, 2, 3, 1)  # sample of its own, channel, row, column
ELEMENT = "element [2, 3, 1]"
ULPS = 5000  # so many that no later rounding takes them back


def first(results: tuple[Any, ...], change: Callable[[Any], Any]) -> tuple[Any, ...]:
    return change(results[0]), *results[1:]


def gate(k: int) -> Callable[[Any], Any]:
    """Change gate k at ELEMENT after the cell was computed from it: (N, 4, H·W, C) in memory."""

    def change(results: tuple[Array, Array, Gates]) -> Any:
        h, c, gates = results
        return h, c, gates._replace(activations=nudged(gates.activations, (0, k, 3 * 4 + 1, 2), ULPS))

    return change


def nudge(array: Array) -> Array:
    return nudged(array, AT, ULPS)


def delta(k: int) -> Callable[[Any], Any]:
    return lambda results: first(results, lambda dz: nudged(dz, (0, 3 * k + 2, 3, 1), ULPS))


FAULTS: dict[str, tuple[Plant, str]] = {
    "W_x ∗ x": (of_backend("convolve", CONVOLVE, 0, "0.0.x", nudge), f"sample 0, t = 0, layers.0: W_x ∗ x, {ELEMENT}"),
    "W_x ∗ x of layer 1": (
        of_backend("convolve", CONVOLVE, 2, "1.3.x", nudge),
        f"sample 2, t = 3, layers.1: W_x ∗ x, {ELEMENT}",
    ),
    "W_h ∗ h": (of_backend("convolve", CONVOLVE, 1, "0.2.h", nudge), f"sample 1, t = 2, layers.0: W_h ∗ h, {ELEMENT}"),
    "W_h ∗ h of a shown frame": (
        of_backend("convolve", CONVOLVE, 1, "1.1.h", nudge),
        f"sample 1, t = 1, layers.1: W_h ∗ h, {ELEMENT}",
    ),
    "the read-out": (of_backend("convolve", CONVOLVE, 2, "R.2", nudge), f"sample 2, t = 2, readout: W ∗ h, {ELEMENT}"),
    "the forget gate": (
        of_backend("gates_forward", GATES_FORWARD, 1, "1.2", gate(1)),
        f"sample 1, t = 2, layers.1: gate f, {ELEMENT}",
    ),
    "the output gate": (
        of_backend("gates_forward", GATES_FORWARD, 2, "0.1", gate(3)),
        f"sample 2, t = 1, layers.0: gate o, {ELEMENT}",
    ),
    "h": (
        of_backend("gates_forward", GATES_FORWARD, 0, "0.3", lambda r: first(r, nudge)),
        f"sample 0, t = 3, layers.0: h, {ELEMENT}",
    ),
    "δ of gate o": (
        of_backend("gates_backward", GATES_BACKWARD, 1, "0.2", delta(3)),
        f"sample 1, t = 2, layers.0: δ of gate o, {ELEMENT}",
    ),
    "δ of gate i": (
        of_backend("gates_backward", GATES_BACKWARD, 2, "1.0", delta(0)),
        f"sample 2, t = 0, layers.1: δ of gate i, {ELEMENT}",
    ),
    "δc": (
        of_backend("gates_backward", GATES_BACKWARD, 0, "1.3", lambda r: (r[0], nudge(r[1]))),
        f"sample 0, t = 3, layers.1: δc of the step before, {ELEMENT}",
    ),
    "δh": (
        of_backend("gradient_input", GRADIENT_INPUT, 1, "0.3.h", nudge),
        f"sample 1, t = 3, layers.0: δh of the step before, {ELEMENT}",
    ),
    "δx": (
        of_backend("gradient_input", GRADIENT_INPUT, 1, "1.1.x", nudge),
        f"sample 1, t = 1, layers.1: δx, {ELEMENT}",
    ),
    "δh of the read-out": (
        of_backend("gradient_input", GRADIENT_INPUT, 2, "R.1", nudge),
        f"sample 2, t = 1, readout: δh, {ELEMENT}",
    ),
    "the gradient to W_h": (
        of_backend("gradient_weights", GRADIENT_WEIGHTS, 2, "1.h", lambda g: nudged(g, (7, 2, 1, 0), ULPS)),
        "sample 2, layers.1: gradient to W_h, element [7, 2, 1, 0]",
    ),
    "the gradient to W_x": (
        of_backend("gradient_weights", GRADIENT_WEIGHTS, 0, "0.x", lambda g: nudged(g, (7, 12, 1, 0), ULPS)),
        "sample 0, layers.0: gradient to W_x, element [7, 12, 1, 0]",
    ),
    "a share of the read-out's gradient": (
        of_backend("gradient_weights", GRADIENT_WEIGHTS, 1, "R.2", lambda g: nudged(g, (7, 2, 0, 0), ULPS)),
        "sample 1, t = 2, readout: share of the gradient to W, element [7, 2, 0, 0]",
    ),
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("plant", "where"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_of_the_backend_is_found(plant: Plant, where: str, deep: Path, tmp_path: Path) -> None:
    found = planted(deep, DEEP, tmp_path, plant)
    assert (found.identical, found.step, found.reproduced, found.settings) == (False, STEP, (True, True), ())
    assert found.array is not None
    assert (found.array.where, found.array.ulp) == (where, ULPS)
    assert found.array.plain != found.array.changed
    assert found.array.plain_hex is not None
    assert found.array.changed_hex is not None
    gap = float.fromhex(found.array.changed_hex) - float.fromhex(found.array.plain_hex)
    assert gap == pytest.approx(float(found.array.changed) - float(found.array.plain))
    assert gap != 0
    assert str(found).startswith(f"step {STEP}: the first array that differs: {where}: ")


def of_loss(part: str, number: int, change: Callable[[Any], Any]) -> Plant:
    """Return what changes the loss's value or gradient in one call; there is one for each t of each sample."""
    loss = LOSSES["bce"]

    def plant(patch: pytest.MonkeyPatch) -> None:
        faulty: Any = {part: at_call(number, getattr(loss, part), change)}
        patch.setitem(LOSSES, "bce", loss._replace(**faulty))

    return plant


def of_readout_bias(patch: pytest.MonkeyPatch) -> None:
    """Change what is fed back to sample 1 at t = 2: the frame is σ of the logits of t = 1."""
    frame = at_call((STEP * SAMPLES + 1) * 2, next_frame.NextFrame._frame, lambda y: nudged(y, (0, 5, 2, 1), ULPS))
    patch.setattr(next_frame.NextFrame, "_frame", frame)


def of_sum(patch: pytest.MonkeyPatch) -> None:
    """Change p_f of layer 0 in the last step in time of sample 2: four sums for each of eight backward steps."""
    number = (STEP * SAMPLES + 2) * 32 + 4 * 7 + 2
    patch.setattr(cell, "sum_to", at_call(number, cell.sum_to, lambda g: g + np.array([0, 1, 0], g.dtype)))


def of_optimizer(patch: pytest.MonkeyPatch) -> None:
    """Change an element of layer 1's W_h after the step."""
    step, calls = Adam.step, iter(range(99))

    def faulty(optimizer: Adam, parameters: dict[str, Array], gradients: Any) -> None:
        step(optimizer, parameters, gradients)
        if next(calls) == STEP:
            parameters["layers.1.W_h"] = nudged(parameters["layers.1.W_h"], (4, 2, 1, 1))

    patch.setattr(Adam, "step", faulty)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("plant", "where", "ulp"),
    [
        (of_loss("gradient", 4 * (STEP * SAMPLES + 2) + 3, lambda g: nudged(g, (0, 4, 2, 1), ULPS)),
         r"sample 2, t = 1, readout: δz, element \[4, 2, 1\]", None),
        (of_loss("value", 4 * (STEP * SAMPLES + 2) + 1, lambda v: v * (1 + 1e-9)), "loss", None),
        (of_readout_bias, r"sample 1, t = 2, layers.0: x, element \[5, 2, 1\]", ULPS),
        (of_sum, r"gradient to layers.0.p_f, element \[1\]", None),
        (of_optimizer, r"layers.1.W_h after the step, element \[4, 2, 1, 1\]", 1),
    ],
    ids=["gradient of the loss", "loss", "fed-back frame", "sum over pixels", "optimizer"],
)  # fmt: skip
def test_a_fault_elsewhere_is_found_at_the_next_array(
    plant: Plant, where: str, ulp: int | None, deep: Path, tmp_path: Path
) -> None:
    found = planted(deep, DEEP, tmp_path, plant)
    assert (found.identical, found.step, found.reproduced) == (False, STEP, (True, True))
    assert found.array is not None
    assert re.fullmatch(where, found.array.where)
    assert found.array.ulp
    assert ulp is None or found.array.ulp == ulp


@pytest.mark.usefixtures("one_thread")
def test_what_nothing_reads_is_no_difference(deep: Path, tmp_path: Path) -> None:
    """A NaN in δc at t = 0, which nothing reads, is no difference."""

    def with_nan(results: tuple[Array, Array]) -> Any:
        dz, dc = results
        copy = dc.copy(order="K")
        copy[AT] = np.nan
        return dz, copy

    plant = of_backend("gates_backward", GATES_BACKWARD, 1, "0.0", with_nan)
    assert planted(deep, DEEP, tmp_path, plant).identical


def test_arrays_are_compared_by_their_bits() -> None:
    def parts(a: Array, b: Array) -> Difference | None:
        return diff._first_to_part([Operation({}, {"a": a})], [Operation({}, {"a": b})])

    zero, nan = np.zeros(2, np.float32), np.array([1, np.nan], np.float32)
    assert parts(nan, nan.copy()) is None
    assert parts(zero, zero.copy()) is None
    signed = parts(zero, np.array([0, -0.0], np.float32))
    assert signed is not None
    assert (signed.where, signed.plain, signed.changed, signed.ulp) == ("a, element [1]", "0.0", "-0.0", 0)
    assert parts(zero, zero.view(np.int32)) == Difference("a", "float32 (2,)", "int32 (2,)")
    assert diff._first_to_part([], [Operation({"x": zero}, {})]) == Difference("what is computed next", "nothing", "x")


# Runs that do not come again ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("turned", [False, True])
def test_a_fault_that_is_gone(turned: bool, deep: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        FAULTS["h"][0](patch)
        other = trained(tmp_path / "faulty", DEEP)
    found = divergence(*((other, deep) if turned else (deep, other)))
    assert (found.identical, found.step, found.array) == (False, STEP, None)
    assert found.reproduced == ((False, True) if turned else (True, False))
    which = "first" if turned else "second"
    assert str(found).splitlines() == [
        f"step {STEP}: the ledgers differ, but taken again here both runs compute the same",
        f"taken again here, the {which} run does not come to what it recorded: what was met then is gone",
    ]


def test_neither_run_comes_again(tiny: Path) -> None:
    """And a step before the one in question counts too: the digest is chained."""
    runs = [read_run(tiny), read_run(tiny)]
    for run, digit in zip(runs, "01", strict=True):
        run.ledger[0] = run.ledger[0]._replace(digest=digit * 64)
    found = diff.diff(runs[0], runs[1], lambda text: None)
    assert found.reproduced == (False, False)
    assert str(found).splitlines()[-1] == (
        "taken again here, neither run comes to what it recorded: what was met then is gone"
    )


def test_a_line_whose_loss_alone_was_changed(tiny: Path) -> None:
    run, other = read_run(tiny), read_run(tiny)
    other.ledger[1] = other.ledger[1]._replace(loss=float(np.nextafter(other.ledger[1].loss, 1)))
    found = diff.diff(run, other, lambda text: None)
    assert (found.identical, found.step, found.array, found.reproduced) == (False, 1, None, (True, False))


def test_each_run_is_taken_on_its_own_backend(tiny: Path, tmp_path: Path) -> None:
    run = read_run(tiny)
    other = dataclasses.replace(
        read_run(trained(tmp_path / "other", changed(TINY, seed=6))), environment={"backend": "cupy:7"}
    )
    with pytest.raises((ValueError, RuntimeError), match="cupy:7"):
        diff.diff(run, other, lambda text: None)


def test_the_threads_do_not_matter(deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = trained(tmp_path / "other", changed(DEEP, schedule="linear"))
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("CONVLSTM_THREADS", threads)
        forget_backends()
        assert get_backend("numpy").description.endswith(f"{threads} worker thread(s)")
        found.append(divergence(deep, other))
    forget_backends()
    assert found[0] == found[1]
    assert found[0].reproduced == (True, True)
