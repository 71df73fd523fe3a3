"""mace-torch and e3nn, imported and used without their side effects on the process."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import ModuleType, SimpleNamespace

import torch
from torch import nn

from ase_cg.errors import InputError, reason


def import_mace() -> SimpleNamespace:
    """Import mace-torch and return what the backbone needs of it.

    Returns
    -------
    SimpleNamespace
        ``models`` and ``blocks`` (modules of mace-torch), ``o3`` and ``e3nn`` (of e3nn).

    Raises
    ------
    InputError
        If mace-torch is not installed, or does not work with what is.
    """
    with _unchanged_process():
        try:
            # e3nn reads a file of constants that holds a slice, which PyTorch has to be told is harmless.
            with torch.serialization.safe_globals([slice]):
                import e3nn
                from e3nn import o3
                from mace.modules import blocks, models
        except ModuleNotFoundError as error:
            raise InputError(
                f"mace: {error.name} is not installed; install mace-torch with pip install 'ase-cg[mace]'"
            ) from error
        except ImportError as error:
            raise InputError(f"mace: the installed mace-torch cannot be imported: {reason(error)}") from error
    return SimpleNamespace(blocks=blocks, models=models, o3=o3, e3nn=e3nn)


@contextmanager
def _unchanged_process() -> Iterator[None]:
    """Put the environment, the filters of warnings and the default dtype back as they were, and print nothing.

    Importing mace-torch lets every `torch.load` of the process execute pickles, by an environment variable.
    """
    environment, dtype = dict(os.environ), torch.get_default_dtype()
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            # TorchScript is deprecated, and both packages use it on import.
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(dtype)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


@contextmanager
def building(e3nn: ModuleType) -> Iterator[None]:
    """Build modules of e3nn in float64, without TorchScript, and without touching the global random numbers.

    Coupling coefficients are made in the default dtype; rounded to float32 they would never be exact again.
    """
    options = e3nn.get_optimization_defaults()
    with _unchanged_process(), torch.random.fork_rng(devices=[]):
        torch.set_default_dtype(torch.float64)
        e3nn.set_optimization_defaults(jit_script_fx=False)
        try:
            yield
        finally:
            e3nn.set_optimization_defaults(**options)


def make_copyable(module: nn.Module) -> None:
    """Let e3nn's modules be copied as they are: otherwise each copy turns their generated code into TorchScript."""
    for part in module.modules():
        if hasattr(part, "__codegen__"):
            vars(part)["__codegen__"] = []
