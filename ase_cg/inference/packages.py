"""Functions compiled once and kept."""

from typing import Any

import torch
from torch import Tensor

from ase_cg.files import written_whole
from ase_cg.inference import cache
from ase_cg.inference.export import Function, Replay, fused, read_package, write_package
from ase_cg.progress import waiting


def compiled_function(
    function: Function,
    examples: list[Tensor],
    device: torch.device,
    key: dict[str, Any],
    what: str,
    *,
    quiet: bool,
) -> Function:
    """Return a function compiled for tensors like `examples`, from the cache where it is there.

    Parameters
    ----------
    function : callable
        Of tensors.
    examples : sequence of Tensor
    device : torch.device
    key : dict
        What the code depends on: another key is another entry of the cache.
    what : str
        Named in the progress line.
    quiet : bool

    Raises
    ------
    CompilerError
        If the C++ compiler fails.
    InputError
        If the cache's folder cannot be used.
    """
    if device.type == "cuda":
        with waiting(f"Compiling {what}", quiet=quiet), cache.compiler_folders():
            return Replay(fused(function, examples), examples)
    place = cache.entry(cache.make_key(**key))
    if (kept := _kept(place)) is not None:
        return kept
    cache.make_folder(place.package.parent)
    with waiting(f"Compiling {what}, once: it is kept for the next time", quiet=quiet), place.alone():
        if (kept := _kept(place)) is not None:  # another process made it in the meantime
            return kept
        with written_whole(place.package, overwrite=True) as partial, cache.compiler_folders():
            write_package(function, examples, partial)
        place.write({"what": what, "model": key["model"], "dtype": key["dtype"]})
    return read_package(place.package)


def _kept(place: cache.Entry) -> Function | None:
    """Return the function of an entry of the cache, or None where there is none, or a damaged one."""
    if place.read() is None:
        return None
    try:
        return read_package(place.package)
    except (RuntimeError, OSError):  # PyTorch's kinds; it is made anew
        return None
