"""Where a model comes from, for its card."""

import datetime as dt
import hashlib
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.training.data import TrainingData
from ase_cg.training.recipe import Recipe

FILES = ("dataset", "trajectories", "topology", "start", "reference")  # keys of a recipe that name files
MAX_RUNS = 100  # of frames that are written out


def provenance(recipe: Recipe, data: TrainingData, metrics: dict[str, float]) -> dict[str, Any]:
    """Return data hash, training frames, recipe, versions, git commit, date and metrics, JSON-safe.

    Losses are in (kcal/mol/Å)².
    """
    return {
        "recipe": _without_folders(recipe.model_dump(mode="json")),
        "dataset_sha256": data.hash,
        "train_frames": {molecule.name: describe_frames(molecule.split.train) for molecule in data.molecules},
        "metrics": metrics,
        "versions": {package: version(package) for package in ("ase-cg", "torch", "ase")},
        "git_commit": git_commit(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def describe_frames(frames: NDArray[np.int64]) -> dict[str, Any]:
    """Say which frames were used.

    Parameters
    ----------
    frames : ndarray of int
        Sorted.

    Returns
    -------
    dict
        ``count``; ``sha256`` of the frame numbers as little-endian 64-bit integers; ``runs``, a list of
        ``first:end:step`` as slices are written, or None where there would be very many.
    """
    runs: list[str] = []
    start = 0
    while start < len(frames) and len(runs) <= MAX_RUNS:
        steps = np.diff(frames[start:])
        breaks = np.flatnonzero(steps != steps[0]) if len(steps) else np.array([], dtype=int)
        count = int(breaks[0]) + 1 if len(breaks) else len(frames) - start
        step = int(steps[0]) if len(steps) else 1
        runs.append(f"{frames[start]}:{frames[start + count - 1] + 1}:{step}")
        start += count
    return {
        "count": len(frames),
        "sha256": hashlib.sha256(frames.astype("<i8").tobytes()).hexdigest(),
        "runs": runs if len(runs) <= MAX_RUNS else None,
    }


def git_commit() -> str | None:
    """Return the commit of the checkout this package runs from, or None where it is installed otherwise."""
    folder = Path(__file__).parent.parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _without_folders(section: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with its files by name only: a model that is passed on should not tell of folders."""

    def shown(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return _without_folders(value)
        if key in FILES and value is not None:
            return [Path(path).name for path in value] if isinstance(value, list) else Path(value).name
        return value

    return {key: shown(key, value) for key, value in section.items()}
