"""Files that come with ase-cg by name: trained models, and structures to start from."""

import os
from importlib import resources
from pathlib import Path


def shipped_files(suffix: str) -> dict[str, Path]:
    """Return the files of a suffix (``.safetensors``, ``.pdb``) by their names without it."""
    folder = Path(str(resources.files("ase_cg.force_fields")))
    return {file.stem: file for file in sorted(folder.glob(f"*{suffix}"))}


def shipped_or_given(path: str | os.PathLike[str], suffix: str) -> Path:
    """Return the file that comes with ase-cg where the path is only its name and there is no such file here."""
    given = Path(path)
    if given.suffix or given.exists() or given.name != os.fspath(path):
        return given
    return shipped_files(suffix).get(given.name, given)
