"""`check_gradients`: anybody's gradients against numerical derivatives, and what is wrong with those that are wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from convlstm.gradcheck.arrays import Array, Host, check_arrays, like, to_host
from convlstm.gradcheck.differences import Differences, Loss, LossFault
from convlstm.gradcheck.measure import Measured, Meter
from convlstm.gradcheck.patterns import Evidence, Finding, evidence, likeness, name_pattern, places
from convlstm.gradcheck.progress import reported
from convlstm.gradcheck.report import Report, Row
from convlstm.gradcheck.shapes import missing, refits, superfluous
from convlstm.gradcheck.together import alone, name_common_cause

Gradients = Mapping[str, Array] | Callable[[dict[str, Array]], Mapping[str, Array]]


def check_gradients(
    loss: Loss, parameters: Mapping[str, Array], gradients: Gradients, *,
    sizes: Mapping[str, int] | None = None, seed: int = 0, progress: Callable[[str], None] | None = None,
) -> Report:  # fmt: skip
    """Compare hand-written gradients with numerical ones, and say what is wrong with those that differ.

    Every entry of a parameter of up to 128 entries is checked, of a larger one 64 and two random directions through all
    of them; if only a direction is wrong, a wrong entry is searched for by halving.  How the derivatives are taken and
    how their errors are known is told in differences.py, what a pattern of errors means in patterns.py.

    Args:
        loss: takes a dict like `parameters`, returns a number.  It is called with float64 copies where it takes them.
        parameters: name to NumPy or CuPy array.  They are not changed.
        gradients: name to array, the gradient of `loss` at `parameters` under check; or a function that returns it for
            given parameters, which is then also checked to give the same twice.
        sizes: what may be a constant factor, for example {"N": 8, "T": 10, "pixels": 256}.
        seed: of the sample of entries and of the directions.
        progress: told what is being done; default: stderr, once a check takes seconds.

    Returns:
        a report: ``.ok``, ``.faults`` (name to a one-line diagnosis), ``str(report)`` a table.

    Raises:
        TypeError: an argument is not as above; the message names it.
        ValueError: there are no parameters.
    """
    with reported(progress) as tell:
        return examine(loss, parameters, gradients, check_sizes(sizes), seed, tell).report


def check_problem(called: str, returned: Any) -> tuple[Loss, Mapping[str, Array], Gradients]:
    """Return what a function of the user's returned, if it is (loss, parameters, gradients).

    Raises:
        TypeError: it is not; the message names what was called and what came.
    """
    if not isinstance(returned, tuple) or len(returned) != 3:
        given = f"{len(returned)} values" if isinstance(returned, tuple) else type(returned).__name__
        raise TypeError(f"{called} must return (loss, parameters, gradients); got {given}")
    return returned


def check_sizes(sizes: Any) -> dict[str, int]:
    """Return `sizes` as a dict, empty for None.

    Raises:
        TypeError: it is no mapping of texts to whole numbers.
    """
    if sizes is None:
        return {}
    right = isinstance(sizes, Mapping) and all(
        isinstance(name, str) and isinstance(size, (int, np.integer)) for name, size in sizes.items()
    )
    if not right:
        raise TypeError(f'sizes must map names to whole numbers, as {{"N": 8}}; got {sizes!r}')
    return {name: int(size) for name, size in sizes.items()}


class Examined(NamedTuple):
    """A report, and what it was drawn from."""

    report: Report
    measured: dict[str, Measured]
    findings: dict[str, Finding]  # on the gradients that are wrong


def examine(
    loss: Loss, parameters: Mapping[str, Array], gradients: Gradients, sizes: Mapping[str, int], seed: int,
    progress: Callable[[str], None],
) -> Examined:  # fmt: skip
    """Do what `check_gradients` does; arguments as there."""
    parameters = check_arrays("parameters", parameters)
    if not parameters:
        raise ValueError("parameters must hold at least one array; got an empty dictionary")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a whole number ≥ 0; got {seed!r}")
    given, faults = _given(parameters, gradients)
    hosts = {name: to_host(gradient) for name, gradient in given.items()}  # before the loss can change them
    try:
        differences = Differences(loss, parameters)
    except LossFault as fault:
        return Examined(Report({"loss": str(fault)}), {}, {})
    largest = [float(abs(g[np.isfinite(g)]).max(initial=0)) for g in hosts.values()]
    meter = Meter(differences, max([differences.variation, *largest]), seed, progress)
    faults |= _unfit(parameters, given, meter)
    measured = {}
    for name, gradient in given.items():
        if name in faults or name not in parameters:
            continue
        if not np.isfinite(hosts[name]).all():
            at = tuple(map(int, np.argwhere(~np.isfinite(hosts[name]))[0]))
            faults[name] = f"not finite: {hosts[name][at]} at {list(at)}"
            continue
        dtype = min(gradient.dtype, parameters[name].dtype, key=lambda dtype: dtype.itemsize)
        measured[name] = meter.start(name, hosts[name], dtype)
        meter.check_entries(measured[name], meter.sample(measured[name]))
        meter.check_directions(measured[name])
    findings = diagnose(measured, differences.point, sizes)
    faults |= {name: finding.line for name, finding in findings.items()}
    faults |= {name: _undecided(m) for name, m in measured.items() if m.status == "undecided"}
    if any(m.status == "unread" for m in measured.values()) and not any(m.moves for m in measured.values()):
        faults = {
            "loss": "the loss does not read its parameters: it is the same to the bit whatever they are; it must "
            "compute with the arrays it is given"
        }
    if not differences.repeats():
        faults = {
            "loss": "the loss is not deterministic: after some calls it gives another value at the same parameters"
        }
    faults = {name: faults[name] for name in [*parameters, *faults] if name in faults}
    changed = [
        name for name, gradient in given.items() if not np.array_equal(to_host(gradient), hosts[name], equal_nan=True)
    ]
    remarks = [*differences.remarks, *_remarks(measured)]
    remarks += [f"calling the loss changed gradients[{name!r}]; it was checked as it was given" for name in changed]
    report = Report(faults, _rows(parameters, measured), tuple(remarks), differences.evaluations)
    return Examined(report, measured, findings)


def _given(parameters: dict[str, Array], gradients: Gradients) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the gradients, and the faults that calling twice shows."""
    if not callable(gradients):
        return check_arrays("gradients", gradients), {}

    def call() -> dict[str, Array]:
        copies = {name: like(array, to_host(array), array.dtype) for name, array in parameters.items()}
        found = check_arrays("gradients(parameters)", gradients(copies))
        return {name: like(array, to_host(array), array.dtype) for name, array in found.items()}

    first, second = call(), call()
    faults = {}
    for name in first:
        a, b = to_host(first[name]), to_host(second[name]) if name in second else None
        if b is None or a.shape != b.shape:
            faults[name] = "not deterministic: a second call gives another shape, or none"
        elif a.any() and np.allclose(b, 2 * a, rtol=1e-6, atol=0):
            faults[name] = (
                "accumulated over calls: a second call gives twice the first; set it to zero before the backward"
            )
        elif not np.allclose(a, b, rtol=1e-6, atol=1e-9 * abs(a).max(initial=0), equal_nan=True):
            faults[name] = "not deterministic: a second call at the same parameters gives another gradient"
    return first, faults


def _unfit(parameters: dict[str, Array], given: dict[str, Array], meter: Meter) -> dict[str, str]:
    """Return the diagnosis of each name that is missing, superfluous, or whose gradient has another shape."""
    spare = [name for name in given if name not in parameters]
    faults = {name: missing(name, spare) for name in parameters if name not in given}
    faults |= {name: superfluous(name, parameters) for name in spare}
    for name, array in parameters.items():
        if name not in given or given[name].shape == array.shape:
            continue
        faults[name] = f"shape {given[name].shape}, while the parameter has {array.shape}"
        for description, fitted in refits(array.shape, to_host(given[name])):
            tried = meter.start(name, fitted, given[name].dtype)
            meter.check_entries(tried, meter.sample(tried)[:32])
            if tried.status == "right" and tried.moves:
                faults[name] = description
                break
    return faults


def diagnose(
    measured: Mapping[str, Measured], point: Mapping[str, Host], sizes: Mapping[str, int]
) -> dict[str, Finding]:
    """Return a diagnosis of every gradient that is wrong."""
    wrong = {name: evidence(m, point[name], sizes) for name, m in measured.items() if m.status == "wrong"}
    norms = {name: float(np.linalg.norm(m.analytic)) for name, m in measured.items()}
    unread = {name: Finding("unread", _unread(m)) for name, m in measured.items() if m.status == "unread"}
    common = name_common_cause({name: e for name, e in wrong.items() if e.wrong.any() and e.a.any()}, norms)
    right = {name for name, m in measured.items() if m.status == "right" and m.moves}
    shapes = {name: m.analytic.shape for name, m in measured.items()}
    findings = unread
    for name, e in wrong.items():
        found = common.get(name) or name_pattern(e)
        if found is None:
            lonely = alone(name, shapes, right) if len(wrong) == 1 else ""
            found = Finding("alone" if lonely else "", f"{lonely or 'no pattern found: '}{_extent(measured[name], e)}")
        findings[name] = found
    return findings


def _extent(m: Measured, e: Evidence) -> str:
    if not e.wrong.any():
        return f"off by {m.direction_error:.1e} along a random direction, though every entry checked is right"
    where = places(e)
    return (
        f"{int(e.wrong.sum())} of {e.wrong.size} entries wrong, by up to {m.largest_error:.1e}; "
        f"{where + '; ' if where else ''}{likeness(e)}"
    )


def _unread(m: Measured) -> str:
    return (
        f"the loss does not read this parameter, yet its gradient is not zero (up to {abs(m.analytic).max():.2g}); "
        "does the loss compute with the array it is given?"
    )


def _undecided(m: Measured) -> str:
    return (
        f"cannot be told: in {m.count('undecided')} of {len(m.flat)} entries numerical derivatives are not sure enough "
        f"(to ±{max(m.errors):.1e}, where the gradient is up to {m.scale:.1e}), or the loss is not smooth there"
    )


def _remarks(measured: Mapping[str, Measured]) -> list[str]:
    remarks = [
        f"the loss does not read {name!r}; its gradient is zero, as it should be"
        for name, m in measured.items() if not m.moves and m.status == "right"
    ]  # fmt: skip
    for name, m in measured.items():
        if m.count("kink") and m.status == "right":
            remarks.append(
                f"{name}: the loss is not smooth at this point in {m.count('kink')} of {len(m.flat)} entries (a clip, "
                "ReLU at 0); there the gradient lies between the derivatives to either side"
            )
        if m.count("undecided") and m.status == "right":
            remarks.append(f"{name}: {m.count('undecided')} of {len(m.flat)} entries could not be told")
    return remarks


def _rows(parameters: Mapping[str, Array], measured: Mapping[str, Measured]) -> tuple[Row, ...]:
    rows = []
    for name, array in parameters.items():
        m = measured.get(name)
        if m is None:
            rows.append(Row(name, tuple(array.shape), 0, None, "wrong"))
        else:
            rows.append(Row(name, tuple(array.shape), len(m.flat), m.largest_error, m.status))
    return tuple(rows)
