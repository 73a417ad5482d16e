"""What a configuration stands for: the model, the optimizer, the data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convlstm.backends import Array
from convlstm.config import Config, ConfigError
from convlstm.data.digits import Split, digit_sequences
from convlstm.model import NextFrame
from convlstm.optimizers import SGD, Adam, Optimizer
from convlstm.parameter_files import assign_parameters, load_parameters

SEQUENCES_FOR_MEAN = 32


def untrained_model(config: Config, backend: str, dtype: str = "float32") -> NextFrame:
    """Return the model with parameters drawn from the seed alone.

    Raises:
        ValueError: a setting; the message names it.
    """
    model, side = config.model, config.data.size // config.model.patch
    return NextFrame(
        1, model.hidden_channels, model.kernel_size, patch=model.patch, output=model.output, bias=model.bias,
        peephole=model.peephole, spatial_shape=(side, side), dtype=dtype, backend=backend, seed=config.training.seed,
    )  # fmt: skip


def make_model(config: Config, backend: str) -> NextFrame:
    """Return the model with its initial parameters: a file's, or drawn so that it first predicts the mean brightness.

    Raises:
        ValueError: a setting, or a file that cannot be read or does not fit; the message names it.
    """
    made = untrained_model(config, backend)
    if config.model.weights:
        loaded = load_parameters(config.model.weights)
        assign_parameters(made.parameters, loaded, made.backend.asarray)
        for name, array in loaded.items():
            if not np.isfinite(array).all():
                raise ConfigError(f"{config.model.weights}: parameter {name!r} holds an infinity or a NaN")
        return made
    frames = made.backend.to_numpy(sequences(config, made, "train", range(SEQUENCES_FOR_MEAN)))
    made.start_from_mean(float(frames.mean(dtype=np.float64)))
    return made


def make_optimizer(config: Config) -> Optimizer:
    """Return the optimizer before its first step."""
    kinds: dict[str, Callable[[float], Optimizer]] = {"sgd": SGD, "adam": Adam}
    return kinds[config.training.optimizer](config.training.learning_rate)


def sequences(config: Config, model: NextFrame, split: Split, indices: range) -> Array:
    """Return whole sequences on the model's backend, (N, context + horizon, 1, size, size)."""
    data = config.data
    host = digit_sequences(
        split, indices, seed=config.training.seed, frames=data.context + data.horizon, size=data.size
    )
    return model.backend.asarray(host)
