"""`convlstm verify`: trains again from what a run recorded, and proves that every bit comes again, or refutes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convlstm.backends import Array
from convlstm.checkpoint import fact_file, newest_checkpoint
from convlstm.determinism.forbid import forbid_uninitialised
from convlstm.determinism.ulp import ulp_distance
from convlstm.ledger import Chain
from convlstm.parameter_files import ParameterFileError, load_parameters
from convlstm.recorded_run import RecordedRun
from convlstm.run_data import check_data
from convlstm.run_directory import CHECKPOINTS
from convlstm.run_environment import check_initial_weights
from convlstm.sources import open_source
from convlstm.trainer import Trainer, to_numpy


@dataclass(frozen=True)
class Verification:
    """What training again came to.

    Attributes:
        steps: how many were taken again.
        identical: whether every one comes to its recorded loss and digest, and the saved weights are the last step's.
            A run that was killed may not have saved these; then those of its newest checkpoint are compared, if it is
            the last step's, or none.
        fault: what is not, in one line; "" where all is.
        step: the first step that does not; None where there is none.
        loss: (recorded, now) of that step.
        note: which weights were compared instead of the saved ones; "" where those were.
    """

    steps: int
    identical: bool
    fault: str = ""
    step: int | None = None
    loss: tuple[float, float] | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return what `convlstm verify --json` writes."""
        first = None
        if self.step is not None and self.loss is not None:
            then, now = self.loss
            first = {
                "step": self.step, "loss_recorded": then, "loss_recorded_hex": then.hex(), "loss_now": now,
                "loss_now_hex": now.hex(), "ulp": ulp_distance(np.float64(then), np.float64(now)),
            }  # fmt: skip
        found = {"identical": self.identical, "steps": self.steps, "fault": self.fault, "note": self.note}
        return found | {"first_difference": first}


def verify(run: RecordedRun, backend: str, report: Callable[[int, float], None]) -> Verification:
    """Take every recorded step again, until one does not come to what is recorded.

    Args:
        run: from `read_run`.
        backend: see `get_backend`.
        report: called after each step with the number of steps done and the step's loss.

    Raises:
        ConfigError, DataError: the weights that the run started from are no longer those, or its data are not.
        BackendUnavailable, ValueError, NotFinite, ModuleNotFoundError: as `train`.
    """
    check_initial_weights(run.config, run.environment)
    with forbid_uninitialised():
        source = open_source(run.config)
        check_data(run.directory, source)
        trainer = Trainer(run.config, backend, source=source)
        chain = Chain()
        for step, entry in enumerate(run.ledger):
            loss = trainer.step(chain.append)
            report(step + 1, loss)
            if (loss, chain.digest) != entry:
                return Verification(step + 1, False, _fault(step, entry.loss, loss), step, (entry.loss, loss))
    now = to_numpy(trainer.model, trainer.model.parameters)
    fault, note = _weights_fault(run.directory / "weights.safetensors", now), ""
    if fault and not (run.directory / "scores.json").is_file():  # ended before it saved the last step's, or by a kill
        fault, note = _checkpoint_fault(run, now)
    return Verification(len(run.ledger), not fault, fault, note=note)


def _fault(step: int, then: float, now: float) -> str:
    if then == now:
        return f"step {step}: the loss is the same, {now!r}, but a gradient or a weight is not"
    distance = ulp_distance(np.float64(then), np.float64(now))
    return f"step {step}: the loss was {then!r} ({then.hex()}), now it is {now!r} ({now.hex()}); {distance} ulp"


def _weights_fault(path: Path, now: Mapping[str, Array]) -> str:
    """Return in what the saved weights are not those of the last step; "" if they are."""
    if not path.is_file():
        return f"every digest agrees, but {path} is missing"
    try:
        return _difference(path, load_parameters(path), now)
    except ParameterFileError as error:
        return f"every digest agrees, but {error}"


def _checkpoint_fault(run: RecordedRun, now: Mapping[str, Array]) -> tuple[str, str]:
    """Return the same of the newest checkpoint's weights, and a note which were compared."""
    folder, config = run.directory / CHECKPOINTS, (run.directory / "config.toml").read_bytes()
    found = newest_checkpoint(folder, hashlib.sha256(config).hexdigest(), say=lambda text: None)
    if found is None or found.step != len(run.ledger):
        return "", "the run is unfinished and its last step's weights are not saved: they were not compared"
    file = fact_file(folder, found.step)
    return _difference(file, found.weights, now), f"the run is unfinished: the weights compared are those of {file}"


def _difference(path: Path, saved: Mapping[str, Array], now: Mapping[str, Array]) -> str:
    """Return the first of these weights that is another than the last step made, in words; "" if none is."""
    odd = [name for name in sorted({*saved, *now}) if not _same(saved.get(name), now.get(name))]
    return f"every digest agrees, but {path} holds another {odd[0]} than the last step made" if odd else ""


def _same(one: Any, other: Any) -> bool:
    """Whether two arrays are the same to the bit."""
    if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes())
