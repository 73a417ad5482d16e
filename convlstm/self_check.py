"""This project's own gradients, every variant on the backend asked for, held against numerical ones in float64.

Parameters are moved away from their initial values, of which many are zero, and inputs and initial states count as
parameters too, so that gradients to them are checked as well.

A truncated gradient (`truncate`) is not the gradient of the loss, so no difference of losses can check it;
tests/test_next_frame.py holds it against the loss in which what a window is given is constant.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convlstm.backends import Array, Backend, get_backend
from convlstm.config import Config
from convlstm.dropout import Draws
from convlstm.frame_model import FrameModel
from convlstm.from_config import KINDS as MODEL_KINDS
from convlstm.from_config import assign_weights, step_arguments, untrained_model
from convlstm.gradcheck import LengthsReport, Report, check_gradients, check_gradients_over_time
from convlstm.gradcheck.check import check_problem
from convlstm.gradcheck.scripts import ScriptError, describe, load_function, takes_length
from convlstm.layer import ConvLSTM
from convlstm.layer_stack import ConvLSTMStack
from convlstm.masks import mask_of_lengths
from convlstm.parameters import KINDS
from convlstm.randomness import generator
from convlstm.recurrence import State
from convlstm.sources import open_source

Arrays = Mapping[str, Array]
LENGTHS = "1,2,3,5"  # of a script's function, where none are asked for
FRAMES = 2  # shown, and again as many fed back, when a configured model is checked
WIDTH = 76  # of the longest variant's name in the table
MASK = mask_of_lengths((3, 1), 3)
SAMPLED = np.array([[True, True, False], [True, False, True]])  # step 1 reads a frame of one sample, not of the other
VALID = np.arange(64).reshape(2, 4, 1, 4, 2) % 3 > 0  # of the frames of `model_variant`, two elements of three

# What each variant gives to `forward` or `loss_and_gradients`, and the settings that it is made with.
Chosen = tuple[dict[str, Any], dict[str, Any]]
LAYERS: tuple[Chosen, ...] = (
    ({}, {"kernel_size": 1}),
    ({}, {"kernel_size": (2, 4)}),
    ({}, {"recurrent_kernel_size": 4}),
    ({}, {"hidden_channels": 8}),  # enough for the backends that convolve in another way where there are many
    ({"mask": MASK}, {"stride": 2, "recurrent_kernel_size": 2}),
    ({}, {"stride": (1, 2), "padding": "valid", "recurrent_kernel_size": (2, 1)}),
    ({"recompute": 2}, {"kernel_size": (2, 3), "dilation": 2, "layer_norm": "channel"}),
    ({"mask": MASK, "recompute": 1}, {"layer_norm": "pixel", "peephole": "channel"}),
    ({}, {"dropout": 0.3, "recurrent_dropout": 0.3, "layer_norm": "channel"}),
    ({}, {"in_channels": None, "peephole": "pixel"}),
    ({"recompute": 2}, {"in_channels": None, "recurrent_dropout": 0.3, "bias": None}),
)
STACKS: tuple[Chosen, ...] = (
    ({}, {"stride": [1, 2], "recurrent_kernel_size": [3, 1]}),
    ({"recompute": 2}, {"returns": "last", "dropout": 0.3}),
    ({"mask": MASK}, {"hidden_channels": (1, 1), "bidirectional": True, "peephole": "channel"}),
    ({"mask": MASK}, {"hidden_channels": (1, 1), "returns": "last", "bidirectional": True}),
)
MODELS: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("next-frame", {"loss": "mse"}, {}),
    ("next-frame", {"loss": "mse", "context": 2}, {"output": "sigmoid", "layer_norm": "pixel"}),
    ("next-frame", {"loss": "mse", "shown": SAMPLED}, {"dropout": 0.3, "peephole": "pixel"}),
    ("next-frame", {"loss": "mae", "context": 2, "recompute": 1}, {"readout_bias": False}),
    ("next-frame", {"loss": "mae", "shown": SAMPLED}, {"output": "sigmoid", "bias": "pixel"}),
    ("next-frame", {"loss": "bce"}, {"output": "sigmoid", "recurrent_dropout": 0.3}),
    ("next-frame", {"loss": "bce", "shown": SAMPLED, "recompute": 2}, {"output": "sigmoid"}),
    ("next-frame", {"loss": "mse", "context": 1}, {"output": "sigmoid", "patch": 2, "kernel_size": 1}),
    ("encoder-forecaster", {"loss": "mse", "context": 2}, {"peephole": "channel"}),
    ("encoder-forecaster", {"loss": "mae", "context": 3}, {"kernel_size": 1, "readout_bias": False}),
    ("encoder-forecaster", {"loss": "bce", "context": 2, "recompute": 1}, {"kernel_size": 1, "dropout": 0.3}),
    ("next-frame", {"loss": "mse", "context": 1, "valid": VALID}, {"residual": True, "patch": 2, "kernel_size": 1}),
    ("next-frame", {"loss": "mae", "shown": SAMPLED, "recompute": 2}, {"residual": True, "kernel_size": 1}),
    ("next-frame", {"loss": "bce", "context": 2, "valid": VALID}, {"output": "sigmoid", "kernel_size": 1}),
    ("encoder-forecaster", {"loss": "mae", "context": 2, "valid": VALID}, {"residual": True, "kernel_size": 1}),
)


@dataclass(frozen=True)
class Variant:
    """One thing to check."""

    name: str
    loss: Callable[[Arrays], float]
    parameters: dict[str, Array]
    gradients: Callable[[Arrays], Arrays]

    def check(self, seed: int = 0, progress: Callable[[str], None] | None = None) -> Report:
        """Check it; arguments as of `check_gradients`."""
        return check_gradients(self.loss, self.parameters, self.gradients, seed=seed, progress=progress)


def check_variants(backend: str, seed: int, show: Callable[[str], None]) -> bool:
    """Check every variant; show a table as it grows, and what is wrong. Return whether all is right.

    Raises:
        BackendUnavailable, ValueError: see `get_backend`, `generator`.
    """
    chosen = get_backend(backend)
    show(f"backend {chosen.name} ({chosen.description})")
    show(f"{'variant':{WIDTH}} {'entries':>7} {'largest error':>13}  verdict")
    bad: dict[str, Report] = {}
    count = 0
    for variant in variants(backend, seed):
        count += 1
        report = variant.check(seed)
        entries = sum(row.checked for row in report.rows)
        error = max((row.error or 0.0 for row in report.rows), default=0.0)
        show(f"{variant.name:{WIDTH}} {entries:7} {error:13.1e}  {'right' if report.ok else 'WRONG'}")
        if not report.ok:
            bad[variant.name] = report
    for name, report in bad.items():
        show(f"{name}\n{report}")
    show(f"{len(bad)} of {count} variants are wrong" if bad else f"all gradients of {count} variants are right")
    return not bad


def check_configured(config: Config, backend: str, show: Callable[[str], None]) -> bool:
    """Check one configured model; show the report. Return whether all is right.

    Raises:
        BackendUnavailable, ValueError: see `configured_variant`.
    """
    report = configured_variant(config, backend).check(config.training.seed)
    show(str(report))
    return report.ok


def check_script(reference: str, lengths: str | None, seed: int, show: Callable[[str], None]) -> bool:
    """Check what a function of somebody's script returns; show the report. Return whether all is right.

    Raises:
        ScriptError: see `load_function`; or the function, or the loss, fails or returns something else.
        ValueError: `lengths` are no numbers, or the function takes no length.
    """
    try:
        chosen = tuple(int(length) for length in (LENGTHS if lengths is None else lengths).split(","))
    except ValueError:
        raise ValueError(f"--lengths must be whole numbers with commas between; got {lengths!r}") from None
    function = load_function(reference)
    over_time = takes_length(function)
    if lengths is not None and not over_time:
        raise ValueError(f"--lengths belongs to a function that takes one; {reference} takes no argument")
    report: Report | LengthsReport
    try:
        if over_time:
            report = check_gradients_over_time(function, chosen, seed=seed)
        else:
            name = reference.rpartition(":")[2]
            report = check_gradients(*check_problem(f"{name}()", function()), seed=seed)
    except (Exception, SystemExit) as error:  # whatever their code raises; what was given was wrong as well
        raise ScriptError(f"--script: {describe(error)}") from error
    show(str(report))
    return report.ok


def variants(backend: str, seed: int = 0) -> Iterator[Variant]:
    """Yield every variant of layer, stack and model.

    Of bias, peephole and layer norm every two kinds meet; else a variant has one or two settings of its own.

    Raises:
        BackendUnavailable: see `get_backend`.
    """
    for row, column in itertools.product(range(len(KINDS)), repeat=2):  # a Latin square
        third = KINDS[(row + column) % len(KINDS)]
        yield layer_variant(backend, seed, {}, bias=KINDS[row], peephole=KINDS[column], layer_norm=third)
    for given, settings in LAYERS:
        yield layer_variant(backend, seed, given, **settings)
    for given, settings in STACKS:
        yield stack_variant(backend, seed, given, **settings)
    for kind, given, settings in MODELS:
        yield model_variant(backend, seed, kind, given, **settings)


def layer_variant(backend: str, seed: int, given: Mapping[str, Any], **settings: Any) -> Variant:
    """Return a layer, of two hidden channels if not said; `given` are arguments of `ConvLSTM.forward`."""
    chosen = {"in_channels": 2, "hidden_channels": 2, "kernel_size": 3, "spatial_shape": (4, 5), **settings}
    layer = ConvLSTM(dtype="float64", backend=backend, seed=seed, **chosen)
    return _of_sequences(f"layer: {_named(settings, given)}", layer, (2, 3, layer.in_channels, 4, 5), given, seed)


def stack_variant(backend: str, seed: int, given: Mapping[str, Any], **settings: Any) -> Variant:
    """Return two layers above one another; `given` are arguments of `ConvLSTMStack.forward`."""
    chosen = {"hidden_channels": (2, 1), "kernel_size": 2, **settings}
    stack = ConvLSTMStack(1, dtype="float64", backend=backend, seed=seed, **chosen)
    return _of_sequences(f"stack: {_named(settings, given)}", stack, (2, 3, 1, 3, 3), given, seed)


def model_variant(backend: str, seed: int, kind: str, given: Mapping[str, Any], **settings: Any) -> Variant:
    """Return a model of two small layers and four frames; `given` are arguments of its `loss_and_gradients`."""
    chosen = {"kernel_size": (1, 2), "spatial_shape": (4, 2), **settings}
    model = MODEL_KINDS[kind](1, (2, 1), dtype="float64", backend=backend, seed=seed, **chosen)
    at, options = _moved(model.backend, model.parameters, seed), {"draws": Draws(seed), **given}
    return _of_model(f"{kind}: {_named(settings, given)}", model, at, (2, 4, 1, 4, 2), options, seed)


def configured_variant(config: Config, backend: str) -> Variant:
    """Return a configured model in float64, on few frames of the size that is configured, in the midst of training.

    It is given what a step of training gives it, dropout and scheduled sampling included, but for `truncate`; where
    frames come from files, which may miss values, a fifth of the elements does not count.  Configured weights are
    checked as they are.

    Raises:
        BackendUnavailable, ValueError: see `FrameModel`, `assign_weights`, `open_source`.
    """
    of_frame = open_source(config).shape
    context, horizon = min(config.data.context, FRAMES), min(config.data.horizon, FRAMES)
    few = replace(config, data=replace(config.data, context=context, gap=0, horizon=horizon))
    shape, seed, valid = (2, context + horizon, *of_frame), few.training.seed, None
    if few.data.source == "frames":
        valid = generator(seed, "self-check valid").random(shape) < 0.8
    given = step_arguments(few, range(2), few.training.sampling_steps // 2, valid)
    given.pop("truncate", None)
    model = untrained_model(few, backend, "float64", shape=of_frame)
    at = _given(few, backend, of_frame) if few.model.weights else _moved(model.backend, model.parameters, seed)
    return _of_model("configured", model, at, shape, given, seed)


def _given(config: Config, backend: str, of_frame: tuple[int, int, int]) -> dict[str, Array]:
    """Return the configured weights, which training takes in float32, as the same numbers in float64."""
    model = untrained_model(config, backend, shape=of_frame)
    assign_weights(model, config.model.weights)
    return {name: array.astype("float64") for name, array in model.parameters.items()}


def _named(settings: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return what a variant is about in few words."""
    bare = {"shown": "sampled", "mask": "mask", "valid": "masked", "in_channels": "no input"}
    both = {**given, **settings}
    return ", ".join(bare.get(key) or f"{key.removesuffix('_size')} {value}" for key, value in both.items())


def _of_sequences(
    name: str, layer: ConvLSTM | ConvLSTMStack, x_shape: tuple[int, ...], given: Mapping[str, Any], seed: int
) -> Variant:
    """Return a layer, or a stack of them; the loss reads the output and h and c of every layer after its last step."""
    backend, one = layer.backend, isinstance(layer, ConvLSTM)
    of = [""] if isinstance(layer, ConvLSTM) else [f" of {each.name.rstrip('.')}" for each in layer.layers]
    options = {"draws": Draws(seed), **given}

    def run(x: Array, before: Sequence[State] | None) -> tuple[Array, Sequence[State], Any]:
        states: Any = before[0] if before and one else before
        output, after, cache = layer.forward(x, states, **options)
        each: Any = (after,) if one else after
        return output, each, cache

    output, states, _ = run(backend.zeros(x_shape, "float64"), None)
    first, last = _by_name("₀", of, states), _by_name("_T", of, states)
    u = _draw(backend, _shapes({"output": output, **last}), seed, "self_check/weights")
    inputs = _draw(backend, {"x": x_shape, **_shapes(first)}, seed, "self_check/inputs")
    parameters = _moved(backend, layer.parameters, seed) | {
        name: a for name, a in inputs.items() if a.size
    }  # x of none

    def forward(arrays: Arrays) -> Any:
        layer.parameters = {name: arrays[name] for name in layer.parameters}
        return run(arrays.get("x", inputs["x"]), _pairs("₀", of, arrays))

    def loss(arrays: Arrays) -> float:
        output, after, _ = forward(arrays)
        read = {"output": output, **_by_name("_T", of, after)}
        return sum(float((array * u[name]).sum()) for name, array in read.items())

    def gradients(arrays: Arrays) -> Arrays:
        *_, cache = forward(arrays)
        to_last: Any = _pairs("_T", of, u)
        dx, to_first, found = layer.backward(cache, u["output"], to_last[0] if one else to_last)
        each: Any = (to_first,) if one else to_first
        both = {**found, "x": dx, **_by_name("₀", of, each)}
        return {name: both[name] for name in parameters}

    return Variant(name, loss, parameters, gradients)


def _by_name(time: str, of: Sequence[str], states: Sequence[State]) -> dict[str, Array]:
    """Return h and c of each layer under names of their own."""
    return {f"{'hc'[part]}{time}{k}": pair[part] for k, pair in zip(of, states, strict=True) for part in (0, 1)}


def _pairs(time: str, of: Sequence[str], arrays: Arrays) -> tuple[State, ...]:
    """Return (h, c) of each layer, the inverse of `_by_name`."""
    return tuple((arrays[f"h{time}{k}"], arrays[f"c{time}{k}"]) for k in of)


def _of_model(
    name: str, model: FrameModel, at: dict[str, Array], shape: tuple[int, ...], given: Mapping[str, Any], seed: int
) -> Variant:
    """Return a model that is checked at the parameters `at`."""
    frames = model.backend.asarray(generator(seed, "self_check/frames").random(shape))

    def both(arrays: Arrays) -> tuple[float, dict[str, Array]]:
        model.parameters = dict(arrays)
        return model.loss_and_gradients(frames, **given)

    return Variant(name, lambda arrays: both(arrays)[0], at, lambda arrays: both(arrays)[1])


def _shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def _moved(backend: Backend, parameters: Arrays, seed: int) -> dict[str, Array]:
    """Return parameters a little away from the initial ones, so that none is zero."""
    away = _draw(backend, _shapes(parameters), seed, "self_check/moved")
    return {name: array + 0.3 * away[name] for name, array in parameters.items()}


def _draw(backend: Backend, shapes: Mapping[str, tuple[int, ...]], seed: int, purpose: str) -> dict[str, Array]:
    """Return normally distributed numbers."""
    return {
        name: backend.asarray(generator(seed, f"{purpose}/{name}").standard_normal(shape))
        for name, shape in shapes.items()
    }
