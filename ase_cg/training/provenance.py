"""Where a model comes from, for its card."""

import datetime as dt
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ase_cg.training.recipe import Recipe

FILES = ("dataset", "trajectories", "topology", "start", "reference")  # keys of a recipe that name files


def provenance(recipe: Recipe, data_hash: str, metrics: dict[str, float]) -> dict[str, Any]:
    """Return data hash, recipe, versions, git commit, date and metrics, JSON-safe.

    Losses are in (kcal/mol/Å)².
    """
    return {
        "recipe": _without_folders(recipe.model_dump(mode="json")),
        "dataset_sha256": data_hash,
        "metrics": metrics,
        "versions": {package: version(package) for package in ("ase-cg", "torch", "ase")},
        "git_commit": git_commit(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
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
