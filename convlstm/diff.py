"""`convlstm diff`: where two runs part, down to the first array that differs although what it is computed from agrees.

The ledgers tell the step.  Both runs are then taken again up to it, each with its own settings, and in that step every
operation is recorded: the first whose outputs differ while its inputs agree is where they part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convlstm.config import Config
from convlstm.determinism.replay.compare import Difference, first_element
from convlstm.ledger import chain
from convlstm.recorded_run import RecordedRun, differing_environments
from convlstm.recording import Operation, recorded_operations
from convlstm.training import Trainer, to_numpy

Host = npt.NDArray[Any]


@dataclass(frozen=True)
class Divergence:
    """Where two runs part.

    Attributes:
        identical: whether their ledgers are the same, line for line.
        step: the first step whose digests differ, or that one of them does not have; None where there is none.
        settings: in what their configurations differ, and `environments` where they were made.
        reproduced: of each run, whether that step came to its recorded digest when it was taken again.
        array: the first array that differs while what it is computed from agrees; None where that was not to be found.
    """

    identical: bool
    step: int | None = None
    settings: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    reproduced: tuple[bool, bool] = (True, True)
    array: Difference | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what `convlstm diff --json` writes."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        if self.identical:
            return "the runs are identical in every bit of every step"
        lines = [f"setting {line}" for line in self.settings] + [f"made with {line}" for line in self.environments]
        if self.array is not None:
            lines.append(f"step {self.step}: the first array that differs: {self.array}")
        elif self.step is not None:
            lines.append(f"step {self.step}: it is the first that is not the same")
        if not all(self.reproduced):
            which = " nor the second".join(
                filter(None, ("the first" if not self.reproduced[0] else "", "" if self.reproduced[1] else " "))
            ).strip()
            lines.append(
                f"taken again here, {which} run does not come to its recorded digest, so what it had met is gone"
            )
        return "\n".join(lines)


def diff(one: RecordedRun, other: RecordedRun, report: Callable[[str], None]) -> Divergence:
    """Return where two runs part.

    Args:
        one, other: from `read_run`.
        report: told what is being done.

    Raises:
        BackendUnavailable, ValueError, NotFinite, ModuleNotFoundError: as `train`.
    """
    settings = tuple(differing_settings(one.config, other.config))
    environments = tuple(line.replace(" then", " in the first").replace(" now", " in the second")
                         for line in differing_environments(one.environment, other.environment))  # fmt: skip
    pairs = zip(one.ledger, other.ledger, strict=False)
    step = next((k for k, (a, b) in enumerate(pairs) if a.digest != b.digest), None)
    if step is None:
        if len(one.ledger) == len(other.ledger):
            return Divergence(True, None, settings, environments)
        return Divergence(False, min(len(one.ledger), len(other.ledger)), settings, environments)
    taken = []
    for which, run in (("first", one), ("second", other)):
        report(f"taking {step + 1} steps of the {which} run again")
        taken.append(_take(run, step))
    (a, a_came), (b, b_came) = taken
    return Divergence(False, step, settings, environments, (a_came, b_came), _first_to_part(a, b))


def differing_settings(one: Config, other: Config) -> list[str]:
    """Return the settings in which two configurations differ, each in one line."""
    a, b = dataclasses.asdict(one), dataclasses.asdict(other)
    return [
        f"[{table}] {name}: {a[table][name]!r} in the first, {b[table][name]!r} in the second"
        for table in a
        for name in a[table]
        if a[table][name] != b[table][name]
    ]


def _take(run: RecordedRun, step: int) -> tuple[list[Operation], bool]:
    """Take a run's steps up to this one; return this step's operations, and whether it came to its recorded digest."""
    trainer = Trainer(run.config, run.backend)
    tip = b""

    def record(loss: float, gradients: dict[str, Any], weights: dict[str, Any]) -> None:
        nonlocal tip
        tip = chain(tip, loss, gradients, weights)
        results.update({"loss": np.array(loss)})
        results.update({f"gradient to {name}": np.array(array) for name, array in gradients.items()})
        results.update({f"{name} after the step": np.array(array) for name, array in weights.items()})

    results: dict[str, Host] = {}
    for _ in range(step):
        trainer.step(record)
    before = to_numpy(trainer.model, trainer.model.parameters)
    start = Operation({}, {f"{name} before the step": np.array(array) for name, array in before.items()})
    results.clear()
    with recorded_operations(trainer.model, run.config.data.context) as operations:
        trainer.step(record)
    ends = [Operation({}, {name: array}) for name, array in results.items()]
    return [start, *operations, *ends], tip.hex() == run.ledger[step].digest


def _first_to_part(one: list[Operation], other: list[Operation]) -> Difference | None:
    """Return the first output that differs while the inputs of its operation agree; failing that, the first at all."""
    arrays = {name: array for operation in other for name, array in (operation.inputs | operation.outputs).items()}
    fallback = None
    for operation in one:
        differs = [_difference(name, array, arrays) for name, array in operation.outputs.items()]
        first = next(filter(None, differs), None)
        if first is None:
            continue
        if all(_difference(name, array, arrays) is None for name, array in operation.inputs.items()):
            return first
        fallback = fallback or first
    return fallback


def _difference(name: str, array: Host, others: dict[str, Host]) -> Difference | None:
    """Return where an array differs from the other run's of this name; None where it does not, or there is none."""
    other = others.get(name)
    if other is None:
        return None
    if array.shape != other.shape or array.dtype != other.dtype:
        return Difference(name, f"{array.dtype} {array.shape}", f"{other.dtype} {other.shape}")
    return None if array.tobytes() == other.tobytes() else first_element(name, array, other)
