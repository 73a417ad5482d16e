"""`convlstm diff`: where two runs part, down to the first array that differs although what it is computed from agrees.

The ledgers tell the step.  Both runs are then taken again up to it, each with its own settings, and in that step all
that goes into an operation and all that comes out of it is recorded, in the order in which it is computed.  So whatever
the first array that differs was computed from stands before it, and agrees.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from convlstm.determinism.forbid import forbid_uninitialised
from convlstm.determinism.replay.compare import Difference, first_element
from convlstm.ledger import Chain
from convlstm.recorded_run import RecordedRun, differing_environments
from convlstm.recording import Operation, recorded_operations
from convlstm.settings import differing_settings
from convlstm.trainer import Trainer, to_numpy

Host = npt.NDArray[Any]


@dataclass(frozen=True)
class Divergence:
    """Where two runs part.

    Attributes:
        identical: whether their ledgers are the same, line for line.
        step: the first step whose lines differ, or that one of them does not have; None where there is none.
        steps: how many each of them has.
        settings: in what their configurations differ, and `environments` where they were made.
        reproduced: of each run, whether that step came to its recorded loss and digest when it was taken again.
        array: the first array of that step that differs; None where none does, or one of the runs has no such step.
    """

    identical: bool
    step: int | None = None
    steps: tuple[int, int] = (0, 0)
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
        elif self.step == min(self.steps):
            lines.append(
                f"the first run has {self.steps[0]} steps, the second {self.steps[1]}; those of both are identical"
            )
        else:
            lines.append(f"step {self.step}: the ledgers differ, but taken again here both runs compute the same")
        if not all(self.reproduced):
            lines.append(f"taken again here, {_NOT_MET[self.reproduced]}: what was met then is gone")
        return "\n".join(lines)


_NOT_MET = {
    (False, True): "the first run does not come to what it recorded",
    (True, False): "the second run does not come to what it recorded",
    (False, False): "neither run comes to what it recorded",
}


def diff(one: RecordedRun, other: RecordedRun, report: Callable[[str], None]) -> Divergence:
    """Return where two runs part.

    Args:
        one, other: from `read_run`.
        report: told what is being done.

    Raises:
        BackendUnavailable, ValueError, NotFinite, ModuleNotFoundError: as `train`.
    """
    steps = len(one.ledger), len(other.ledger)
    settings = tuple(differing_settings(one.config, other.config, ": {} in the first, {} in the second"))
    in_which = "in the first", "in the second"
    environments = tuple(differing_environments(one.environment, other.environment, in_which))
    pairs = zip(one.ledger, other.ledger, strict=False)
    step = next((k for k, (a, b) in enumerate(pairs) if a != b), None)
    if step is None:
        identical = steps[0] == steps[1]
        return Divergence(identical, None if identical else min(steps), steps, settings, environments)
    taken = []
    for which, run in (("first", one), ("second", other)):
        report(f"taking {step + 1} steps of the {which} run again")
        with forbid_uninitialised():
            taken.append(_take(run, step))
    (a, a_came), (b, b_came) = taken
    return Divergence(False, step, steps, settings, environments, (a_came, b_came), _first_to_part(a, b))


def _take(run: RecordedRun, step: int) -> tuple[list[Operation], bool]:
    """Take a run's steps up to this one; return this step's operations, and whether it came to its recorded line."""
    training = dataclasses.replace(run.config.training, recompute=0)  # the same bits, and every operation once
    trainer = Trainer(dataclasses.replace(run.config, training=training), run.backend)
    chain = Chain()

    def record(value: float, gradients: dict[str, Any], weights: dict[str, Any]) -> None:
        chain.append(value, gradients, weights)
        results.update({"loss": np.array(value)})
        results.update({f"gradient to {name}": np.array(array) for name, array in gradients.items()})
        results.update({f"{name} after the step": np.array(array) for name, array in weights.items()})

    results: dict[str, Host] = {}
    for _ in range(step):
        trainer.step(record)
    before = to_numpy(trainer.model, trainer.model.parameters)
    start = Operation({}, {f"{name} before the step": np.array(array) for name, array in before.items()})
    results.clear()
    with recorded_operations(trainer.model) as operations:
        loss = trainer.step(record)
    ends = [Operation({}, {name: array}) for name, array in results.items()]
    return [start, *operations, *ends], (loss, chain.digest) == run.ledger[step]


def _first_to_part(one: list[Operation], other: list[Operation]) -> Difference | None:
    """Return the first array that differs, in the order in which they are computed."""
    for (name, a), (other_name, b) in zip_longest(_in_order(one), _in_order(other), fillvalue=("nothing", np.zeros(0))):
        if name != other_name:
            return Difference("what is computed next", name, other_name)
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return Difference(name, f"{a.dtype} {a.shape}", f"{b.dtype} {b.shape}")
        if a.tobytes() != b.tobytes():
            return first_element(name, a, b)
    return None


def _in_order(operations: list[Operation]) -> Iterator[tuple[str, Host]]:
    for operation in operations:
        yield from operation.inputs.items()
        yield from operation.outputs.items()
