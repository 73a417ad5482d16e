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
from convlstm.run_directory import CHECKPOINTS, INSIDE
from convlstm.whole_files import bring_down_folder, write_whole

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that cannot be gone on from; the message names the file."""


class ForeignCheckpoint(CheckpointError):
    """A checkpoint that is none of the run's, or another version's; the message names the file and what it is."""


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
        ForeignCheckpoint: it is another step's, or another version of this program wrote it.
        CheckpointError: a file cannot be read, although it may be sound.
    """
    facts = _read_facts(folder, step)
    data = _read_tensors(folder, facts)
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
    names = [path.name for path in folder.glob("step-*.json") if INSIDE[CHECKPOINTS].fullmatch(path.name)]
    return sorted(int(name.removeprefix("step-").removesuffix(".json")) for name in names)


def newest_checkpoint(folder: Path, configuration: str, say: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint that is sound and of this run; None where there is none.

    Args:
        folder: a run's checkpoints; it need not exist.
        configuration: SHA-256 of the run's config.toml.
        say: told of every one that is passed over which file it is and what is wrong with it.

    Raises:
        CheckpointError: a file cannot be read, or all that are sound were saved with another config.toml.
    """
    others: list[str] = []
    for step in reversed(saved_steps(folder)):
        try:
            checkpoint = read_checkpoint(folder, step)
            if checkpoint.configuration == configuration:
                for other in others:
                    say(other)
                return checkpoint
            others.append(f"{fact_file(folder, step)} was saved with another config.toml")
        except (DamagedCheckpoint, ForeignCheckpoint) as error:
            say(str(error))
    if others:
        raise CheckpointError(f"{folder.parent / 'config.toml'} is not that of its checkpoints: {others[0]}")
    return None


def best_step(folder: Path) -> int | None:
    """Return the step of the checkpoint with the smallest validation error, the first of equal ones.

    No file says so beside the checkpoints themselves, which could contradict them; those that `read_checkpoint` refuses
    do not count.

    Args:
        folder: a run's checkpoints; it need not exist.

    Raises:
        CheckpointError: a file cannot be read, so that nobody knows whether it is sound.
    """
    return _best(_sound(folder)[0])


def delete_old_checkpoints(folder: Path, newest: int, keep: int) -> None:
    """Delete all files of checkpoints but those of the last `keep` up to `newest`, and of the best of them.

    So a damaged checkpoint, and what a killed process left, goes as soon as a newer one is safe, and no sooner.  One
    that is none of the run's takes nobody's place and stays.

    Raises:
        CheckpointError: a file cannot be read, so that nobody knows whether it is sound.
        OSError: a file cannot be deleted.
    """
    ours, foreign = _sound(folder, of=newest)
    scores = {step: score for step, score in ours.items() if step <= newest}
    kept = {*sorted(scores)[-keep:], *foreign, _best(scores)}
    names = {file(folder, step).name for step in kept if step is not None for file in (fact_file, _tensor_file)}
    # What makes two files a checkpoint goes first, ".json" before ".safetensors".
    for path in sorted(folder.iterdir()):
        if INSIDE[CHECKPOINTS].fullmatch(path.name) and path.name not in names and not path.is_dir():
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


def _best(scores: Mapping[int, float | None]) -> int | None:
    scored = [(score, step) for step, score in scores.items() if score is not None]
    return min(scored)[1] if scored else None


def _sound(folder: Path, of: int | None = None) -> tuple[dict[int, float | None], list[int]]:
    """Return the validation errors of the checkpoints that are sound in every bit, and which steps' are foreign.

    Args:
        folder: a run's checkpoints; it need not exist.
        of: those that were saved with another config.toml than the checkpoint of this step are foreign.
    """
    scores, foreign = {}, []
    configuration = None if of is None else _read_facts(folder, of)["configuration"]
    for step in saved_steps(folder):
        try:
            facts = _read_facts(folder, step)
            if configuration not in (None, facts["configuration"]):
                raise ForeignCheckpoint
            _read_tensors(folder, facts)
            scores[step] = facts["validation_mse"]
        except DamagedCheckpoint:
            continue
        except ForeignCheckpoint:
            foreign.append(step)
    return scores, foreign


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
    if facts["format"] != FORMAT:
        raise ForeignCheckpoint(f"{file} is of format {facts['format']}; this version reads format {FORMAT}")
    if facts["step"] != step:
        raise ForeignCheckpoint(f"{file} is a copy of the checkpoint of step {facts['step']}")
    return facts


def _read_tensors(folder: Path, facts: Mapping[str, Any]) -> bytes:
    file, right = _tensor_file(folder, facts["step"]), facts["tensors"]
    data = _read(file)
    if len(data) != right["bytes"]:
        raise DamagedCheckpoint(f"{file} is damaged: it has {len(data)} bytes, {right['bytes']} were written")
    if hashlib.sha256(data).hexdigest() != right["sha256"]:
        raise DamagedCheckpoint(f"{file} is damaged: its bits have changed, its SHA-256 is not the recorded one")
    return data


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{file} is missing") from None
    except IsADirectoryError:
        raise ForeignCheckpoint(f"{file} is a directory") from None
    except OSError as error:  # the disk's fault, or a permission's, and no word on what the file holds
        raise CheckpointError(f"{file} cannot be read: {error.strerror}; nothing is deleted") from None
