"""Sums over neighbours in C++, for processors: each pair once, and none beyond the cutoff."""

from __future__ import annotations

import subprocess
import warnings
from functools import cache as kept
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ase_cg.errors import reason
from ase_cg.files import written_whole
from ase_cg.inference import cache
from ase_cg.inference.export import CompilerError
from ase_cg.progress import waiting

if TYPE_CHECKING:
    from ase_cg.inference.convolution import Convolution

SOURCE = Path(__file__).with_name("convolution.cpp")
# No fast-math: a library linked with it changes how the whole process treats denormal numbers.
FLAGS = ("-std=c++20", "-O3", "-march=native", "-ffp-contract=fast", "-fopenmp-simd", "-fPIC", "-shared")
SMALLEST = 24  # beads; in smaller molecules nearly all pairs are within the cutoff, and only simple sums gain
SIMPLE_BEADS = 100  # in all replicas of a chunk; for fewer, calls cost more than they save


@kept
def load(*, quiet: bool = False) -> bool:
    """Compile the operations on this machine, once, and make them known to PyTorch.

    Returns
    -------
    bool
        Whether they are there: where the C++ compiler fails, a warning says why, and PyTorch's own do the work.
    """
    if _known():  # loaded twice, from two places, it would end the process
        return True
    try:
        try:
            torch.ops.load_library(str(_library(quiet=quiet)))  # type: ignore[no-untyped-call]
        except OSError:  # made on a machine of the same processor but another system, or deleted in the meantime
            torch.ops.load_library(str(_library(quiet=quiet, anew=True)))  # type: ignore[no-untyped-call]
    except (OSError, CompilerError) as error:
        warnings.warn(f"large molecules are slower than they could be: {reason(error)}", UserWarning, stacklevel=3)
        return False
    _describe()
    return True


def _known() -> bool:
    return hasattr(torch.ops.ase_cg, "convolve")


def _describe() -> None:
    """Tell PyTorch's compiler what the operations return."""
    torch.library.register_fake("ase_cg::convolve", _shape)
    torch.library.register_fake("ase_cg::convolve_backward", _backward_shapes)


def _library(*, quiet: bool, anew: bool = False) -> Path:
    place = cache.entry(cache.make_key(library=SOURCE.read_text(encoding="utf-8"), flags=FLAGS), ".so")
    if anew or place.read() is None:
        cache.make_folder(place.package.parent)
        with waiting("Compiling the sums over neighbours, once on this machine", quiet=quiet), place.alone():
            if anew or place.read() is None:
                with written_whole(place.package, overwrite=True) as partial:
                    _compile(partial)
                place.write({"what": "sums over neighbours"})
    return place.package


def _compile(path: Path) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler

    package = Path(torch.__path__[0])
    include = [f"-I{package / folder}" for folder in ("include", "include/torch/csrc/api/include")]
    # PyTorch's own kind of strings and lists, or its symbols are not found.
    kind = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    command = [get_cpp_compiler(), *FLAGS, kind, *include, str(SOURCE), "-o", str(path), f"-L{package / 'lib'}"]
    done = subprocess.run([*command, "-lc10", "-ltorch_cpu"], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise CompilerError(f"{command[0]} cannot compile {SOURCE.name}: {reason(CompilerError(done.stderr))}")


def convolve(spec: Convolution, distance: Tensor, angular: Tensor | None, features: Tensor) -> Tensor:
    """Return what :class:`ase_cg.inference.convolution.Convolution` does."""
    result: Tensor = _Convolve.apply(distance, angular, features, spec)  # type: ignore[no-untyped-call]
    return result


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, distance: Tensor, angular: Tensor | None, features: Tensor, spec: Convolution) -> Tensor:
        given = distance.new_empty(0) if angular is None else angular.contiguous()
        ctx.save_for_backward(distance, given, features)
        ctx.spec = spec
        table = spec.table
        result: Tensor = torch.ops.ase_cg.convolve(
            distance,
            given,
            features,
            table.rows,
            spec.numbers,
            spec.coefficients,
            spec.n_out,
            table.intervals,
            table.n_functions,
            table.per_angstrom,
        )
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        distance, angular, features = ctx.saved_tensors
        spec: Convolution = ctx.spec
        table = spec.table
        to_distance, to_angular, to_features = torch.ops.ase_cg.convolve_backward(
            gradients[0].contiguous(),
            distance,
            angular,
            features,
            table.rows,
            spec.numbers,
            spec.coefficients,
            table.intervals,
            table.n_functions,
            table.per_angstrom,
            ctx.needs_input_grad[2],
        )
        return (
            to_distance,
            to_angular if ctx.needs_input_grad[1] else None,
            to_features if ctx.needs_input_grad[2] else None,
            None,
        )


def _shape(*given: Any) -> Tensor:
    distance, _, features, rows, _, _, outputs = given[:7]
    made: Tensor = features.new_empty(outputs, *distance.shape[:2], rows.shape[1])
    return made


def _backward_shapes(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    _, distance, angular, features, rows = given[:5]
    k = len(features) if given[-1] else 0
    made = features.new_empty(k, *distance.shape[:2], rows.shape[1])
    # Whatever the strides of those.
    return distance.new_empty(distance.shape), angular.new_empty(angular.shape), made
