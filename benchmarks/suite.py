"""The command: one benchmark, some or all; a comparison of two result files; README's table and plot.

    python -m benchmarks [NAME …] [--shape shi …] [--rounds 7] [--backend numpy …] [--json FILE] [--plots DIR]
    python -m benchmarks compare A.json B.json
    python -m benchmarks readme FILE.json

Each benchmark is a module of its own, which says what it measures and how.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from benchmarks import (
    backends,
    comparison,
    convolution,
    determinism,
    inference,
    profile,
    readme,
    scaling,
    speed_plot,
    threads,
    train_step,
)
from benchmarks.measure import Rows, environment
from benchmarks.options import BACKENDS, Options
from benchmarks.processes import ROOT
from benchmarks.results import write_results
from benchmarks.shapes import SHAPES
from convlstm.backends import BackendUnavailable, get_backend

COMMANDS = ("compare", "readme", "run")


class Benchmark(NamedTuple):
    """One of them."""

    measure: Callable[[Options], Rows]
    table: Callable[[Rows], str]
    plot: Callable[[Rows, Path], None] | None = None


BENCHMARKS = {
    "train_step": Benchmark(train_step.measure, train_step.table, speed_plot.of("train_step")),
    "inference": Benchmark(inference.measure, inference.table, speed_plot.of("inference")),
    "backends": Benchmark(backends.measure, backends.table),
    "convolution": Benchmark(convolution.measure, convolution.table),
    "determinism": Benchmark(determinism.measure, determinism.table),
    "scaling": Benchmark(scaling.measure, scaling.table, scaling.plot),
    "threads": Benchmark(threads.measure, threads.table, threads.plot),
    "profile": Benchmark(profile.measure, profile.table, profile.plot),
}

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Measure; without a command, `run`. " + ", ".join(BENCHMARKS),
)  # fmt: skip


@app.command()
def run(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="Which; default all.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender.")] = 7,
    shape: Annotated[list[str] | None, typer.Option(help="One of the shapes; may be repeated; default all.")] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="One of our backends; may be repeated; default all that can be had.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all figures and the environment here.")
    ] = None,
    plots: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw there.")] = None,
) -> None:
    """Measure, and print a table of each benchmark as it is done."""
    chosen = _known("benchmark", names, BENCHMARKS)
    options = Options(
        {name: SHAPES[name] for name in _known("shape", shape, SHAPES)}, rounds, tuple(backend or BACKENDS)
    )
    for name in backend or ():
        get_backend(name)  # one that is asked for must be there
    if json is not None and not json.parent.is_dir():
        raise ValueError(f"--json: cannot write {json}: there is no directory {json.parent}")
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
    before, found = environment(), dict[str, Rows]()
    for name in chosen:
        found[name] = BENCHMARKS[name].measure(options)
        print(report(name, found[name]), flush=True)
        if json is not None:  # after each, so that a run that is ended has what it measured
            write_results(json, before, found)
        draw = BENCHMARKS[name].plot
        if plots is not None and draw is not None:
            draw(found[name], plots)


def _known(what: str, given: Sequence[str] | None, known: Collection[str]) -> list[str]:
    """Return what was asked for, by default all, each once."""
    for name in given or ():
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; known are {', '.join(known)}")
    return list(dict.fromkeys(given or known))


def report(name: str, rows: Rows) -> str:
    """Return a benchmark's table and who was skipped, why."""
    reasons = {(who, why): None for row in rows.values() for who, why in row.get("skipped", {}).items()}
    skipped = "".join(f"\nskipped {who}: {why}" for who, why in reasons)
    return f"\n{name}\n\n{BENCHMARKS[name].table(rows)}\n{skipped}"


@app.command()
def compare(
    one: Annotated[Path, typer.Argument(metavar="A.json", help="Results.")],
    other: Annotated[Path, typer.Argument(metavar="B.json", help="Later results.")],
) -> None:
    """Say what became faster or slower from A to B, and what is noise."""
    found, said = comparison.compare(one, other)
    print(comparison.table(found))
    for line in said:
        print(line)
    if any(it.verdict == comparison.TOO_FEW for it in found):
        print(f"a change can be told from {comparison.needed_rounds()} rounds on")


@app.command(name="readme")
def write_readme(
    results: Annotated[Path, typer.Argument(metavar="FILE.json", help="Results of train_step and inference.")],
    into: Annotated[Path, typer.Option(metavar="README", help="The file with the marks.")] = ROOT / "README.md",
) -> None:
    """Write README's table and plot of speeds anew."""
    readme.rewrite(results, into)


def main(begin: Sequence[str] = ()) -> None:
    """Run the command line, after these arguments; what a user can mend is one line on stderr and exit code 2."""
    given = [*begin, *sys.argv[1:]]
    try:
        app(given if given[:1] == ["--help"] or (given and given[0] in COMMANDS) else ["run", *given])
    except (ValueError, RuntimeError, BackendUnavailable, ImportError, OSError) as error:
        print(f"benchmarks: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
