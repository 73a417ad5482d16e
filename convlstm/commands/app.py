"""What the commands share: the application, the console, a file of findings, a bar of progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from convlstm.whole_files import write_whole

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Train ConvLSTMs on NumPy or CuPy arrays, the same bits on any number of threads.",
)  # fmt: skip
# No markup: brackets in a path or in "convlstm[cuda13]" are brackets.
console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)

JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the findings to this file, too.")]


@app.callback()
def commands() -> None:
    """Keep `convlstm COMMAND` the form, however many commands there are."""


def check_json_target(path: Path | None) -> None:
    """Say before the work, and not after it, that a file cannot be written there."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        fault = "it is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise ValueError(f"--json: cannot write {path}: {fault}")


def write_json(path: Path | None, data: object) -> None:
    """Write findings, where a file is named."""
    if path is not None:
        write_whole(path, (json.dumps(data, indent=1) + "\n").encode())


@contextmanager
def progress_of(steps: int) -> Iterator[Callable[[int, float], None]]:
    """Show a bar on a terminal, ten to twenty plain lines elsewhere, the first of them after the first step."""
    if not console.is_terminal:
        every = max(1, steps // 10)

        def line(done: int, loss: float) -> None:
            if done % every == 0 or done in (1, steps):
                print(f"step {done}/{steps}  loss {loss:.4f}", flush=True)

        yield line
        return
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("", total=steps, loss="")
        yield lambda done, loss: progress.update(task, completed=done, loss=f"loss {loss:.4f}")
