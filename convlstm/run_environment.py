"""A run's environment.json: what its numbers may depend on, and SHA-256 of the weights that it started from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convlstm.backends import Backend
from convlstm.config import Config, ConfigError
from convlstm.environment import machine
from convlstm.run_directory import RunDirectoryError


def environment(backend: Backend) -> dict[str, Any]:
    """Return what the numbers of a run may depend on."""
    prefixes = ("CONVLSTM_", "OPENBLAS_", "OMP_")
    return {
        "backend": backend.name,
        "backend_description": backend.description,
        **machine(("convlstm", "numpy", "chainer", "scikit-learn", "cupy-cuda12x", "cupy-cuda13x", "safetensors")),
        "variables": {name: value for name, value in os.environ.items() if name.startswith(prefixes)},
    }


def initial_weights_digest(config: Config) -> dict[str, str]:
    """Return, for environment.json, SHA-256 of the weights that a run starts from, if it does from a file's."""
    return {"weights_sha256": _sha256(Path(config.model.weights))} if config.model.weights else {}


def _sha256(path: Path) -> str:
    """Return SHA-256 of a file, or of a folder's files with their names."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(f"{file.name}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def check_initial_weights(config: Config, recorded: Mapping[str, Any]) -> None:
    """Check that the weights which a run started from are still those that they were.

    Args:
        config: the run.
        recorded: its environment.json.

    Raises:
        ConfigError: they are others.
    """
    file, then = Path(config.model.weights), recorded.get("weights_sha256")
    if config.model.weights and then is not None and file.exists() and _sha256(file) != then:
        raise ConfigError(f"{file} has changed since the run started from it: its SHA-256 was {then}")


def read_environment(directory: Path) -> dict[str, Any]:
    """Return what a run's environment.json says, as `environment` of training.py made it.

    Raises:
        RunDirectoryError: it cannot be read, or is not of that form.
    """
    file = directory / "environment.json"
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))
        fault = _fault_of_environment(recorded)
    except (OSError, ValueError, RecursionError) as error:
        raise RunDirectoryError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None
    if fault:
        raise RunDirectoryError(f"cannot read {file}: {fault}")
    whole: dict[str, Any] = recorded
    return whole


def _fault_of_environment(recorded: Any) -> str:
    """Return what is wrong with the form of an environment.json that was read; "" where nothing is."""
    if not isinstance(recorded, dict):
        return "it is no JSON object"
    forms = {"backend": str, "blas": list, "packages": dict, "variables": dict, "resumed": list, "weights_sha256": str}
    for name, form in forms.items():
        if name in recorded and not isinstance(recorded[name], form):
            return f"{name} is {recorded[name]!r}"
    for resumed in recorded.get("resumed", []):
        if not (isinstance(resumed, dict) and "step" in resumed and isinstance(resumed.get("changed"), list)):
            return f"resumed holds {resumed!r}"
    return ""
