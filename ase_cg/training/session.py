"""What all networks of a call share, and the folders they are trained in."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ase_cg.errors import InputError
from ase_cg.files import read_record, write_record
from ase_cg.training.distributed import Launch, on_first_process

RECORD = "training.json"
FLOW_FOLDER = "flow"  # of the kernel that labels come from, and of the labels


class Session(NamedTuple):
    """What all networks of a call share."""

    device: torch.device
    launch: Launch | None
    overwrite: bool
    quiet: bool


def prepare_folder(folder: Path, identity: dict[str, Any], result: str, session: Session) -> bool:
    """Make the folder ready, or return True if the same training is already finished there."""
    return on_first_process(lambda: _prepare(folder, identity, result, overwrite=session.overwrite))


def _prepare(folder: Path, identity: dict[str, Any], result: str, *, overwrite: bool) -> bool:
    record = folder / RECORD
    if record.is_file() and not overwrite:
        if read_record(record) != identity:
            raise InputError(
                f"{folder} holds a training with another recipe or dataset; choose another folder, or discard it with "
                "--overwrite (overwrite=True)"
            )
        return (folder / result).is_file()
    if folder.exists() and any(folder.iterdir()) and not record.is_file():
        raise InputError(f"{folder} is not empty and holds no training; choose another folder")
    (folder / result).unlink(missing_ok=True)
    if (folder / FLOW_FOLDER / RECORD).is_file():
        shutil.rmtree(folder / FLOW_FOLDER)
    for checkpoint in (folder / "checkpoints").glob("*.ckpt"):
        checkpoint.unlink()
    write_record(record, identity)
    return False
