"""Verify: a run that comes again to the bit, and everything by which one does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convlstm import from_config
from convlstm import verify as verify_module
from convlstm.backends import Array
from convlstm.backends.numpy_backend import NumpyBackend
from convlstm.checkpoint import read_checkpoint, write_checkpoint
from convlstm.config import ConfigError, config_as_toml
from convlstm.not_finite import NotFinite
from convlstm.optimizers import Adam
from convlstm.parameter_files import load_parameters, save_parameters
from convlstm.recorded_run import read_run
from convlstm.trainer import Record, Trainer
from convlstm.verify import Verification, verify
from tests.cupy_stand_in import forget_backends
from tests.runs import TINY, at_call, changed, nudged, trained

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, which is not installed")

GATES_PER_STEP = 2 * 4  # two samples, four times


def verified(directory: Path) -> Verification:
    return verify(read_run(directory), "numpy", lambda done, loss: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def ledger(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "ledger.jsonl").read_text().splitlines()]


def write_ledger(directory: Path, lines: list[dict[str, Any]]) -> None:
    (directory / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


# Runs that come again -------------------------------------------------------------------------------------------------


def test_a_run_that_is_as_it_was(finished: Path) -> None:
    reports = []
    found = verify(read_run(finished), "numpy", lambda done, loss: reports.append((done, loss)))
    assert found == Verification(3, identical=True)
    assert reports == [(line["step"] + 1, line["loss"]) for line in ledger(finished)]
    assert found.as_json() == {"identical": True, "steps": 3, "fault": "", "note": "", "first_difference": None}


def test_verifying_changes_no_file(finished: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    verified(finished)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_channels": (2, 3), "peephole": "channel", "batch_size": 3},
        {"bias": "pixel", "peephole": "pixel", "output": "linear", "loss": "mse", "clipping": "global"},
        {"optimizer": "sgd", "schedule": "linear", "loss": "mae", "clipping": "normalise", "bias": None},
        {"horizon": 1, "steps": 1, "batch_size": 1},
    ],
)
def test_other_models_and_trainings(settings: dict[str, Any], tmp_path: Path) -> None:
    assert verified(trained(tmp_path / "run", changed(TINY, **settings))).identical


@pytest.mark.parametrize("threads", ["1", "3"])
def test_other_threads(threads: str, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVLSTM_THREADS", threads)
    forget_backends()
    assert verified(finished).identical
    forget_backends()


PROCESSES = {
    "one thread of each kind": {"CONVLSTM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    "filled memory, another hash seed": {
        "CONVLSTM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3", "MALLOC_PERTURB_": "165", "PYTHONHASHSEED": "9",
    },
}  # fmt: skip


@pytest.mark.parametrize("variables", PROCESSES.values(), ids=PROCESSES.keys())
def test_other_processes(variables: dict[str, str], finished: Path) -> None:
    command = [sys.executable, "-m", "convlstm", "verify", str(finished)]
    environment = {**os.environ, "PYTHONHASHSEED": "1", **variables}
    result = subprocess.run(command, env=environment, check=False, capture_output=True, encoding="utf-8", timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "identical: all 3 steps, every bit of loss, gradients and weights"


def test_a_run_from_given_weights(finished: Path, tmp_path: Path) -> None:
    """The file is as much of the run as its seed: once it is another, training again would prove nothing."""
    start = tmp_path / "start.safetensors"
    shutil.copy(finished / "weights.safetensors", start)
    run = trained(tmp_path / "run", changed(TINY, weights=str(start)))
    assert verified(run).identical
    weights = load_parameters(start)
    weights["readout.b"] = weights["readout.b"] + np.float32(0.5)
    save_parameters(start, weights)
    with pytest.raises(ConfigError, match=r"start\.safetensors has changed since the run started from it: its SHA"):
        verified(run)
    environment = json.loads((run / "environment.json").read_text())
    del environment["weights_sha256"]  # as runs of earlier versions have it
    (run / "environment.json").write_text(json.dumps(environment))
    assert verified(run).step == 0
    start.unlink()
    with pytest.raises(ValueError, match=r"start\.safetensors: cannot be read: No such file"):
        verified(run)


def test_an_interrupted_run_is_verified_as_far_as_it_went(tmp_path: Path) -> None:
    """After two of three steps; its schedule is that of three."""
    config = changed(TINY, schedule="linear")
    run = trained(tmp_path / "run", config)
    write_ledger(run, ledger(run)[:2])
    again = Trainer(config, "numpy")
    for _ in range(2):
        again.step(lambda loss, gradients, weights: None)
    save_parameters(run / "weights.safetensors", again.model.parameters)
    assert verified(run) == Verification(2, identical=True)


def test_a_run_without_a_step_holds_the_weights_it_began_with(run: Path) -> None:
    write_ledger(run, [])
    found = verified(run)
    assert (found.identical, found.steps, found.step) == (False, 0, None)
    save_parameters(run / "weights.safetensors", from_config.make_model(TINY, "numpy").parameters)
    assert verified(run) == Verification(0, identical=True)


def test_a_run_that_diverged_is_verified_to_its_last_finite_step(tmp_path: Path) -> None:
    steep = changed(
        TINY, steps=30, output="linear", loss="mse", optimizer="sgd", learning_rate=1e30, clipping="none", seed=0
    )
    with pytest.raises(NotFinite):
        trained(tmp_path / "run", steep)
    found = verified(tmp_path / "run")
    assert found.identical
    assert 0 < found.steps < 30


# Runs that do not -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_changed_digit_of_a_digest(step: int, run: Path) -> None:
    lines = ledger(run)
    last = lines[step]["digest"][-1]
    lines[step]["digest"] = lines[step]["digest"][:-1] + ("0" if last != "0" else "1")
    write_ledger(run, lines)
    found = verified(run)
    loss = lines[step]["loss"]
    assert (found.identical, found.steps, found.step, found.loss) == (False, step + 1, step, (loss, loss))
    assert found.fault == f"step {step}: the loss is the same, {loss!r}, but a gradient or a weight is not"


def test_a_loss_that_alone_was_changed(run: Path) -> None:
    """The digest is over the loss that was; the line's own loss is compared, too."""
    lines = ledger(run)
    right = lines[1]["loss"]
    lines[1]["loss"] = float(np.nextafter(right, 1))
    lines[1]["loss_hex"] = lines[1]["loss"].hex()
    write_ledger(run, lines)
    found = verified(run)
    assert (found.identical, found.step, found.loss) == (False, 1, (lines[1]["loss"], right))
    first = found.as_json()["first_difference"]
    assert (first["ulp"], first["step"]) == (1, 1)


@pytest.mark.parametrize(
    ("settings", "step"),
    [({"seed": 6}, 0), ({"learning_rate": 4.9e-3}, 0), ({"schedule": "linear"}, 1), ({"peephole": "pixel"}, 0)],
)
def test_changed_settings(settings: dict[str, Any], step: int, run: Path) -> None:
    (run / "config.toml").write_text(config_as_toml(changed(TINY, **settings)))
    found = verified(run)
    assert (found.identical, found.step) == (False, step)


def test_a_changed_loss_is_said_with_its_distance(run: Path) -> None:
    (run / "config.toml").write_text(config_as_toml(changed(TINY, seed=6)))
    found = verified(run)
    assert found.loss is not None
    then, now = found.loss
    assert then == ledger(run)[0]["loss"]
    first = found.as_json()["first_difference"]
    assert first == {
        "step": 0, "loss_recorded": then, "loss_recorded_hex": then.hex(), "loss_now": now, "loss_now_hex": now.hex(),
        "ulp": first["ulp"],
    }  # fmt: skip
    assert first["ulp"] == abs(int(np.float64(then).view(np.int64)) - int(np.float64(now).view(np.int64)))
    assert found.fault == (
        f"step 0: the loss was {then!r} ({then.hex()}), now it is {now!r} ({now.hex()}); {first['ulp']} ulp"
    )


@pytest.mark.parametrize("bit", [0, 31])
@pytest.mark.parametrize("name", ["layers.0.W_h", "readout.b"])
def test_a_changed_bit_of_the_weights(bit: int, name: str, run: Path) -> None:
    file = run / "weights.safetensors"
    weights = load_parameters(file)
    weights[name].view(np.uint32).reshape(-1)[-1] ^= np.uint32(1 << bit)
    save_parameters(file, weights)
    found = verified(run)
    assert (found.identical, found.steps, found.step, found.loss) == (False, 3, None, None)
    assert found.fault == f"every digest agrees, but {file} holds another {name} than the last step made"
    assert found.as_json()["first_difference"] is None


def test_any_bit_of_the_weights_file(run: Path) -> None:
    """Among its numbers; a file that cannot be read for it is a fault of the run, not an error."""
    file = run / "weights.safetensors"
    whole = file.read_bytes()
    for at in (0, 8, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = verified(run)
        assert not found.identical
        assert found.fault.startswith(f"every digest agrees, but {file}")


def test_weights_that_are_fewer_or_more_or_others(run: Path) -> None:
    file = run / "weights.safetensors"
    weights = load_parameters(file)
    fewer = {name: w for name, w in weights.items() if name != "layers.0.b"}
    for name, other in {
        "layers.0.b": fewer,
        "extra": {**weights, "extra": np.zeros(1, np.float32)},
        "readout.b": {**weights, "readout.b": weights["readout.b"].astype(np.float64)},
        "readout.W": {**weights, "readout.W": weights["readout.W"].reshape(1, 16, 3, 1)},
    }.items():
        save_parameters(file, other)
        assert verified(run).fault == f"every digest agrees, but {file} holds another {name} than the last step made"


def test_no_weights(run: Path) -> None:
    (run / "weights.safetensors").unlink()
    found = verified(run)
    assert (found.identical, found.fault) == (
        False, f"every digest agrees, but {run / 'weights.safetensors'} is missing",
    )  # fmt: skip


# Runs that were killed ------------------------------------------------------------------------------------------------


def killed(run: Path, *, lines: int, weights: bool = True) -> Path:
    """Leave of a run with checkpoints after 2 of 3 steps and after the last what a kill would have."""
    (run / "scores.json").unlink()
    write_ledger(run, ledger(run)[:lines])
    if not weights:
        (run / "weights.safetensors").unlink()
    for file in (run / "checkpoints").glob("step-00000003.*"):
        if lines < 3:
            file.unlink()
    return run


@pytest.fixture
def often_saved(tmp_path: Path) -> Path:
    return trained(tmp_path / "often", changed(TINY, checkpoint_every=2))


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("lines", [2, 3])
def test_a_killed_runs_weights_are_its_newest_checkpoints(lines: int, weights: bool, often_saved: Path) -> None:
    run = killed(often_saved, lines=lines, weights=weights)
    found = verified(run)
    assert (found.identical, found.steps) == (True, lines)
    file = run / "checkpoints" / f"step-0000000{lines}.json"
    compared = "" if weights and lines == 3 else f"the run is unfinished: the weights compared are those of {file}"
    assert found.note == found.as_json()["note"] == compared


def test_a_killed_runs_weights_may_not_be_saved_at_all(often_saved: Path) -> None:
    found = verified(killed(often_saved, lines=1))
    assert (found.identical, found.steps) == (True, 1)
    assert found.note == "the run is unfinished and its last step's weights are not saved: they were not compared"


def test_a_killed_run_whose_digests_do_not_agree(often_saved: Path) -> None:
    run = killed(often_saved, lines=2)
    lines = ledger(run)
    lines[1]["digest"] = "0" * 64
    write_ledger(run, lines)
    assert (verified(run).identical, verified(run).step) == (False, 1)


def test_a_checkpoint_with_other_weights_than_the_steps_made(often_saved: Path) -> None:
    run = killed(often_saved, lines=3, weights=False)
    sound = read_checkpoint(run / "checkpoints", 3)
    other = {**sound.weights, "readout.b": nudged(np.asarray(sound.weights["readout.b"]), (0,))}
    write_checkpoint(run / "checkpoints", replace(sound, weights=other))
    found = verified(run)
    file = run / "checkpoints" / "step-00000003.json"
    assert not found.identical
    assert found.fault == f"every digest agrees, but {file} holds another readout.b than the last step made"


def test_a_ledger_that_was_cut_short(run: Path) -> None:
    write_ledger(run, ledger(run)[:2])
    found = verified(run)
    assert (found.identical, found.steps, found.step) == (False, 2, None)
    assert "holds another layers.0.W_h than the last step made" in found.fault


def test_a_ledger_without_its_middle_whose_steps_were_numbered_anew(run: Path) -> None:
    lines = ledger(run)
    write_ledger(run, [lines[0], {**lines[2], "step": 1}])
    assert verified(run).step == 1


# Planted faults -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
def test_a_gate_that_wanders(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One element of h, in step 2."""

    def wander(results: tuple[Array, ...]) -> Any:
        return nudged(results[0], (0, 1, 2, 3), 5000), *results[1:]

    forward = at_call(2 * GATES_PER_STEP + 5, NumpyBackend.gates_forward, wander)
    monkeypatch.setattr(NumpyBackend, "gates_forward", staticmethod(forward))
    found = verified(finished)
    assert (found.identical, found.steps, found.step) == (False, 3, 2)
    assert found.loss is not None
    then, now = (np.float64(loss) for loss in found.loss)
    assert found.fault.startswith(f"step 2: the loss was {float(then)!r} (")
    assert found.fault.endswith(f"; {abs(int(then.view(np.int64)) - int(now.view(np.int64)))} ulp")


@pytest.mark.parametrize("step", [0, 1, 2])
def test_an_optimizer_that_wanders_by_one_ulp(step: int, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step in which it does is named, although the loss is another only in the next one."""
    move, calls = Adam.step, iter(range(99))

    def faulty(optimizer: Adam, parameters: dict[str, Array], gradients: Any) -> None:
        move(optimizer, parameters, gradients)
        if next(calls) == step:
            parameters["readout.b"] = nudged(parameters["readout.b"], (3,))

    monkeypatch.setattr(Adam, "step", faulty)
    found = verified(finished)
    loss = ledger(finished)[step]["loss"]
    assert (found.identical, found.step, found.loss) == (False, step, (loss, loss))
    assert "the loss is the same" in found.fault


def test_a_gradient_that_wanders_and_moves_no_weight(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Trainer.step

    def step(trainer: Trainer, record: Record) -> float:
        def other(loss: float, gradients: dict[str, Array], weights: dict[str, Array]) -> object:
            return record(loss, {**gradients, "readout.b": nudged(gradients["readout.b"], (0,))}, weights)

        return take(trainer, other)

    monkeypatch.setattr(Trainer, "step", step)
    found = verified(finished)
    assert (found.identical, found.step) == (False, 0)


def test_it_runs_where_uninitialised_memory_is_forbidden(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[bool] = []

    @contextmanager
    def forbidding() -> Iterator[None]:
        inside.append(True)
        yield
        inside.append(False)

    monkeypatch.setattr(verify_module, "forbid_uninitialised", forbidding)
    verify(read_run(finished), "numpy", lambda done, loss: inside.append(inside[-1]))
    assert inside == [True] * 4 + [False]


def test_a_recorded_loss_without_a_distance() -> None:
    """As JSON, None: not every file says a finite number."""
    found = Verification(1, False, "", 0, (float("inf"), 1.0))
    assert found.as_json()["first_difference"]["ulp"] is None
    assert replace(found, step=None, loss=None).as_json()["first_difference"] is None
