"""Kill training again and again with SIGKILL, resume it, and compare what it ends with to a run that nothing stopped.

    python -m benchmarks.kill_and_resume [--kills 100] [--seed 0] [--config CONFIG.toml] [--keep DIR]

Every run is a process `convlstm train`, killed at a random moment after it has begun to train, and resumed with
`--resume` until it ends by itself; it is often killed again before that.  Ends with 0 if every run came to the same
ledger, weights and scores, else with 1.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

CONFIG = """
[data]
size = 16
test_sequences = 4
validation_sequences = 2
[model]
hidden_channels = [8]
kernel_size = 3
[training]
steps = 150
batch_size = 2
checkpoint_every = 5
"""
COMPARED = ("ledger.jsonl", "weights.safetensors", "scores.json")


@dataclass
class Summary:
    """What has been seen so far."""

    runs: int = 0
    kills: int = 0
    damaged: int = 0  # checkpoints that were found damaged: a kill must never leave one
    from_steps: list[int] = field(default_factory=list)  # where runs went on
    differing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        distinct = f"{len(set(self.from_steps))} different steps" if self.from_steps else "no step"
        end = "; ".join(self.differing) or "every run came to the same bits as the one that nothing stopped"
        killed = f"{self.kills} kills of {self.runs} runs, resumed {len(self.from_steps)} times from {distinct}"
        return f"{killed}; {self.damaged} damaged checkpoints; {end}"


def train(config: Path, run: Path, seconds: float | None) -> tuple[int, str, float]:
    """Train or resume; kill it so many seconds after its first line.  Return exit code, standard error, seconds."""
    resume = ["--resume"] if (run / "ledger.jsonl").exists() else []
    command = [sys.executable, "-m", "convlstm", "train", str(config), "--out", str(run), "--backend", "numpy", *resume]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # what it is going to do, once everything is imported
        start = time.perf_counter()
        if seconds is not None:
            time.sleep(seconds)
            process.kill()
        _, errors = process.communicate()
    return process.returncode, errors, time.perf_counter() - start


def kill_and_resume(config: Path, folder: Path, kills: int, seed: int) -> Summary:
    """Kill so many times; every run that was begun is resumed to its end."""
    code, errors, whole = train(config, folder / "whole", None)
    if code:
        raise SystemExit(errors)
    right = [(folder / "whole" / name).read_bytes() for name in COMPARED]
    moments, seen = random.Random(seed), Summary()
    while seen.kills < kills:
        run, code = folder / f"run-{seen.runs}", -9
        while code == -9:
            code, errors, _ = train(config, run, moments.uniform(0, whole) if seen.kills < kills else None)
            seen.kills += code == -9
            _note(seen, errors)
        seen.runs += 1
        if code:
            seen.differing.append(f"{run} ended with {code}: {errors.strip()}")
        elif [(run / name).read_bytes() for name in COMPARED] != right:
            seen.differing.append(f"{run} ended with other bits")
        print(f"{seen.kills}/{kills} kills, {seen.runs} runs", flush=True)
    return seen


def _note(seen: Summary, errors: str) -> None:
    """Take from what a resumed run said where it went on."""
    for line in errors.splitlines():
        if line.startswith("going on from"):
            seen.from_steps.append(int(Path(line).stem.removeprefix("step-")))
        seen.damaged += " is damaged: " in line


def main() -> None:
    """Kill, resume, compare, sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how often (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is killed")
    parser.add_argument("--config", type=Path, help="what is trained (default: something small)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the runs there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        config = arguments.config
        if config is None:
            config = folder / "small.toml"
            config.write_text(CONFIG, encoding="utf-8")
        summary = kill_and_resume(config, folder, arguments.kills, arguments.seed)
    print(summary)
    sys.exit(1 if summary.differing else 0)


if __name__ == "__main__":
    main()
