"""`convlstm train` and `convlstm config`."""

from __future__ import annotations

import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convlstm.backends import get_backend
from convlstm.commands.app import app, console, progress_of
from convlstm.config import TABLES, Config, config_as_toml, described_settings, load_config, overridden, parse_setting
from convlstm.data.opening import PACKAGE

if TYPE_CHECKING:
    from convlstm.data.source import Source
    from convlstm.training import Resumption

SIGNALLED = 128  # what a shell reports of a program that a signal ended is this and the signal's number


@app.command(epilog="All settings, with their defaults and what they mean: convlstm config")
def train(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|CONFIG.toml",
            help="A TOML file with settings, or digits, frames, sst, shi2015, openstl-s; with --resume also a run.",
        ),
    ],
    backend: Annotated[
        str | None,
        typer.Option(
            help='"auto", "numpy", "numpy:winograd", "cupy" or "cupy:1"; default "auto", with --resume that of the run.'
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of what is configured.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and data, instead of what is configured.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Start from these parameters: .npz, .safetensors or a folder of text files."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Frames to learn on: .npy, .npz, HDF5, NetCDF, or a folder of these or of images (data.path).",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TABLE.KEY=VALUE",
            help="Any setting, instead of what is configured, as in training.loss=mse; may be repeated.",
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Run directory to make; default runs/PRESET-1, -2, …")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --out, or in the directory given for PRESET; default the newest unfinished.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --out holds.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write loss and learning rate for TensorBoard, too, to DIR/events.")
    ] = False,
) -> None:
    """Train a ConvLSTM, score it on held-out sequences and draw its forecasts."""
    from convlstm.event_files import check_events

    for option, given in (("--backend", backend), ("--weights", weights), ("--out", out), ("--data", data)):
        if given == "":  # to a Path it would be the current directory
            raise ValueError(f"{option} is empty; leave it out for its default")
    named = {"training.steps": steps, "training.seed": seed, "model.weights": weights, "data.path": data}
    changes = dict(map(parse_setting, settings or ())) | {n: value for n, value in named.items() if value is not None}
    if resume and overwrite:
        raise ValueError("--resume goes on with the run that --overwrite would replace; say one of them")
    if tensorboard:
        check_events()
    place = None if out is None else Path(out)
    if resume:
        _resume(what, place, changes, backend, tensorboard)
    else:
        _begin(what, place, changes, backend or "auto", overwrite, tensorboard)


def _begin(
    what: str, out: Path | None, changes: dict[str, object], backend: str, overwrite: bool, tensorboard: bool
) -> None:
    """Begin a run."""
    from convlstm.resume import is_run_directory
    from convlstm.run_directory import make_run_directory
    from convlstm.sources import open_source
    from convlstm.trainer import check_config

    if is_run_directory(what) and (Path(what) / "config.toml").is_file():
        both = f"--resume goes on with it, {Path(what) / 'config.toml'} in its place begins another like it"
        raise ValueError(f"{what} is a run directory: {both}")
    config = _with_absolute_paths(overridden(load_config(what), changes))
    source = open_source(config)
    _tell_of(source)
    check_config(config, backend, source)
    used = (config.model.weights, config.data.path, config.data.test_file)
    directory = make_run_directory(out, Path(what).stem, overwrite=overwrite, used=[path for path in used if path])
    _train_and_tell(_Run(config, directory, backend, source), None, tensorboard)


def _with_absolute_paths(config: Config) -> Config:
    """Return the configuration as it is saved with the run, which may be continued from any folder."""
    names = ("model.weights", "data.path", "data.test_file")
    given = {name: str(config.value(name)) for name in names if config.value(name)}
    here = {name: path if path.startswith(PACKAGE) else str(Path(path).absolute()) for name, path in given.items()}
    return overridden(config, here)


def _tell_of(source: Source) -> None:
    """Say what was found where frames are read from files."""
    from convlstm.data.frame_source import FrameSource

    if not isinstance(source, FrameSource):
        return
    facts, (T, C, H, W), stretches = source.facts, source.series.shape, len(source.series.runs)
    parts = f" in {stretches} stretches" if stretches > 1 else ""
    ranges = [f"{low:.6g} … {high:.6g}" for low, high in zip(facts.lowest, facts.highest, strict=True)]
    values = f"{', '.join(ranges)} {facts.units}".rstrip()
    windows = ", ".join(f"{split} {count}" for split, count in (facts.windows or {}).items())
    console.print(f"{facts.name}: {T} frames{parts}, {C} channel{'s' * (C > 1)}, {H}×{W} pixels")
    console.print(f"values in training {values}; windows: {windows}")


@dataclass(frozen=True)
class _Run:
    """What is to be trained, where, and on what."""

    config: Config
    directory: Path
    backend: str
    source: Source


def _resume(what: str, out: Path | None, changes: dict[str, object], backend: str | None, tensorboard: bool) -> None:
    """Go on with a run, unless there is nothing left to do."""
    from convlstm.resume import find_run, is_run_directory, look_at, recorded_config
    from convlstm.sources import open_source
    from convlstm.trainer import check_config
    from convlstm.training import Resumption

    directory = find_run(what, out)
    asked = recorded_config(directory) if is_run_directory(what) else load_config(what)
    config = _with_absolute_paths(overridden(asked, changes))
    run = look_at(directory, config, backend)
    if run.finished:
        console.print(f"the run in {directory} is finished, all {config.training.steps} steps; nothing is changed")
        return
    source = open_source(config)
    check_config(config, run.backend, source, initial=False)
    for line in run.changed:
        console.print(f"changed since: {line}")
    resumption = Resumption(lambda text: print(text, file=sys.stderr, flush=True), run.changed)
    _train_and_tell(_Run(config, directory, run.backend, source), resumption, tensorboard)


def _train_and_tell(run: _Run, resumption: Resumption | None, tensorboard: bool) -> None:
    """Train, and say where, how far it comes, what came of it and how to go on."""
    from convlstm.resume import as_argument
    from convlstm.training import train

    config, directory, chosen = run.config, run.directory, get_backend(run.backend)
    console.print(f"backend {chosen.name} ({chosen.description}); run directory {directory}")
    go_on = f"go on with: convlstm train --resume {shlex.quote(as_argument(directory))}"

    def tell(done: int, loss: float) -> None:
        report(done, loss)
        if done == config.training.steps:
            console.print(f"scoring {run.source.count('test')} sequences")

    try:
        with progress_of(config.training.steps) as report:
            outcome = train(
                config, directory, backend=run.backend, report=tell, resumption=resumption, source=run.source,
                events=tensorboard,
            )  # fmt: skip
    except KeyboardInterrupt:  # the second Ctrl-C, or one after the last step
        if (directory / "config.toml").is_file():
            console.print(f"interrupted; what was done by then is in {directory}; {go_on}")
        else:
            console.print(f"interrupted before the first step; nothing was done yet in {directory}")
        raise typer.Exit(SIGNALLED + signal.SIGINT) from None
    if outcome.interrupted is not None:
        done = f"{outcome.steps} of {config.training.steps} steps"
        console.print(f"interrupted after {done}; weights and ledger are in {directory}; {go_on}")
        raise typer.Exit(SIGNALLED + outcome.interrupted)
    if outcome.scores is not None:
        overall = {name: scores["mse"] for name, scores in outcome.scores["overall"].items()}
        mse = {name: "–" if score is None else f"{score:.4g}" for name, score in overall.items()}
        others = ", ".join(f"{name} {mse[name]}" for name in mse if name != "model")
        units = f" (of values in {outcome.scores['units']})" if outcome.scores["units"] else ""
        console.print(f"test MSE {mse['model']}; {others}{units}")
    picture, fault = directory / "forecast.png", outcome.no_forecast
    console.print(f"forecasts above the truth: {picture}" if fault is None else f"no {picture}: {fault}")


@app.command("config")
def show_config(
    show: Annotated[
        str | None, typer.Option(metavar="PRESET|CONFIG.toml", help="Print this configuration, every setting of it.")
    ] = None,
) -> None:
    """List every setting that a CONFIG.toml may hold; or print a configuration as such a file."""
    if show is not None:
        print(config_as_toml(load_config(show)), end="")
        return
    for table, kind in TABLES.items():
        described = list(described_settings(table))
        width = max(len(f"{setting.key} = {setting.default}") for setting in described)
        print(kind.__doc__)
        for setting in described:
            print(f"  {f'{setting.key} = {setting.default}':{width}}  {setting.kind}\n      {setting.help}")
