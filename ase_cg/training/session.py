"""What all networks of a call share, and the folders they are trained in."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ase_cg.errors import InputError
from ase_cg.files import is_empty, locked, read_record, refuse_links_out, write_record
from ase_cg.training.distributed import Launch, on_first_process
from ase_cg.training.table import TABLE_NAME, network_names

RECORD = "training.json"
CSV_FOLDER, TENSORBOARD_FOLDER = "csv", "tensorboard"
FLOW_FOLDER = "flow"  # of the kernel that labels come from, and of the labels


class Session(NamedTuple):
    """What all networks of a call share."""

    device: torch.device
    launch: Launch | None
    overwrite: bool
    quiet: bool
    held: ExitStack  # keeps folders from other processes until the call ends


def prepare_folder(folder: Path, identity: dict[str, Any], result: str, session: Session) -> bool:
    """Make the folder ready, or return True if the same training is already finished there.

    Raises
    ------
    InputError
        If the folder holds something else, or another process trains there.
    """
    return on_first_process(lambda: _prepare(folder, identity, result, session))


def _prepare(folder: Path, identity: dict[str, Any], result: str, session: Session) -> bool:
    record = folder / RECORD
    if not record.is_file():
        if not is_empty(folder):
            raise InputError(f"{folder} is not empty and holds no training; choose another folder")
        write_record(record, identity)
    elif not session.overwrite:
        if read_record(record) != identity:
            raise InputError(
                f"{folder} holds a training with another recipe or dataset; choose another folder, or discard it with "
                "--overwrite (overwrite=True)"
            )
        if (folder / result).is_file():
            return True
    session.held.enter_context(locked(folder / "training"))
    refuse_links_out(folder)
    if session.overwrite:
        _discard(folder, result)
        write_record(record, identity)
    return False


def _discard(folder: Path, result: str) -> None:
    """Delete what a training has written, and nothing else; its record is left to be replaced."""
    for file in (result, f"{TABLE_NAME}.md", f"{TABLE_NAME}.json"):
        (folder / file).unlink(missing_ok=True)
    for checkpoint in (folder / "checkpoints").glob("*.ckpt"):
        checkpoint.unlink()
    for log in (CSV_FOLDER, TENSORBOARD_FOLDER):
        for version in (folder / log).glob("version_*"):
            shutil.rmtree(version)
    for part in (FLOW_FOLDER, *_networks(folder)):
        if (folder / part / RECORD).is_file():
            shutil.rmtree(folder / part)


def _networks(folder: Path) -> list[str]:
    """Return the folders of the networks of a training, if there is one whose record can be read."""
    try:
        return network_names(read_record(folder / RECORD)["recipe"]) if (folder / RECORD).is_file() else []
    except (InputError, KeyError, TypeError):
        return []
