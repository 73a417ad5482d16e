"""What it costs to forbid uninitialised memory, to keep the ledger, and to verify a run.

A short real training takes turns with itself: neither, each, and both, as `convlstm train` has them.  Entering
`forbid_uninitialised` is part of a turn, which makes it dearer here than in a long run.  `train` and `verify` are whole
commands, each in a process of its own.  And a step's digest is timed beside the step, for every shape.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from benchmarks.measure import Contender, Row, Rows, Skipped, interleaved, row
from benchmarks.options import Options
from benchmarks.ours import our_model, our_training
from benchmarks.shapes import Shape, frames_of
from benchmarks.tables import ABSENT, markdown, span
from convlstm.config import Config, config_as_toml
from convlstm.determinism import forbid_uninitialised
from convlstm.ledger import Ledger, chain, open_locked
from convlstm.presets import DIGITS
from convlstm.trainer import Record, Trainer
from convlstm.whole_files import write_whole

CONFIG = replace(DIGITS, training=replace(DIGITS.training, steps=40, schedule="constant"))
STEPS = 5  # of a turn
NEITHER, GUARD, LEDGER, BOTH = "neither", "memory forbidden", "ledger", "both"
TRAIN, VERIFY = "convlstm train", "convlstm verify"
STEP, DIGEST = "step", "digest"
Command = Callable[[list[str]], None]  # runs `convlstm ARGUMENTS…`


def run_command(arguments: list[str]) -> None:
    """Run `convlstm` in a process of its own; a failure is a RuntimeError with the last line of what it said."""
    finished = subprocess.run([sys.executable, "-m", "convlstm", *arguments], capture_output=True, text=True)
    if finished.returncode:
        last = ([*finished.stdout.splitlines(), *finished.stderr.splitlines()] or ["it said nothing"])[-1]
        raise RuntimeError(f"convlstm {' '.join(arguments)} ended with {finished.returncode}: {last}")


@contextmanager
def trainings(config: Config, folder: Path, backend: str) -> Iterator[dict[str, Contender]]:
    """Yield some steps of training, without and with what is to be timed; ledgers are in the folder."""
    endless = replace(config, training=replace(config.training, steps=10**9))  # however many a turn repeats
    with ExitStack() as files:

        def record_in(name: str) -> Record:
            path = folder / f"{name}.jsonl"
            ledger = Ledger(path, files.enter_context(open_locked(path)))
            return ledger.append

        def steps(record: Record, forbidden: bool) -> Contender:
            trainer = Trainer(endless, backend)

            def some() -> None:
                with forbid_uninitialised() if forbidden else nullcontext():
                    for _ in range(STEPS):
                        trainer.step(record)

            return some

        yield {
            NEITHER: steps(lambda *_: None, False),
            GUARD: steps(lambda *_: None, True),
            LEDGER: steps(record_in(LEDGER), False),
            BOTH: steps(record_in(BOTH), True),
        }


def training(config: Config, backend: str, rounds: int) -> Row:
    """Return a row of one step of training; where the digits are not installed, a row that says so."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with trainings(config, Path(folder), backend) as contenders:
                seconds = interleaved(contenders, rounds)
        except ModuleNotFoundError as error:
            return row({}, skipped={"training": str(error)})
    return row({name: [value / STEPS for value in values] for name, values in seconds.items()}, skipped={})


def commands(config: Config, backend: str, rounds: int, run: Command = run_command) -> Row:
    """Return a row of the whole commands `train` and `verify`, each as often as there are rounds.

    Raises:
        RuntimeError: one failed.
    """
    seconds: dict[str, list[float]] = {TRAIN: [], VERIFY: []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "short.toml"
        write_whole(file, config_as_toml(config).encode())
        for number in range(rounds):
            out = str(Path(folder) / f"run-{number}")
            train = ["train", str(file), "--out", out, "--backend", backend]
            for name, arguments in ((TRAIN, train), (VERIFY, ["verify", out])):
                start = time.perf_counter()
                run(arguments)
                seconds[name].append(time.perf_counter() - start)
    return row(seconds, steps=config.training.steps, skipped={})


def digest(shape: Shape, backend: str, rounds: int) -> Row:
    """Return a row of a training step, and of the digest that the ledger makes of it.

    Raises:
        Skipped: the backend is not to be had here.
    """
    frames, model = frames_of(shape), our_model(shape, backend)
    loss, gradients = model.loss_and_gradients(frames)
    contenders: dict[str, Contender] = {
        STEP: our_training(shape, frames, backend).step,
        DIGEST: lambda: chain(b"", loss, gradients, model.parameters),
    }
    return row(interleaved(contenders, rounds), shape=shape._asdict(), skipped={})


def measure(options: Options, config: Config = CONFIG, run: Command = run_command) -> Rows:
    """Return the rows of a training, of the commands, and of each shape's digest, on the first backend on the host."""
    backend = (*options.on_host, "numpy")[0]
    rows = {"training": training(config, backend, options.rounds)}
    if rows["training"]["seconds"]:  # else the commands would lack the same
        rows["commands"] = commands(config, backend, options.rounds, run)
    for name, shape in options.shapes.items():
        try:
            rows[f"{name}, digest"] = digest(shape, backend, options.rounds)
        except Skipped as reason:
            rows[f"{name}, digest"] = row({}, skipped={backend: str(reason)})
    return rows


def table(rows: Rows) -> str:
    """Return each time and what it is beside the first of its row."""
    lines = []
    for label, found in rows.items():
        first = next(iter(found["times"].values()), None)
        for place, (name, times) in enumerate(found["times"].items()):
            share = ABSENT if place == 0 or first is None else f"{100 * times['median_ms'] / first['median_ms']:.2f} %"
            lines.append([label, name, span(times), share])
    return markdown(["of", "", "ms, median (quartiles)", "beside the first of its kind"], lines)
