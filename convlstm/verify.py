"""`convlstm verify`: trains again from what a run recorded, and proves that every bit comes again, or refutes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from convlstm.determinism.forbid import forbid_uninitialised
from convlstm.determinism.ulp import ulp_distance
from convlstm.ledger import chain
from convlstm.parameter_files import ParameterFileError, load_parameters
from convlstm.recorded_run import RecordedRun
from convlstm.training import Trainer, to_numpy


@dataclass(frozen=True)
class Verification:
    """What training again came to.

    Attributes:
        steps: how many were taken again.
        identical: whether every one comes to its recorded loss and digest, and the saved weights are the last step's.
        fault: what is not, in one line; "" where all is.
        step: the first step that does not; None where there is none.
        loss: (recorded, now) of that step.
    """

    steps: int
    identical: bool
    fault: str = ""
    step: int | None = None
    loss: tuple[float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what `convlstm verify --json` writes."""
        first = None
        if self.step is not None and self.loss is not None:
            then, now = self.loss
            first = {
                "step": self.step, "loss_recorded": then, "loss_recorded_hex": then.hex(), "loss_now": now,
                "loss_now_hex": now.hex(), "ulp": ulp_distance(np.float64(then), np.float64(now)),
            }  # fmt: skip
        return {"identical": self.identical, "steps": self.steps, "fault": self.fault, "first_difference": first}


def verify(run: RecordedRun, backend: str, report: Callable[[int, float], None]) -> Verification:
    """Take every recorded step again, until one does not come to what is recorded.

    Args:
        run: from `read_run`.
        backend: see `get_backend`.
        report: called after each step with the number of steps done and the step's loss.

    Raises:
        BackendUnavailable, ValueError, NotFinite, ModuleNotFoundError: as `train`.
    """
    with forbid_uninitialised():
        trainer = Trainer(run.config, backend)
        tip = b""

        def record(loss: float, gradients: dict[str, Any], weights: dict[str, Any]) -> None:
            nonlocal tip
            tip = chain(tip, loss, gradients, weights)

        for step, entry in enumerate(run.ledger):
            loss = trainer.step(record)
            report(step + 1, loss)
            if (loss, tip.hex()) != entry:
                return Verification(step + 1, False, _fault(step, entry.loss, loss), step, (entry.loss, loss))
    fault = _weights_fault(run, trainer)
    return Verification(len(run.ledger), not fault, fault)


def _fault(step: int, then: float, now: float) -> str:
    if then == now:
        return f"step {step}: the loss is the same, {now!r}, but a gradient or a weight is not"
    distance = ulp_distance(np.float64(then), np.float64(now))
    return f"step {step}: the loss was {then!r} ({then.hex()}), now it is {now!r} ({now.hex()}); {distance} ulp"


def _weights_fault(run: RecordedRun, trainer: Trainer) -> str:
    """Return in what the saved weights are not those of the last step; "" if they are."""
    path = run.directory / "weights.safetensors"
    if not path.is_file():
        return f"every digest agrees, but {path} is missing"
    try:
        saved = load_parameters(path)
    except ParameterFileError as error:
        return f"every digest agrees, but {error}"
    now = to_numpy(trainer.model, trainer.model.parameters)
    odd = [name for name in sorted({*saved, *now}) if not _same(saved.get(name), now.get(name))]
    return f"every digest agrees, but {path} holds another {odd[0]} than the last step made" if odd else ""


def _same(one: Any, other: Any) -> bool:
    """Whether two arrays are the same to the bit."""
    if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes())
