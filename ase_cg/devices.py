"""Devices by name."""

from typing import TYPE_CHECKING

from ase_cg.errors import InputError

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> "torch.device":
    """Return a PyTorch device.

    Raises
    ------
    InputError
        If the name is not known or this machine has no such device.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r}; known are cpu and cuda") from error
    if device.type not in {"cpu", "cuda"}:
        raise InputError(f"device {name!r} is not supported; known are cpu and cuda")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InputError(f"device {name!r} was asked for, but PyTorch finds {count} GPUs here; use device cpu")
    return device
