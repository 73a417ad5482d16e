"""This project's own gradients, every variant on the backend asked for, held against numerical ones in float64.

Parameters are moved away from their initial values, of which many are zero, and inputs and initial states count as
parameters too, so that gradients to them are checked as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from convlstm.backends import Array, Backend, get_backend
from convlstm.config import Config
from convlstm.from_config import untrained_model
from convlstm.gradcheck import LengthsReport, Report, check_gradients, check_gradients_over_time
from convlstm.gradcheck.check import check_problem
from convlstm.gradcheck.scripts import ScriptError, describe, load_function, takes_length
from convlstm.layer import ConvLSTM
from convlstm.losses import LOSSES
from convlstm.parameters import KINDS
from convlstm.randomness import generator

Arrays = Mapping[str, Array]
FRAMES = 2  # shown, and again as many fed back, when a configured model is checked
GEOMETRIES: tuple[dict[str, Any], ...] = (
    {"kernel_size": 1},
    {"kernel_size": (2, 4)},
    {"recurrent_kernel_size": 5},
    {"stride": 2},
    {"stride": (1, 2), "padding": "valid", "recurrent_kernel_size": (3, 1)},
    {"dilation": 2},
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
    show(f"{'variant':64} {'entries':>7} {'largest error':>13}  verdict")
    bad: dict[str, Report] = {}
    count = 0
    for variant in variants(backend, seed):
        count += 1
        report = variant.check(seed)
        entries = sum(row.checked for row in report.rows)
        error = max((row.error or 0.0 for row in report.rows), default=0.0)
        show(f"{variant.name:64} {entries:7} {error:13.1e}  {'right' if report.ok else 'WRONG'}")
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


def check_script(reference: str, lengths: str, seed: int, show: Callable[[str], None]) -> bool:
    """Check what a function of somebody's script returns; show the report. Return whether all is right.

    Raises:
        ScriptError: see `load_function`; or the function, or the loss, fails or returns something else.
        ValueError: `lengths` are no numbers.
    """
    try:
        chosen = tuple(int(length) for length in lengths.split(","))
    except ValueError:
        raise ValueError(f"--lengths must be whole numbers with commas between; got {lengths!r}") from None
    function = load_function(reference)
    over_time = takes_length(function)
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
    """Yield every variant of layer and model.

    Raises:
        BackendUnavailable: see `get_backend`.
    """
    for bias, peephole in itertools.product(KINDS, KINDS):
        yield layer_variant(backend, seed, bias=bias, peephole=peephole)
    for geometry in GEOMETRIES:
        yield layer_variant(backend, seed, **geometry)
    for loss, context in itertools.product(LOSSES, (None, 2)):
        output = "sigmoid" if loss == "bce" else "linear"
        yield model_variant(backend, seed, loss, context, output=output)
    yield model_variant(backend, seed, "mse", 1, output="sigmoid", patch=2, kernel_size=1)


def layer_variant(backend: str, seed: int, **settings: Any) -> Variant:
    """Return a layer of two hidden channels; the loss reads every hidden state and the last cell."""
    geometry = {"kernel_size": 3, "spatial_shape": (6, 5), **settings}
    layer = ConvLSTM(2, 2, dtype="float64", backend=backend, seed=seed, **geometry)
    N, T, H, W = 2, 3, 6, 5
    inputs = {"x": (N, T, 2, H, W)}
    h, (_, c_last), _ = layer.forward(layer.backend.zeros(inputs["x"], "float64"))
    inputs |= {"h₀": c_last.shape, "c₀": c_last.shape}
    weights = {"h": h.shape, "h_T": c_last.shape, "c_T": c_last.shape}
    u = _draw(layer.backend, weights, seed, "self_check/weights")
    parameters = _moved(layer.backend, layer.parameters, seed) | _draw(layer.backend, inputs, seed, "self_check/inputs")

    def forward(given: Arrays) -> Any:
        layer.parameters = {name: given[name] for name in layer.parameters}
        return layer.forward(given["x"], (given["h₀"], given["c₀"]))

    def loss(given: Arrays) -> float:
        h, (h_last, c_last), _ = forward(given)
        return float((h * u["h"]).sum()) + float((h_last * u["h_T"]).sum()) + float((c_last * u["c_T"]).sum())

    def gradients(given: Arrays) -> Arrays:
        *_, cache = forward(given)
        dx, (dh, dc), found = layer.backward(cache, u["h"], (u["h_T"], u["c_T"]))
        return {**found, "x": dx, "h₀": dh, "c₀": dc}

    return Variant(f"layer: {_named(settings)}", loss, parameters, gradients)


def model_variant(backend: str, seed: int, loss: Any, context: int | None, **settings: Any) -> Variant:
    """Return a model of two small layers and four frames of which `context` are shown."""
    model = NextFrame(1, (2, 2), dtype="float64", backend=backend, seed=seed, **settings)
    shown = "all shown" if context is None else f"{context} shown"
    name = f"model: {_named({'loss': loss, **settings})}, {shown}"
    return _of_model(name, model, (2, 4, 1, 4, 4), context, loss, seed)


def configured_variant(config: Config, backend: str) -> Variant:
    """Return a configured model in float64, on few frames of the size that is configured.

    Raises:
        BackendUnavailable, ValueError: see `NextFrame`.
    """
    model = untrained_model(config, backend, "float64")
    context, horizon = min(config.data.context, FRAMES), min(config.data.horizon, FRAMES)
    shape = (2, context + horizon, 1, config.data.size, config.data.size)
    return _of_model("configured", model, shape, context, config.training.loss, config.training.seed)


def _named(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.removesuffix('_size')} {value}" for key, value in settings.items())


def _of_model(
    name: str, model: NextFrame, shape: tuple[int, ...], context: int | None, which: Any, seed: int
) -> Variant:  # fmt: skip
    frames = model.backend.asarray(generator(seed, "self_check/frames").random(shape))

    def both(given: Arrays) -> tuple[float, Arrays]:
        model.parameters = dict(given)
        return model.loss_and_gradients(frames, context, which)

    return Variant(
        name, lambda given: both(given)[0], _moved(model.backend, model.parameters, seed), lambda given: both(given)[1]
    )


def _moved(backend: Backend, parameters: Arrays, seed: int) -> dict[str, Array]:
    """Return parameters a little away from the initial ones, so that none is zero."""
    away = _draw(backend, {name: array.shape for name, array in parameters.items()}, seed, "self_check/moved")
    return {name: array + 0.3 * away[name] for name, array in parameters.items()}


def _draw(backend: Backend, shapes: Mapping[str, tuple[int, ...]], seed: int, purpose: str) -> dict[str, Array]:
    """Return normally distributed numbers."""
    return {
        name: backend.asarray(generator(seed, f"{purpose}/{name}").standard_normal(shape))
        for name, shape in shapes.items()
    }
