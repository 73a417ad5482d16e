"""The commands that find faults: gradcheck, verify, diff, audit, replay."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from convlstm.commands.app import JsonFile, app, check_json_target, console, progress_of, write_json
from convlstm.config import load_config, overridden


@app.command()
def gradcheck(
    config: Annotated[
        str | None, typer.Argument(metavar="[PRESET|CONFIG.toml]", help="Check this model; default: every variant.")
    ] = None,
    backend: Annotated[str, typer.Option(help='"auto", "numpy", "numpy:winograd", "cupy" or "cupy:1".')] = "auto",
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

    check_json_target(json_file)
    run = read_run(directory)
    chosen = run.backend if backend is None else backend
    changed = changes_since(run, chosen)
    for line in changed:
        console.print(f"changed since: {line}")
    for resumed in run.environment.get("resumed", []):
        console.print(f"resumed at step {resumed['step']} with changed {', '.join(resumed['changed'])}")
    with progress_of(len(run.ledger)) as report:
        found = verify(run, chosen, report)
    write_json(json_file, found.as_json() | {"changed_since": changed})
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

    check_json_target(json_file)
    found = diff(read_run(one), read_run(other), lambda text: print(text, file=sys.stderr))
    console.print(str(found))
    write_json(json_file, found.as_json())
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
    check_json_target(json_file)
    with _say_on_stderr() as tell, _ended_by_sigterm():
        verdict = replay(script, arguments or (), timeout=timeout, cupy_as_numpy=cupy_as_numpy, tell=tell, axes=axes)
    console.print(str(verdict))
    write_json(json_file, verdict.as_json())
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
