# ruff: noqa: RUF009  `setting` is called once for each field, which is what is meant
"""Every setting of a training run as plain data: its type, its default, a line of help, and when it is read.

`setting` puts what a type cannot say into the field's metadata: the help, the range of a number, and the other settings
under which alone it is read.  Reading and writing files is config.py's subject.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import tomli_w

from convlstm.clipping import ClippingName
from convlstm.data.digits import SMALLEST_FRAME
from convlstm.data.moving_mnist import TORONTO_SHAPE
from convlstm.losses import LossName
from convlstm.parameters import Kind
from convlstm.schedules import ScheduleName

T = TypeVar("T")
ModelName = Literal["next-frame", "encoder-forecaster"]
SourceName = Literal["digits", "moving-mnist", "frames"]
ScalingName = Literal["standard", "seasonal", "range", "none"]
RuleName = Literal["srivastava2015", "shi2015"]
OptimizerName = Literal["sgd", "momentum", "rmsprop", "adam", "adamw"]

# Weights are float32: what is less than the smallest may be 0 there, what is more than the largest is infinite.
SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
FRAME = f"≥ {SMALLEST_FRAME}"

# What a number may be.  No comparison holds for NaN, so that none of these lets it in.
RANGES: dict[str, Callable[[float], bool]] = {
    "> 0": lambda value: value > 0,
    "≥ 0": lambda value: value >= 0,
    FRAME: lambda value: value >= SMALLEST_FRAME,
    "≥ 0 and < 2**64": lambda value: 0 <= value < 2**64,
    "≥ 0 and < 1": lambda value: 0 <= value < 1,
    "> 0 and finite in float32": lambda value: SMALLEST <= value <= LARGEST,
    "≥ 0 and finite in float32": lambda value: 0 <= value <= LARGEST,
    "finite": math.isfinite,
    "finite in float32": lambda value: abs(value) <= LARGEST,
}


class ConfigError(ValueError):
    """A configuration that cannot be read or says something impossible; the message names the setting."""


def setting(
    default: T, help: str, *, within: str = "> 0", read_where: Mapping[str, tuple[str, ...]] | None = None
) -> T:
    """Return a dataclass field.

    Args:
        default: its value where a configuration does not say.
        help: one line, without a full stop.
        within: of `RANGES`; read only where the setting is a number.
        read_where: the setting does nothing unless each of these others, ``"key"`` of the same table or
            ``"table.key"``, has one of these values.
    """
    made: T = field(default=default, metadata={"help": help, "within": within, "read_where": read_where or {}})
    return made


GENERATED = ("digits", "moving-mnist")  # sources whose frames are square and made, not read


@dataclass(frozen=True)
class Data:
    """[data]: what is forecast; see data/digits.py, data/moving_mnist.py and data/opening.py."""

    source: SourceName = setting("digits", "two digits that move, small or MNIST's, or frames of your own")
    path: str = setting(
        "", "file or folder of frames, or folder of MNIST's idx files",
        read_where={"source": ("frames", "moving-mnist")},
    )  # fmt: skip
    variable: str = setting(
        "", 'variable of the file; several, "u,v", become channels; "": the only one',
        read_where={"source": ("frames",)},
    )  # fmt: skip
    axes: str = setting(
        "", 'axes of the file, as "TNHW"; "": THW, TCHW or NTCHW, by their number', read_where={"source": ("frames",)}
    )
    missing: float | None = setting(
        None, "number that stands for a missing value, beside NaN", within="finite", read_where={"source": ("frames",)}
    )
    scaling: ScalingName = setting(
        "standard",
        "fitted on training frames: mean 0 and deviation 1, also without the mean of the calendar month, or 0 … 1",
        read_where={"source": ("frames",)},
    )
    rule: RuleName = setting(
        "srivastava2015", "how MNIST's digits move and which there are", read_where={"source": ("moving-mnist",)}
    )
    test_file: str = setting(
        "", 'mnist_test_seq.npy, to test on; "": sequences of MNIST\'s test images',
        read_where={"source": ("moving-mnist",)},
    )  # fmt: skip
    size: int = setting(32, "height and width of a frame, pixels", within=FRAME, read_where={"source": GENERATED})
    context: int = setting(5, "frames that are shown")
    gap: int = setting(0, "frames between these and those that are scored", within="≥ 0")
    horizon: int = setting(5, "frames to predict")
    stride: int = setting(1, "frames from one window to the next", read_where={"source": ("frames",)})
    validation_frames: int = setting(
        0, "frames before the test's, for validation; 0: a tenth", within="≥ 0", read_where={"source": ("frames",)}
    )
    test_frames: int = setting(
        0, "last frames, that only scores are made from; 0: a fifth", within="≥ 0", read_where={"source": ("frames",)}
    )
    test_sequences: int = setting(100, "sequences scored after training, or as many as there are")
    validation_sequences: int = setting(20, "sequences scored at each checkpoint; 0: none", within="≥ 0")


@dataclass(frozen=True)
class Model:
    """[model]: see `NextFrame` and `EncoderForecaster`."""

    kind: ModelName = setting(
        "next-frame", "one stack that reads and predicts, or one that reads and one that predicts"
    )
    hidden_channels: tuple[int, ...] = setting((32,), "channels of each layer's state, first layer to last")
    kernel_size: int = setting(5, "height and width of the convolutions' kernels")
    recurrent_kernel_size: int = setting(0, "of the convolution over h; 0: kernel_size", within="≥ 0")
    patch: int = setting(2, "P: P×P pixels become one pixel with P·P channels")
    bias: Kind = setting("channel", "of the gates: one per channel, or per channel and pixel")
    forget_bias: float = setting(
        1.0,
        'initial bias of the forget gate, where weights hold none; where bias is "none" a constant',
        within="finite in float32",
    )
    peephole: Kind = setting(None, "weights from the cell to the gates: one per channel, or per channel and pixel")
    layer_norm: Kind = setting(
        None, "normalise the sum in the gates, with a gain per channel, or per channel and pixel"
    )
    dropout: float = setting(
        0.0, "probability that an element of a layer's input is dropped, in training", within="≥ 0 and < 1"
    )
    recurrent_dropout: float = setting(
        0.0, "probability that an element of h is dropped on its way to the next time step", within="≥ 0 and < 1"
    )
    readout_bias: bool = setting(True, "whether the read-out has a bias")
    residual: bool = setting(False, "whether the read-out predicts the change since the last frame, and not the frame")
    output: Literal["linear", "sigmoid"] = setting("sigmoid", "what makes a frame of the read-out's maps")
    weights: str = setting("", 'start from this .npz, .safetensors or folder of text files; "": drawn from the seed')


ADAPTIVE = ("adam", "adamw")


@dataclass(frozen=True)
class Training:
    """[training]: one step is one batch."""

    steps: int = setting(300, "batches to train on")
    batch_size: int = setting(4, "sequences of a batch")
    seed: int = setting(0, "of weights, data and dropout", within="≥ 0 and < 2**64")
    loss: LossName = setting("bce", "what is made small, a mean over pixels and frames")
    optimizer: OptimizerName = setting("adam", "how the weights move")
    learning_rate: float = setting(5e-3, "step length before the schedule's factor", within="> 0 and finite in float32")
    momentum: float = setting(
        0.9, "share of the last step that is kept", within="≥ 0 and < 1", read_where={"optimizer": ("momentum",)}
    )
    decay: float = setting(
        0.9, "of the mean of squared gradients", within="≥ 0 and < 1", read_where={"optimizer": ("rmsprop",)}
    )
    beta1: float = setting(
        0.9, "decay of the mean of gradients", within="≥ 0 and < 1", read_where={"optimizer": ADAPTIVE}
    )
    beta2: float = setting(
        0.999, "decay of the mean of squared gradients", within="≥ 0 and < 1", read_where={"optimizer": ADAPTIVE}
    )
    epsilon: float = setting(
        1e-8, "keeps a division from one by 0", within="> 0 and finite in float32",
        read_where={"optimizer": ("rmsprop", *ADAPTIVE)},
    )  # fmt: skip
    weight_decay: float = setting(
        0.01, "share of the weights taken off at each step, times the learning rate",
        within="≥ 0 and finite in float32", read_where={"optimizer": ("adamw",)},
    )  # fmt: skip
    schedule: ScheduleName = setting("linear", "how the learning rate changes over the run")
    warmup_steps: int = setting(
        0, "first steps, in which the learning rate rises; the schedule begins after them", within="≥ 0"
    )
    step_every: int = setting(100, "steps until the next factor", read_where={"schedule": ("step",)})
    step_factor: float = setting(
        0.1, "factor of the learning rate", within="> 0 and finite in float32", read_where={"schedule": ("step",)}
    )
    clipping: ClippingName = setting(
        "global",
        "of each value, of each tensor's norm, of the norm of all; normalise: tensors with a larger value get norm 1",
    )
    clip_at: float = setting(
        1.0, "the largest value or norm that is left as it is", within="> 0 and finite in float32",
        read_where={"clipping": ("value", "tensor", "global", "normalise")},
    )  # fmt: skip
    sampling_steps: int = setting(
        0, "first steps, in which frames after the context are true ones, ever more rarely; 0: always the model's own",
        within="≥ 0", read_where={"model.kind": ("next-frame",)},
    )  # fmt: skip
    truncate: int = setting(
        0, "cut the gradient every so many time steps; 0: never", within="≥ 0",
        read_where={"model.kind": ("next-frame",)},
    )  # fmt: skip
    recompute: int = setting(
        0, "keep the state every so many time steps, compute the rest again backward, same bits; 0: keep all",
        within="≥ 0",
    )  # fmt: skip
    checkpoint_every: int = setting(
        50, "steps from one checkpoint to the next; 0: only at the end, and when interrupted", within="≥ 0"
    )
    keep_checkpoints: int = setting(2, "newest checkpoints that stay")


TABLES: dict[str, type[Any]] = {"data": Data, "model": Model, "training": Training}


def settings() -> list[tuple[str, dataclasses.Field[Any]]]:
    """Return every setting with the name of its table, in the order in which they are written."""
    return [(table, described) for table, kind in TABLES.items() for described in dataclasses.fields(kind)]


def as_toml(value: object) -> str:
    """Return a value as TOML writes it, on one line; None as "none", and what TOML cannot hold as Python writes it."""
    if value is None:
        return '"none"'
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_toml(key)} = {as_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (bool, int, float, str, datetime.date, datetime.time)):
        return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")
    return repr(value)


def differing_settings(one: Config, other: Config, words: str) -> list[str]:
    """Return the settings in which two configurations differ, both values as TOML in `words`, as ": {} became {}"."""
    names = [(table, described.name, f"{table}.{described.name}") for table, described in settings()]
    return [
        f"[{table}] {key}" + words.format(as_toml(one.value(name)), as_toml(other.value(name)))
        for table, key, name in names
        if one.value(name) != other.value(name)
    ]


@dataclass(frozen=True)
class Config:
    """A whole run.

    Raises:
        ConfigError: a number out of its range, a setting that nothing reads under the others, or two that do not go
            together; the message names them.
    """

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        for table, described in settings():
            name, value = f"[{table}] {described.name}", self.value(f"{table}.{described.name}")
            _check_number(name, value, described.metadata["within"])
            if value != described.default:
                self._check_read(table, described)
        _check_together(self.data, self.model, self.training)

    def value(self, name: str) -> Any:
        """Return the value of ``"table.key"``."""
        table, _, key = name.partition(".")
        return getattr(getattr(self, table), key)

    def _check_read(self, table: str, described: dataclasses.Field[Any]) -> None:
        """Let no one wait for what a setting would do that nothing reads; a saved run lists these at their defaults."""
        for condition, allowed in described.metadata["read_where"].items():
            value = self.value(condition if "." in condition else f"{table}.{condition}")
            if value not in allowed:
                where = "[{}] {}".format(*condition.split(".")) if "." in condition else condition
                right, found = " or ".join(map(as_toml, allowed)), as_toml(value)
                raise ConfigError(f"[{table}] {described.name} is read only where {where} is {right}; it is {found}")


def _check_number(name: str, value: object, within: str) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not RANGES[within](value):
        raise ConfigError(f"{name} must be {within}; got {as_toml(value)}")


def _check_together(data: Data, model: Model, training: Training) -> None:
    if data.source in GENERATED and data.size % model.patch:
        raise ConfigError(f"[model] patch must divide [data] size; got {model.patch} and {data.size}")
    if data.test_file and data.size != TORONTO_SHAPE[2]:
        H, W = TORONTO_SHAPE[2:]
        raise ConfigError(f"[data] test_file holds frames of {H}×{W} pixels, so size must be {H}; got {data.size}")
    if data.source == "frames" and data.scaling in ("standard", "seasonal") and model.output == "sigmoid":
        raise ConfigError(
            f'[data] scaling "{data.scaling}" makes values below 0 and above 1, which [model] output "sigmoid" cannot '
            'predict; set it to "linear", and [training] loss to "mse" or "mae"'
        )
    if model.residual and model.output != "linear":
        raise ConfigError(f'[model] residual needs output "linear"; got {as_toml(model.output)}')
    if training.loss == "bce" and model.output != "sigmoid":
        raise ConfigError(f'[training] loss "bce" needs [model] output "sigmoid"; got {as_toml(model.output)}')
    if model.weights and model.bias is not None and model.forget_bias != Model.forget_bias:
        raise ConfigError(
            '[model] forget_bias is read only where weights is "" or bias is "none", for weights hold a bias; '
            f"they are {as_toml(model.weights)} and {as_toml(model.bias)}"
        )
    if training.warmup_steps >= training.steps:
        given = f"{training.warmup_steps} and {training.steps}"
        raise ConfigError(f"[training] warmup_steps must be fewer than steps; got {given}")
    if training.sampling_steps and data.gap + data.horizon == 1:
        raise ConfigError(
            "[training] sampling_steps needs [data] horizon ≥ 2: of one predicted frame none is fed back; "
            f"got {training.sampling_steps}"
        )
