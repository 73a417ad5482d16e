"""What a configuration stands for: the model, the optimizer, the data, and what each step does with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from convlstm.backends import Array
from convlstm.clipping import CLIPPINGS
from convlstm.config import Config, ConfigError, Training
from convlstm.data.source import Source
from convlstm.dropout import Draws
from convlstm.encoder_forecaster import EncoderForecaster
from convlstm.frame_model import FrameModel
from convlstm.next_frame import NextFrame, sampled_frames
from convlstm.not_finite import check_frames
from convlstm.optimizers import SGD, Adam, AdamW, Momentum, Optimizer, RMSProp
from convlstm.parameter_files import assign_parameters, load_parameters
from convlstm.randomness import generator
from convlstm.schedules import learning_rate_factor
from convlstm.settings import OptimizerName
from convlstm.sources import open_source

SEQUENCES_FOR_MEAN = 32
KINDS: dict[str, type[FrameModel]] = {"next-frame": NextFrame, "encoder-forecaster": EncoderForecaster}


def untrained_model(
    config: Config, backend: str, dtype: str = "float32", *, shape: tuple[int, int, int] | None = None
) -> FrameModel:
    """Return the model with parameters drawn from the seed alone.

    Args:
        config: the run.
        backend: see `get_backend`.
        dtype: of the parameters.
        shape: (C, H, W) of the frames; None: that of the run's own.

    Raises:
        ValueError: a setting; the message names it.
    """
    model = config.model
    channels, *sides = open_source(config).shape if shape is None else shape
    H, W = (side // model.patch for side in sides)
    return KINDS[model.kind](
        channels, model.hidden_channels, model.kernel_size, recurrent_kernel_size=model.recurrent_kernel_size or None,
        patch=model.patch, output=model.output, bias=model.bias, peephole=model.peephole, layer_norm=model.layer_norm,
        dropout=model.dropout, recurrent_dropout=model.recurrent_dropout, forget_bias=model.forget_bias,
        readout_bias=model.readout_bias, residual=model.residual, spatial_shape=(H, W), dtype=dtype, backend=backend,
        seed=config.training.seed,
    )  # fmt: skip


def make_model(config: Config, backend: str, source: Source | None = None) -> FrameModel:
    """Return the model with its initial parameters: a file's, or drawn from the seed.

    A drawn read-out's bias is then set so that the model first predicts the mean of the training frames, or, where it
    predicts changes, none.

    Raises:
        ValueError: a setting, or a file that cannot be read or does not fit; the message names it.
        NotFinite: the frames whose mean is taken are not.
    """
    source = source or open_source(config)
    made = untrained_model(config, backend, shape=source.shape)
    if config.model.weights:
        assign_weights(made, config.model.weights)
        return made
    if config.model.readout_bias:
        frames, valid = source.batch("train", range(SEQUENCES_FOR_MEAN))[:2]
        check_frames("data for the initial mean", frames, range(SEQUENCES_FOR_MEAN))
        made.start_from_mean(float(frames.mean(dtype=np.float64, where=True if valid is None else valid)))
    return made


def assign_weights(model: FrameModel, path: str) -> None:
    """Give a model the parameters of a file or folder.

    Raises:
        ValueError: it cannot be read or does not fit, or a parameter is not finite; the message names it.
    """
    loaded = load_parameters(path)
    for name, array in loaded.items():
        if not np.isfinite(array).all():
            raise ConfigError(f"{path}: parameter {name!r} holds an infinity or a NaN")
    assign_parameters(model.parameters, loaded, model.backend.asarray)


OPTIMIZERS: dict[OptimizerName, Callable[[Training], Optimizer]] = {
    "sgd": lambda t: SGD(t.learning_rate),
    "momentum": lambda t: Momentum(t.learning_rate, t.momentum),
    "rmsprop": lambda t: RMSProp(t.learning_rate, t.decay, t.epsilon),
    "adam": lambda t: Adam(t.learning_rate, t.beta1, t.beta2, t.epsilon),
    "adamw": lambda t: AdamW(t.learning_rate, t.beta1, t.beta2, t.epsilon, t.weight_decay),
}


def make_optimizer(config: Config) -> Optimizer:
    """Return the optimizer before its first step."""
    return OPTIMIZERS[config.training.optimizer](config.training)


def step_arguments(
    config: Config, indices: range, step: int, valid: npt.NDArray[np.bool_] | None = None
) -> dict[str, Any]:
    """Return what `loss_and_gradients` of the model is to be given in a step, beside the frames.

    Args:
        config: the run.
        indices: of the sequences, in the split train.
        step: of training, the first is 0.
        valid: which elements of the frames count; None: all.
    """
    t = config.training
    arguments: dict[str, Any] = {"loss": t.loss, "recompute": t.recompute or None}
    arguments["draws"] = Draws(t.seed, step, indices.start)
    if config.model.kind == "next-frame":
        arguments["truncate"] = t.truncate or None
    if valid is not None:
        arguments["valid"] = valid
    if step < t.sampling_steps:
        return arguments | {"shown": shown_frames(config, indices, step)}
    return arguments | {"context": config.data.context}


def shown_frames(config: Config, indices: range, step: int) -> npt.NDArray[np.bool_]:
    """Return which frames each sequence is shown in scheduled sampling, (N, context + gap + horizon - 1).

    Those after the context are shown with a probability that falls linearly, from 1 at step 0 to 0 at `sampling_steps`.
    Drawn at an address of its own, a sequence is shown the same frames whatever batch it is in.
    """
    t, T = config.training, config.data.context + config.data.gap + config.data.horizon

    def draw(n: int) -> npt.NDArray[np.float64]:
        return generator(t.seed, "scheduled sampling", sample=indices[n], step=step).random(T - 1)

    return sampled_frames(len(indices), T, config.data.context, 1 - step / t.sampling_steps, draw)


def learning_rate(config: Config, step: int) -> float:
    """Return the learning rate of a step, the first of which is 0."""
    t = config.training
    return t.learning_rate * learning_rate_factor(
        t.schedule, step, t.steps,
        warmup_steps=t.warmup_steps, step_every=t.step_every, step_factor=t.step_factor,
    )  # fmt: skip


def clip(config: Config, gradients: Mapping[str, Array]) -> dict[str, Array]:
    """Return a step's gradients as the optimizer is to see them."""
    return CLIPPINGS[config.training.clipping](gradients, config.training.clip_at)
