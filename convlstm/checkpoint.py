"""Checkpoints: all that a run needs to go on as if it had never stopped, in files that are whole or not there.

    checkpoints/step-00000050.safetensors   arrays "weights/NAME" and, of the optimizer, "moments/m/NAME"
    checkpoints/step-00000050.json          everything else, SHA-256 of the former, and a checksum over itself

The second is renamed into place last, which makes the two a checkpoint; the first alone is what a killed process left.
There is no generator whose state could be kept: every random number is addressed by (seed, purpose, sample, step), see
randomness.py, so that the step and the next sequence's index say where a run stands.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from convlstm.backends import Array
from convlstm.ledger import Position
from convlstm.run_directory import CHECKPOINT_FILE
from convlstm.whole_files import bring_down_folder, write_whole

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that does not belong to the run, or to this version; the message names the file."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint that is not as it was written; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Checkpoint:
    """A run after some of its steps.

    Attributes:
        step: how many are done, which is the number of the next.
        weights: NumPy arrays by name.
        moments: what the optimizer remembers: for each kind, as "m", arrays by the names of the weights.
        position: where the random numbers, the data, the optimizer and the schedule stand; as `Trainer.position`.
        ledger: where the ledger stands.
        configuration: SHA-256 of the run's config.toml.
        validation_mse: mean squared error on the split "validation"; None where it was not measured or not finite.
    """

    step: int
    weights: Mapping[str, Array]
    moments: Mapping[str, Mapping[str, Array]]
    position: Mapping[str, Any]
    ledger: Position
    configuration: str
    validation_mse: float | None = None


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint down to the disk, whole or not at all.

    Raises:
        OSError: it cannot be written; those that are there are as they were.
    """
    if not folder.is_dir():
        folder.mkdir()
        bring_down_folder(folder.parent)
    tensors = safetensors.numpy.save(_flat(checkpoint))
    facts = {
        "format": FORMAT,
        "step": checkpoint.step,
        "position": checkpoint.position,
        "ledger": checkpoint.ledger._asdict(),
        "configuration": checkpoint.configuration,
        "validation_mse": checkpoint.validation_mse,
        "tensors": {"bytes": len(tensors), "sha256": hashlib.sha256(tensors).hexdigest()},
    }
    write_whole(_tensor_file(folder, checkpoint.step), tensors)
    write_whole(fact_file(folder, checkpoint.step), _encoded(facts))


def read_checkpoint(folder: Path, step: int) -> Checkpoint:
    """Return the checkpoint that was saved after so many steps, every bit of it checked.

    Raises:
        DamagedCheckpoint: one of its files is missing, cut off or changed.
        CheckpointError: another version of this program wrote it.
    """
    facts, file = _read_facts(folder, step), _tensor_file(folder, step)
    data, right = _read(file), facts["tensors"]
    if len(data) != right["bytes"]:
        raise DamagedCheckpoint(f"{file} is damaged: it has {len(data)} bytes, {right['bytes']} were written")
    if hashlib.sha256(data).hexdigest() != right["sha256"]:
        raise DamagedCheckpoint(f"{file} is damaged: its bits have changed, its SHA-256 is not the recorded one")
    weights: dict[str, Array] = {}
    moments: dict[str, dict[str, Array]] = {}
    for name, array in safetensors.numpy.load(data).items():
        role, _, inner = name.partition("/")
        kind, _, weight = inner.partition("/")
        target = (weights, inner) if role == "weights" else (moments.setdefault(kind, {}), weight)
        target[0][target[1]] = np.array(array)  # aligned and writable, as those of a run that never stopped
    return Checkpoint(
        facts["step"], weights, moments, facts["position"], Position(**facts["ledger"]), facts["configuration"],
        facts["validation_mse"],
    )  # fmt: skip


def saved_steps(folder: Path) -> list[int]:
    """Return after which steps a checkpoint was saved, damaged ones too, in ascending order."""
    names = [path.name for path in folder.glob("step-*.json") if CHECKPOINT_FILE.fullmatch(path.name)]
    return sorted(int(name.removeprefix("step-").removesuffix(".json")) for name in names)


def newest_checkpoint(folder: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint that is sound; None where there is none.

    Args:
        folder: a run's checkpoints; it need not exist.
        say: told of every damaged one which file it is and what is wrong with it.

    Raises:
        CheckpointError: as `read_checkpoint`.
    """
    for step in reversed(saved_steps(folder)):
        try:
            return read_checkpoint(folder, step)
        except DamagedCheckpoint as error:
            say(str(error))
    return None


def best_step(folder: Path, among: Callable[[int], bool] = lambda step: True) -> int | None:
    """Return the step of the checkpoint with the smallest validation error, the first of equal ones.

    No file says so beside the checkpoints themselves, which could contradict them; damaged ones do not count.

    Args:
        folder: a run's checkpoints; it need not exist.
        among: which steps count.
    """
    scored = [(score, step) for step, score in _scores(folder).items() if score is not None and among(step)]
    return min(scored)[1] if scored else None


def delete_old_checkpoints(folder: Path, newest: int, keep: int) -> None:
    """Delete all files of checkpoints but those of the last `keep` up to `newest`, and of the best of them.

    So a damaged checkpoint, and what a killed process left, goes as soon as a newer one is safe, and no sooner.

    Raises:
        OSError: a file cannot be deleted.
    """
    sound = [step for step in _scores(folder) if step <= newest]
    kept = {*sound[-keep:], best_step(folder, lambda step: step <= newest)}
    names = {file(folder, step).name for step in kept if step is not None for file in (fact_file, _tensor_file)}
    # What makes two files a checkpoint goes first, ".json" before ".safetensors".
    for path in sorted(folder.iterdir()):
        if CHECKPOINT_FILE.fullmatch(path.name) and path.name not in names:
            path.unlink()


def fact_file(folder: Path, step: int) -> Path:
    """Return the file that makes two files the checkpoint of this step."""
    return folder / f"step-{step:08d}.json"


def _tensor_file(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.safetensors"


def _flat(checkpoint: Checkpoint) -> dict[str, Array]:
    """Return the arrays by the names that the file has, each in C order."""
    moments = {f"{kind}/{name}": a for kind, named in checkpoint.moments.items() for name, a in named.items()}
    named = [("weights", checkpoint.weights), ("moments", moments)]
    return {f"{role}/{name}": np.array(a, order="C") for role, arrays in named for name, a in arrays.items()}


def _scores(folder: Path) -> dict[int, float | None]:
    """Return the validation error of every checkpoint whose facts are sound, in ascending order of steps."""
    scores = {}
    for step in saved_steps(folder):
        try:
            scores[step] = _read_facts(folder, step)["validation_mse"]
        except CheckpointError:
            continue
    return scores


def _encoded(facts: Mapping[str, Any]) -> bytes:
    """Return the only text of these facts: a file that differs from it in any bit is damaged."""
    checksum = hashlib.sha256(json.dumps(facts, allow_nan=False).encode()).hexdigest()
    return (json.dumps({**facts, "checksum": checksum}, indent=1, allow_nan=False) + "\n").encode()


def _read_facts(folder: Path, step: int) -> dict[str, Any]:
    file = fact_file(folder, step)
    data = _read(file)
    try:
        facts: dict[str, Any] = json.loads(data)
        sound = _encoded({name: value for name, value in facts.items() if name != "checksum"}) == data
    except (ValueError, AttributeError, RecursionError):  # no JSON, or no object
        sound = False
    if not sound:
        fault = "its bits have changed" if data.endswith(b"\n}\n") else f"it is cut off after {len(data)} bytes"
        raise DamagedCheckpoint(f"{file} is damaged: {fault}")
    if (facts["format"], facts["step"]) != (FORMAT, step):
        written = f"format {facts['format']} of step {facts['step']}"
        raise CheckpointError(f"{file} holds {written}; this version reads format {FORMAT} of step {step} there")
    return facts


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{file} is missing") from None
    except OSError as error:
        raise DamagedCheckpoint(f"{file} cannot be read: {error.strerror}") from None
