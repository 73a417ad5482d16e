"""The commands that use a trained model: evaluate, predict, report."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from convlstm.commands.app import JsonFile, app, check_json_target, console, write_json
from convlstm.whole_files import write_whole

if TYPE_CHECKING:
    from convlstm.data.facts import Facts
    from convlstm.data.source import Source
    from convlstm.trained_run import TrainedRun

WIDEST = 200  # characters of a table

RunDirectory = Annotated[str, typer.Argument(metavar="RUN", help="A run directory that holds a trained model.")]
Backend = Annotated[str, typer.Option(help='"auto", "numpy", "numpy:winograd", "cupy" or "cupy:1".')]
Data = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Other frames, all of them to test on; default: the run's own test split."),
]
Thresholds = Annotated[
    list[float] | None,
    typer.Option(
        "--threshold",
        metavar="NUMBER",
        help="Of CSI, POD and FAR, in the data's units; may be repeated. Default 0.5 for brightness.",
    ),
]


@app.command()
def evaluate(
    directory: RunDirectory, data: Data = None, threshold: Thresholds = None, backend: Backend = "auto",
    json_file: JsonFile = None,
) -> None:  # fmt: skip
    """Score a trained model beside persistence and climatology, by lead time."""
    from convlstm.data.fitting import digest
    from convlstm.data.frame_source import FrameSource
    from convlstm.metrics import unit_of
    from convlstm.trained_run import trained_run

    check_json_target(json_file)
    run = trained_run(Path(directory), backend)
    source = run.source(data)
    _tell_of_the_run(run)
    if isinstance(source, FrameSource) and data is not None and digest(source.series) == run.facts.sha256:
        console.print(f"{data} is what the run was trained on: most of these frames are no test of it")
    scores = _scores(run, source, threshold)
    if data is None:
        write_json(run.directory / "evaluation.json", scores)
    write_json(json_file, scores)
    units = f", in {scores['units']}" if scores["units"] else ""
    console.print(f"{source.facts.name}: {scores['sequences']} sequences{units}")
    _print(_overall(scores))
    for name in scores["overall"]["model"]:
        console.print(f" {name}: {unit_of(name)}")
    _print(_by_lead_time(scores))


def _tell_of_the_run(run: TrainedRun) -> None:
    """Say where training was ended early."""
    from convlstm.ledger import read_ledger
    from convlstm.resume import as_argument

    steps, asked = len(read_ledger(run.directory / "ledger.jsonl")), run.config.training.steps
    if steps < asked:
        go_on = f"go on with: convlstm train --resume {shlex.quote(as_argument(run.directory))}"
        console.print(f"{run.directory}: trained for {steps} of {asked} steps; {go_on}")


def _scores(run: TrainedRun, source: Source, threshold: list[float] | None) -> dict[str, Any]:
    """Return all scores, those without scikit-image that do not need it."""
    from convlstm.scoring import evaluate

    structural = importlib.util.find_spec("skimage") is not None
    if not structural:
        console.print('without SSIM and PSNR, which need scikit-image; in the clone, pip install ".[scores]"')
    console.print(f"scoring {source.count('test')} sequences")
    thresholds = _thresholds(threshold, source.facts)
    return evaluate(run.config, run.model(source.shape), source, thresholds=thresholds, structural=structural)


def _print(table: Table) -> None:
    """Print a table whole, however narrow the window: a number without its last digits is another one."""
    Console(width=WIDEST, highlight=False).print(table)


def _thresholds(given: list[float] | None, facts: Facts) -> list[float]:
    """Return the thresholds; without any the middle of brightness, where the data are that."""
    if given:
        return given
    return [0.5] if min(facts.lowest) >= 0 and max(facts.highest) <= 1 else []


def _overall(scores: dict[str, Any]) -> Table:
    """Return every score over all lead times."""
    makers = list(scores["overall"])
    table = _table("score", makers, "all lead times together")
    for name in scores["overall"]["model"]:
        table.add_row(name, *(_number(scores["overall"][maker][name]) for maker in makers))
    return table


def _by_lead_time(scores: dict[str, Any]) -> Table:
    """Return the mean squared error by lead time."""
    makers = list(scores["by_lead_time"])
    table = _table("lead time", makers, "mse by lead time")
    for k in range(len(scores["by_lead_time"]["model"]["mse"])):
        table.add_row(str(k + 1), *(_number(scores["by_lead_time"][maker]["mse"][k]) for maker in makers))
    return table


def _table(first: str, makers: list[str], title: str) -> Table:
    table = Table(title=title, box=None, title_justify="left", pad_edge=True)
    table.add_column(first, no_wrap=True)
    for maker in makers:
        table.add_column(maker, no_wrap=True, justify="right")
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


@app.command()
def predict(
    directory: RunDirectory,
    data: Annotated[str, typer.Argument(metavar="INPUT", help="Frames like those of training; the last are read.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="OUT.{npy,nc,npz,gif}", help="File for the forecast.")],
    horizon: Annotated[int | None, typer.Option(help="Frames to forecast; default: as many as in training.")] = None,
    backend: Backend = "auto",
) -> None:
    """Forecast what follows the last frames of a file."""
    from convlstm.forecast_files import check_target, save_forecast
    from convlstm.sources import open_like
    from convlstm.trained_run import predict, trained_run

    check_target(out)
    run = trained_run(Path(directory), backend)
    check_target(out, sources=open_like(run.config.data, data, run.facts.variable).files)
    forecast = predict(run, data, horizon)
    save_forecast(out, forecast)
    T, C, H, W = forecast.frames.shape
    when = "" if forecast.times is None else f", {_day(forecast.times[0])} … {_day(forecast.times[-1])}"
    if forecast.clock is not None:
        when = f", {forecast.clock.values[0]:g} … {forecast.clock.values[-1]:g} {forecast.clock.units}"
    _tell_of_the_run(run)
    console.print(f"{out}: {T} frames, {C} channel{'s' * (C > 1)}, {H}×{W} pixels{when}")


def _day(time: Any) -> str:
    """Return a time without the part that is zero."""
    return str(time.astype("datetime64[s]")).removesuffix("T00:00:00").replace("T", " ")


@app.command()
def report(
    directory: RunDirectory,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Default: RUN/report.html.")] = None,
    threshold: Thresholds = None,
    backend: Backend = "auto",
) -> None:
    """Write one HTML page on a run: its forecasts moving, scores, loss, settings, and what proves it."""
    from convlstm.page.document import page_html
    from convlstm.run_page import page_of
    from convlstm.trained_run import trained_run

    run = trained_run(Path(directory), backend)
    target = run.directory / "report.html" if out is None else out
    _check_page_target(target)
    source = run.source()
    _tell_of_the_run(run)
    scores = _scores(run, source, threshold)
    write_whole(target, page_html(page_of(run, scores, source)).encode())
    console.print(f"{target}: open it in a browser; it needs no network")


def _check_page_target(path: Path) -> None:
    """Say before the work, and not after it, that a page cannot be written there."""
    if path.is_dir() or not path.parent.is_dir():
        fault = "it is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise ValueError(f"cannot write {path}: {fault}")
