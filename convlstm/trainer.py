"""A run's model, optimizer and data, one step after the other; files are training.py's subject."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convlstm.backends import Array
from convlstm.checkpoint import Checkpoint, CheckpointError
from convlstm.config import Config
from convlstm.data.series import DataError
from convlstm.data.source import Scored, Source
from convlstm.frame_model import FrameModel
from convlstm.from_config import clip, learning_rate, make_model, make_optimizer, step_arguments, untrained_model
from convlstm.ledger import Position
from convlstm.not_finite import check_frames, check_results, check_weights
from convlstm.optimizers import restore
from convlstm.parameter_files import assign_parameters
from convlstm.sources import open_source

Record = Callable[[float, dict[str, Array], dict[str, Array]], object]  # takes loss, gradients, weights


def check_config(config: Config, backend: str, source: Source | None = None, *, initial: bool = True) -> None:
    """Predict one frame of one sequence, so that what cannot work is named before a run directory is made for it.

    One sequence of each split that is scored is read, too.

    Args:
        config: the run.
        backend: see `get_backend`.
        source: of its sequences; None: it is opened here.
        initial: whether the weights to start from must be there, as they need not any more in the midst of a run.

    Raises:
        BackendUnavailable: see `get_backend`.
        ValueError: a setting, or the data; the message names it.
        ModuleNotFoundError: the package that brings the data is missing.
    """
    source = source or open_source(config)
    model = make_model(config, backend, source) if initial else untrained_model(config, backend, shape=source.shape)
    make_optimizer(config)
    model.predict(model.backend.asarray(source.batch("train", range(1)).frames[:, :1]), 1)
    scored: tuple[Scored, ...] = ("validation", "test")
    for split in scored:
        if source.count(split):
            source.batch(split, range(1))


class Trainer:
    """A model, its optimizer and its data, one step after the other from the first.

    Attributes:
        config: the run.
        source: of its sequences.
        model: as the steps so far have made it.
        steps: how many these are, which is the number of the next.
    """

    def __init__(
        self, config: Config, backend: str, checkpoint: Checkpoint | None = None, source: Source | None = None,
        *, trained: Mapping[str, Array] | None = None,
    ) -> None:  # fmt: skip
        """Take the model of `make_model`, or go where the checkpoint stands, which needs no initial weights.

        Args:
            config: the run.
            backend: see `get_backend`.
            checkpoint: where to stand; None: before the first step.
            source: of its sequences; None: it is opened here.
            trained: the weights after the last step, of a trainer that takes none.

        Raises:
            ValueError, NotFinite: as `make_model`, or as `restore`.
        """
        self.config, self.source, self.steps = config, source or open_source(config), 0
        if checkpoint is None and trained is None:
            self.model = make_model(config, backend, self.source)
        else:
            self.model = untrained_model(config, backend, shape=self.source.shape)
        self._optimizer = make_optimizer(config)
        if trained is not None:
            assign_parameters(self.model.parameters, dict(trained), self.model.backend.asarray)
        if checkpoint is not None:
            self.restore(checkpoint)

    def loss_and_gradients(self) -> tuple[float, dict[str, Array]]:
        """Return what the next step computes before it moves the weights.

        Raises:
            NotFinite: the step's data, the loss or a gradient is not.
            DataError: the step's data hold no value.
        """
        indices = self._indices()
        batch = self.source.batch("train", indices)
        check_frames(f"data of step {self.steps}", batch.frames, indices)
        frames, valid = self.model.backend.asarray(batch.frames), batch.valid
        if valid is not None and not valid[:, self.config.data.context :].any():
            raise DataError(f"{self.source.facts.name}: the windows of step {self.steps} hold no value to predict")

        def compute(n: slice) -> tuple[float, dict[str, Array]]:
            """Return loss and gradients of some of the sequences."""
            given = step_arguments(self.config, indices[n], self.steps, None if valid is None else valid[n])
            return self.model.loss_and_gradients(frames[n], **given)

        loss, gradients = compute(slice(None))
        check_results(loss, gradients, indices, self.steps, lambda n: compute(slice(n, n + 1)))
        return loss, gradients

    def _indices(self) -> range:
        """Return which sequences of the split train the next step takes."""
        batch = self.config.training.batch_size
        return range(self.steps * batch, (self.steps + 1) * batch)

    def step(self, record: Record) -> float:
        """Take the next step, hand loss, gradients and new weights to `record`, and return the loss.

        If `record` fails, as on a full disk, weights and optimizer stay those before the step.

        Raises:
            NotFinite: the step's data, the loss, a gradient, or a weight after the step, is not.
        """
        loss, gradients = self.loss_and_gradients()
        optimizer, weights = self._optimizer, self.model.parameters
        before = dict(weights), optimizer.steps, optimizer.moments
        optimizer.learning_rate = learning_rate(self.config, self.steps)
        try:
            optimizer.step(weights, clip(self.config, gradients))
            check_weights(weights, self._indices(), self.steps)
            record(loss, to_numpy(self.model, gradients), to_numpy(self.model, weights))
        except BaseException:  # a second Ctrl-C, too
            weights.update(before[0])
            optimizer.steps, optimizer.moments = before[1:]
            raise
        self.steps += 1
        return loss

    @property
    def position(self) -> dict[str, Any]:
        """What else the next step depends on, as a checkpoint's JSON has it.

        Random numbers are addressed, not drawn one after the other: their position is the seed and the step.
        """
        settings = self.config.training
        return {
            "random": {"seed": settings.seed, "step": self.steps},
            "data": {"split": "train", "next_sequence": self._indices()[0]},
            "optimizer": {"name": settings.optimizer, "steps": self._optimizer.steps},
            "schedule": {"name": settings.schedule, "step": self.steps, "steps": settings.steps},
        }

    def checkpoint(self, ledger: Position, configuration: str, score: float | None = None) -> Checkpoint:
        """Return all that `restore` needs; `ledger`, `configuration` and `score` as `Checkpoint` has them."""
        weights = to_numpy(self.model, self.model.parameters)
        moments = {kind: to_numpy(self.model, named) for kind, named in self._optimizer.moments.items()}
        return Checkpoint(self.steps, weights, moments, self.position, ledger, configuration, score)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go where the trainer stood that made the checkpoint: every step from there has the same bits.

        Raises:
            CheckpointError, ValueError: its configuration was another one.
        """
        to_device = self.model.backend.asarray
        moments = {kind: _each(to_device, named) for kind, named in checkpoint.moments.items()}
        assign_parameters(self.model.parameters, dict(checkpoint.weights), to_device)
        taken = checkpoint.position["optimizer"]["steps"]
        restore(self._optimizer, taken, moments, self.model.parameters)
        self.steps = checkpoint.step
        if self.position != checkpoint.position:
            raise CheckpointError(f"the checkpoint stands at {checkpoint.position}; this run at {self.position}")


def to_numpy(model: FrameModel, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return a model's arrays on the host."""
    return _each(model.backend.to_numpy, arrays)


def _each(convert: Callable[[Array], Array], arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: convert(array) for name, array in arrays.items()}
