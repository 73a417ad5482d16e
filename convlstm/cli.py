"""The commands: each parses, calls, prints.  An error that a user can mend is one line on stderr and exit code 2."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convlstm.backends import BackendUnavailable, available_backends, get_backend, unavailable_backends
from convlstm.config import Config, load_config

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Train ConvLSTMs on NumPy or CuPy arrays, the same bits on any number of threads.",
)  # fmt: skip
# No markup: brackets in a path or in "convlstm[cuda13]" are brackets.
console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)

INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an encoding without ≥ is no reason to fail
    try:
        app()
    except (ValueError, ArithmeticError, ImportError, BackendUnavailable, OSError, MemoryError) as error:
        print(f"convlstm: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


@app.callback()
def commands() -> None:
    """Keep `convlstm COMMAND` the form, however many commands there are."""


@app.command()
def train(
    what: Annotated[str, typer.Argument(metavar="PRESET|CONFIG.toml", help='"digits", or a TOML file with settings.')],
    backend: Annotated[str, typer.Option(help='"auto", "numpy", "cupy" or "cupy:1".')] = "auto",
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of what is configured.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and data, instead of what is configured.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Start from these parameters: .npz, .safetensors or a folder of text files.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory to make; default runs/PRESET-1, -2, …")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --out holds.")] = False,
) -> None:
    """Train a ConvLSTM, score it on held-out sequences and draw its forecasts."""
    from convlstm.training import check_config, make_run_directory, train

    config = load_config(what)
    if steps is not None:
        config = dataclasses.replace(config, training=dataclasses.replace(config.training, steps=steps))
    if seed is not None:
        config = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))
    if weights is not None:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, weights=str(weights.absolute())))
    chosen = get_backend(backend)
    check_config(config, backend)
    directory = make_run_directory(out, Path(what).stem, overwrite=overwrite, weights=config.model.weights)
    console.print(f"backend {chosen.name} ({chosen.description}); run directory {directory}")
    try:
        with _progress(config) as report:
            outcome = train(config, directory, backend=backend, report=report)
    except KeyboardInterrupt:  # the second Ctrl-C, or one after the last step
        console.print(f"interrupted; what was done by then is in {directory}")
        raise typer.Exit(INTERRUPTED) from None
    if outcome.interrupted:
        done = f"{outcome.steps} of {config.training.steps} steps"
        console.print(f"interrupted after {done}; weights and ledger are in {directory}")
        raise typer.Exit(INTERRUPTED)
    if outcome.scores is not None:
        mse = outcome.scores["mse"]
        console.print(f"test MSE {mse['model']:.4f}; repeating the last frame {mse['repeat_last_frame']:.4f}")
    picture, fault = directory / "forecast.png", outcome.no_forecast
    console.print(f"forecasts above the truth: {picture}" if fault is None else f"no {picture}: {fault}")


@contextmanager
def _progress(config: Config) -> Iterator[Callable[[int, float], None]]:
    """Show a bar on a terminal, ten to twenty plain lines elsewhere."""
    steps = config.training.steps
    if not console.is_terminal:
        every = max(1, steps // 10)

        def line(done: int, loss: float) -> None:
            if done % every == 0 or done == steps:
                print(f"step {done}/{steps}  loss {loss:.4f}", flush=True)

        yield line
        return
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("", total=steps, loss="")
        yield lambda done, loss: progress.update(task, completed=done, loss=f"loss {loss:.4f}")


@app.command()
def gradcheck(
    config: Annotated[
        str | None, typer.Argument(metavar="[PRESET|CONFIG.toml]", help="Check this model; default: every variant.")
    ] = None,
    backend: Annotated[str, typer.Option(help='"auto", "numpy", "cupy" or "cupy:1".')] = "auto",
    script: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="Run FILE.py and check what FUNCTION returns: (loss, parameters, gradients). If it takes an argument, "
            "the length T, check it over growing lengths.",
        ),
    ] = None,
    lengths: Annotated[str, typer.Option(help="Lengths T to check a script at.")] = "1,2,3,5",
    seed: Annotated[int, typer.Option(help="Seed of what is sampled and, of our own models, of all numbers.")] = 0,
) -> None:
    """Hold gradients, ours or a script's, against numerical ones; exit 0 if all are right, 1 if not."""
    from convlstm.self_check import check_configured, check_script, check_variants

    if script is not None and config is not None:
        raise ValueError(f"gradcheck checks a model or a script; got both {config!r} and --script {script!r}")
    if script is not None:
        ok = check_script(script, lengths, seed, console.print)
    elif config is not None:
        ok = check_configured(load_config(config), backend, console.print)
    else:
        ok = check_variants(backend, seed, console.print)
    raise typer.Exit(0 if ok else 1)


@app.command()
def doctor() -> None:
    """Say which backends this machine has, and what the others lack."""
    for name in available_backends():
        console.print(f"{name}: {get_backend(name).description}")
    for name, fault in unavailable_backends().items():
        console.print(f"{name}: not available; {fault}")
    console.print(f"auto is {get_backend('auto').name}")
