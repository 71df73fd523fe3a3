"""One function of tensors as one compiled graph: a package of native code on a CPU, a replayed capture on a GPU."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ase_cg.errors import reason

Function = Callable[..., tuple[Tensor, ...]]

# One thread: the work is small, and threads that wait for each other cost more than they bring. Concatenations are
# written to memory: computed within the loops that read them, they would keep these from being vectorized.
INDUCTOR = {
    "cpp.threads": 1,
    "assert_indirect_indexing": False,
    "max_pointwise_cat_inputs": 1,
    # PyTorch keeps precompiled headers in the shared temporary folder, whatever TORCHINDUCTOR_CACHE_DIR says.
    "aot_inductor.precompile_headers": False,
    "cpp_cache_precompile_headers": False,
}


class CompilerError(RuntimeError):
    """There is no C++ compiler, or it fails: the message says so in half a sentence."""


def has_compiler() -> bool:
    """Return whether there is a C++ compiler where PyTorch looks for it: ``$CXX``, else ``g++``."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):
        return False
    return True


def traced(function: Function, examples: Sequence[Tensor]) -> torch.fx.GraphModule:
    """Return a function, derivatives within it included, as one graph of PyTorch's elementary operations."""
    from torch.fx.experimental.proxy_tensor import make_fx

    graph: torch.fx.GraphModule = make_fx(lambda *inputs: function(*inputs))(*examples)  # noqa: PLW0108 - of a method it counts self as an input
    return graph


def write_package(function: Function, examples: Sequence[Tensor], path: Path) -> None:
    """Compile a function for tensors like `examples` to native code, in a package (.pt2) at `path`.

    Raises
    ------
    CompilerError
        If the C++ compiler fails.
    """
    from torch._inductor.exc import CppCompileError

    with warnings.catch_warnings():
        # PyTorch warns of its own internals.
        warnings.simplefilter("ignore")
        program = torch.export.export(traced(function, examples), tuple(examples))
        try:
            torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=INDUCTOR)  # noqa: SLF001 - AOTInductor has no other address
        except RuntimeError as error:
            if not isinstance(getattr(error, "inner_exception", error), CppCompileError):
                raise
            raise CompilerError(f"the C++ compiler fails ({reason(error)})") from error


def read_package(path: Path) -> Function:
    """Return the function in a package."""
    loaded: Any = torch._inductor.aoti_load_package(str(path))  # noqa: SLF001 - as above
    run = loaded.loader.run

    # The loader itself is called: what PyTorch wraps around it costs more than a small molecule.
    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(run(list(inputs)))

    return function


class Replay:
    """A function captured once, with its memory, and replayed: no time is spent on launching its parts.

    Parameters
    ----------
    function : callable
        Of tensors of fixed shapes, on one device.
    examples : sequence of Tensor
    capture : callable, optional
        Takes a function without arguments, runs it, and returns what runs it again on the same memory; by default
        the capture of a CUDA graph.
    """

    def __init__(
        self,
        function: Function,
        examples: Sequence[Tensor],
        capture: Callable[[Callable[[], None]], Callable[[], None]] | None = None,
    ) -> None:
        self._inputs = [example.clone() for example in examples]
        self._outputs: tuple[Tensor, ...] = ()

        def run() -> None:
            self._outputs = function(*self._inputs)

        self._replay = (capture or capture_cuda)(run)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return what the function gives for new inputs; the results are the caller's own."""
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given)
        self._replay()
        return tuple(output.clone() for output in self._outputs)


def capture_cuda(run: Callable[[], None]) -> Callable[[], None]:
    """Capture a CUDA graph of a function and return what replays it."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # libraries choose their algorithms, and the compiler compiles, before the capture
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def fused(function: Function, examples: Sequence[Tensor]) -> Function:
    """Return a function with its elementary operations fused by PyTorch's compiler for the device."""
    graph = traced(function, examples)
    compiled: Function = torch.compile(graph, dynamic=False)
    return compiled
