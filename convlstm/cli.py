"""The commands: each parses, calls, prints.  An error that a user can mend is one line on stderr and exit code 2."""

from __future__ import annotations

import io
import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convlstm.backends import BackendUnavailable, available_backends, get_backend, unavailable_backends
from convlstm.config import TABLES, Config, config_as_toml, described_settings, load_config, overridden, parse_setting
from convlstm.determinism.forbid import UninitialisedAllocation
from convlstm.determinism.replay import CannotRun
from convlstm.whole_files import write_whole

if TYPE_CHECKING:
    from convlstm.training import Resumption

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Train ConvLSTMs on NumPy or CuPy arrays, the same bits on any number of threads.",
)  # fmt: skip
# No markup: brackets in a path or in "convlstm[cuda13]" are brackets.
console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)

JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the findings to this file, too.")]
SIGNALLED = 128  # what a shell reports of a program that a signal ended is this and the signal's number


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an encoding without ≥ is no reason to fail
    try:
        app()
    except (
        ValueError,
        ArithmeticError,
        ImportError,
        BackendUnavailable,
        CannotRun,
        UninitialisedAllocation,
        OSError,
        MemoryError,
    ) as error:
        print(f"convlstm: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


@app.callback()
def commands() -> None:
    """Keep `convlstm COMMAND` the form, however many commands there are."""


@app.command(epilog="All settings, with their defaults and what they mean: convlstm config")
def train(
    what: Annotated[
        str,
        typer.Argument(
            metavar="PRESET|CONFIG.toml",
            help='"digits", or a TOML file with settings; with --resume also a run directory.',
        ),
    ],
    backend: Annotated[
        str | None,
        typer.Option(help='"auto", "numpy", "cupy" or "cupy:1"; default "auto", with --resume that of the run.'),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of what is configured.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and data, instead of what is configured.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Start from these parameters: .npz, .safetensors or a folder of text files."),
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
) -> None:
    """Train a ConvLSTM, score it on held-out sequences and draw its forecasts."""
    from convlstm.resume import is_run_directory
    from convlstm.run_directory import make_run_directory
    from convlstm.training import check_config

    for option, given in (("--backend", backend), ("--weights", weights), ("--out", out)):
        if given == "":  # to a Path it would be the current directory
            raise ValueError(f"{option} is empty; leave it out for its default")
    named = {
        "training.steps": steps,
        "training.seed": seed,
        "model.weights": None if weights is None else str(Path(weights).absolute()),
    }
    changes = dict(map(parse_setting, settings or ())) | {n: value for n, value in named.items() if value is not None}
    if resume and overwrite:
        raise ValueError("--resume goes on with the run that --overwrite would replace; say one of them")
    place = None if out is None else Path(out)
    if resume:
        _resume(what, place, changes, backend)
        return
    if is_run_directory(what) and (Path(what) / "config.toml").is_file():
        both = f"--resume goes on with it, {Path(what) / 'config.toml'} in its place begins another like it"
        raise ValueError(f"{what} is a run directory: {both}")
    config, backend = _with_absolute_weights(overridden(load_config(what), changes)), backend or "auto"
    check_config(config, backend)
    directory = make_run_directory(place, Path(what).stem, overwrite=overwrite, weights=config.model.weights)
    _train_and_tell(config, directory, backend, None)


def _with_absolute_weights(config: Config) -> Config:
    """Return the configuration as it is saved with the run, which may be continued from any folder."""
    weights = config.model.weights
    return overridden(config, {"model.weights": str(Path(weights).absolute())}) if weights else config


def _resume(what: str, out: Path | None, changes: dict[str, object], backend: str | None) -> None:
    """Go on with a run, unless there is nothing left to do."""
    from convlstm.from_config import untrained_model
    from convlstm.resume import find_run, is_run_directory, look_at, recorded_config
    from convlstm.training import Resumption, check_config

    directory = find_run(what, out)
    asked = recorded_config(directory) if is_run_directory(what) else load_config(what)
    config = _with_absolute_weights(overridden(asked, changes))
    run = look_at(directory, config, backend)
    if run.finished:
        console.print(f"the run in {directory} is finished, all {config.training.steps} steps; nothing is changed")
        return
    check_config(config, run.backend, make=untrained_model)
    for line in run.changed:
        console.print(f"changed since: {line}")
    resumption = Resumption(lambda text: print(text, file=sys.stderr, flush=True), run.changed)
    _train_and_tell(config, directory, run.backend, resumption)


def _train_and_tell(config: Config, directory: Path, backend: str, resumption: Resumption | None) -> None:
    """Train, and say where, how far it comes, what came of it and how to go on."""
    from convlstm.resume import as_argument
    from convlstm.training import train

    chosen = get_backend(backend)
    console.print(f"backend {chosen.name} ({chosen.description}); run directory {directory}")
    go_on = f"go on with: convlstm train --resume {shlex.quote(as_argument(directory))}"
    try:
        with _progress(config.training.steps) as report:
            outcome = train(config, directory, backend=backend, report=report, resumption=resumption)
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
        mse = outcome.scores["mse"]
        console.print(f"test MSE {mse['model']:.4f}; repeating the last frame {mse['repeat_last_frame']:.4f}")
    picture, fault = directory / "forecast.png", outcome.no_forecast
    console.print(f"forecasts above the truth: {picture}" if fault is None else f"no {picture}: {fault}")


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[int, float], None]]:
    """Show a bar on a terminal, ten to twenty plain lines elsewhere."""
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
    lengths: Annotated[str | None, typer.Option(help="Lengths T to check a script at; default 1,2,3,5.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of what is sampled and, of our own models, of all numbers; default that of CONFIG.toml, else 0."
        ),
    ] = None,
) -> None:
    """Hold gradients, ours or a script's, against numerical ones; exit 0 if all are right, 1 if not."""
    from convlstm.self_check import check_configured, check_script, check_variants

    if script is not None and config is not None:
        raise ValueError(f"gradcheck checks a model or a script; got both {config!r} and --script {script!r}")
    if script is None and lengths is not None:
        raise ValueError(f"--lengths belongs to a --script; got {lengths!r} and no script")
    if script is not None:
        ok = check_script(script, lengths, seed or 0, console.print)
    elif config is not None:
        asked: dict[str, object] = {} if seed is None else {"training.seed": seed}
        ok = check_configured(overridden(load_config(config), asked), backend, console.print)
    else:
        ok = check_variants(backend, seed or 0, console.print)
    raise typer.Exit(0 if ok else 1)


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")],
    backend: Annotated[str | None, typer.Option(help="Default: the one that the run was computed on.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Train again from what a run recorded; exit 0 if every bit comes again, 1 if not, naming the first divergence."""
    from convlstm.recorded_run import changes_since, read_run
    from convlstm.verify import verify

    _check_target(json_file)
    run = read_run(directory)
    chosen = run.backend if backend is None else backend
    changed = changes_since(run, chosen)
    for line in changed:
        console.print(f"changed since: {line}")
    for resumed in run.environment.get("resumed", []):
        console.print(f"resumed at step {resumed['step']} with changed {', '.join(resumed['changed'])}")
    with _progress(len(run.ledger)) as report:
        found = verify(run, chosen, report)
    _write_json(json_file, found.as_json() | {"changed_since": changed})
    if len(run.ledger) < run.config.training.steps:
        console.print(
            f"the ledger holds {len(run.ledger)} of the {run.config.training.steps} steps that were asked for"
        )
    if found.identical:
        console.print(f"identical: all {found.steps} steps, every bit of loss, gradients and weights")
        if found.note:
            console.print(found.note)
        return
    console.print(f"not identical: {found.fault}")
    if changed:
        console.print("the likely reason is what has changed since")
    raise typer.Exit(1)


@app.command()
def diff(
    one: Annotated[Path, typer.Argument(metavar="DIR_A", help="A run directory.")],
    other: Annotated[Path, typer.Argument(metavar="DIR_B", help="Another.")],
    json_file: JsonFile = None,
) -> None:
    """Name the first divergence of two runs: step, sample, time step, layer, array and element; exit 0 if none."""
    from convlstm.diff import diff
    from convlstm.recorded_run import read_run

    _check_target(json_file)
    found = diff(read_run(one), read_run(other), lambda text: print(text, file=sys.stderr))
    console.print(str(found))
    _write_json(json_file, found.as_json())
    raise typer.Exit(0 if found.identical else 1)


@app.command()
def audit(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH…", help="Files and folders; - for standard input.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help='"text", "json" or "sarif".')] = "text",
    select: Annotated[str, typer.Option(metavar="RULE,RULE", help="Only these rules.")] = "",
    ignore: Annotated[str, typer.Option(metavar="RULE,RULE", help="All rules but these.")] = "",
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Leave out files and folders; may be repeated.")
    ] = None,
    stdin_name: Annotated[str, typer.Option(metavar="NAME", help="What to call standard input.")] = "<stdin>",
    explain: Annotated[str, typer.Option(metavar="RULE", help="Say why a rule exists and what to write instead.")] = "",
    list_rules: Annotated[bool, typer.Option("--list-rules", help="Name all rules.")] = False,
) -> None:
    """Find in source files what makes results wander; exit 0 clean, 1 findings, 2 unreadable. Executes nothing."""
    from convlstm.determinism.audit.command import Options, run

    options = Options(paths or [], form, select, ignore, exclude or [], stdin_name, explain, list_rules)
    raise typer.Exit(run(options, print, lambda line: print(line, file=sys.stderr)))


@app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def replay(
    script: Annotated[str, typer.Argument(metavar="SCRIPT", help="A Python file; it is run, unchanged, many times.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[ARG]…", help="For the script.")] = None,
    json_file: JsonFile = None,
    cupy_as_numpy: Annotated[
        bool, typer.Option("--cupy-as-numpy", help="Let the script's CuPy be NumPy, to examine it without a GPU.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that one run may take.")] = 600.0,
    axis: Annotated[
        list[str] | None,
        typer.Option(help="Change only this: nothing, memory, threads, hash, simd, alignment; may be repeated."),
    ] = None,
) -> None:
    """Run a script again with one thing changed at a time; exit 0 if its numbers stay the same, 1 if not.

    What is changed: memory contents, threads, hash seed, vector instructions, memory alignment, and nothing at all.
    Where memory is the cause, the lines are named whose memory is read before it is written.
    """
    from convlstm.determinism.replay import replay
    from convlstm.determinism.replay.conditions import AXES

    for name in axis or ():
        if name not in AXES:
            raise ValueError(f"--axis must be one of {', '.join(AXES)}; got {name!r}")
    axes = [name for name in AXES if not axis or name in axis]
    _check_target(json_file)
    with _say_on_stderr() as tell, _ended_by_sigterm():
        verdict = replay(script, arguments or (), timeout=timeout, cupy_as_numpy=cupy_as_numpy, tell=tell, axes=axes)
    console.print(str(verdict))
    _write_json(json_file, verdict.as_json())
    raise typer.Exit(0 if verdict.stable else 1)


@contextmanager
def _say_on_stderr() -> Iterator[Callable[[str], None]]:
    """Yield what shows the last thing that was said: in one line of a terminal, in a line each elsewhere."""
    terminal = sys.stderr.isatty()

    def say(text: str) -> None:
        print(f"\r\x1b[K{text}" if terminal else text, file=sys.stderr, end="" if terminal else "\n", flush=True)

    try:
        yield say
    finally:
        if terminal:
            print("\r\x1b[K", file=sys.stderr, end="", flush=True)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end what is inside as an exit does, so that no child and no folder of it stays behind."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_target(path: Path | None) -> None:
    """Say before the work, and not after it, that a file cannot be written there."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        fault = "it is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise ValueError(f"--json: cannot write {path}: {fault}")


def _write_json(path: Path | None, data: object) -> None:
    if path is not None:
        write_whole(path, (json.dumps(data, indent=1) + "\n").encode())


@app.command()
def doctor() -> None:
    """Say which backends this machine has, and what the others lack."""
    for name in available_backends():
        console.print(f"{name}: {get_backend(name).description}")
    for name, fault in unavailable_backends().items():
        console.print(f"{name}: not available; {fault}")
    console.print(f"auto is {get_backend('auto').name}")
