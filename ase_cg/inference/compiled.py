"""A model compiled for one topology: what is made once, and called at every step."""

import hashlib
import json
import math
import warnings
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import n_pairs
from ase_cg.devices import find_device
from ase_cg.errors import GateError, InputError
from ase_cg.inference import native
from ase_cg.inference.close_beads import CloseBeads
from ase_cg.inference.dense import DenseModel
from ase_cg.inference.export import CompilerError, Function, has_compiler
from ase_cg.inference.gate import GATE, SHARES, Gate, frames_to_check
from ase_cg.inference.packages import compiled_function
from ase_cg.inference.parameters import Parameters
from ase_cg.models.model import DTYPES, CGModel
from ase_cg.threads import threads_for

Advanced = tuple[Tensor, Tensor, Tensor, Tensor]
Step = Callable[[Tensor, Tensor, Tensor, Tensor], Advanced]
INPUTS = ("positions", "velocities", "forces", "noise")

INTERVALS = (32, 64, 128, 256, 512, 1024)
CHUNK_BEADS = 640  # beads a processor's cache holds the features of
MAX_CHUNK = 32  # replicas
MAX_BEADS = 1000  # all pairs in memory beyond this are too many


class CompiledModel:
    """Energies and forces of R replicas of one molecule, and whole time steps, compiled.

    Made by :func:`compile_model`. Replicas are evaluated in chunks that fit the processor's cache. Those with beads
    closer than :attr:`closest` are evaluated by the model itself, and so is a step that leads there; a warning says so
    once. On a GPU steps go on, and :meth:`report` warns.

    Attributes
    ----------
    topology : BeadTopology
    replicas : int
    form : {"compiled", "eager"}
        Eager where there is no C++ compiler.
    force_error : float
        Relative error of the forces against the model in double precision, measured on frames.
    closest : float
        Distance between beads in Å down to which the error is below the gate.
    """

    def __init__(
        self,
        dense: DenseModel,
        topology: BeadTopology,
        replicas: int,
        chunk: int,
        key: dict[str, Any],
        close: CloseBeads,
    ) -> None:
        self.topology = topology
        self.replicas = replicas
        self._shape = (replicas, topology.n_beads, 3)
        self.chunk = chunk
        self.form = "eager"
        self.force_error = math.nan
        self._dense = dense
        self._key = key
        self._evaluate: Function = dense.energy_forces_and_nearest
        self.close = close
        self.looks_at_steps = self.device.type == "cpu"  # a GPU would have to be waited for
        self._quiet = False
        self._pairs = self.chunk * n_pairs(topology.n_beads)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._dense.itself.device

    def energy_and_forces(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (R,) in eV and forces (R, N, 3) in eV/Å at positions (R, N, 3) in Å, in double precision."""
        positions = self._checked(positions, "positions")
        with threads_for(self._pairs):
            if self.replicas == self.chunk:
                energies, forces, nearest = self._evaluate(positions)
            else:
                parts = [self._evaluate(*part) for part in self._chunks(positions)]
                energies, forces = _joined([part[:2] for part in parts], self.replicas)
                nearest = _least(parts)
        return self.close.exact(positions, energies, forces) if self.close.within(nearest) else (energies, forces)

    def energy_and_forces_of(self, positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return energy in eV and forces in eV/Å, shape (N, 3), of one replica at positions (N, 3) in Å."""
        given = self._checked(torch.from_numpy(np.ascontiguousarray(positions, dtype=np.float64))[None], "positions")
        if self.device.type != "cpu":
            given = given.to(self.device)
        with threads_for(self._pairs):
            energies, forces, nearest = self._evaluate(given)
        if self.close.within(nearest):
            energies, forces = self.close.exact(given[:1], energies[:1], forces[:1])
        return energies.item(), forces[0].cpu().numpy()

    @property
    def chunk_function(self) -> Function:
        """The function of one chunk of replicas: positions to energies and forces, of close beads as well."""
        return lambda positions: self._evaluate(positions)[:2]

    @property
    def closest(self) -> float:
        """Distance between beads in Å down to which the error of the forces is below the gate."""
        return self.close.limit

    def report(self) -> None:
        """Warn, once, if steps on a GPU have brought beads closer than :attr:`closest`."""
        self.close.report()

    def compile(self, what: str, *, quiet: bool) -> None:
        """Put compiled code in the place of PyTorch's operations; `what` is named in the progress line."""
        self._quiet = quiet
        self._evaluate = compiled_function(self._evaluate, [self._example()], self.device, self._key, what, quiet=quiet)
        self.form = "compiled"

    def make_step(self, integrator: Any, *, quiet: bool | None = None) -> Step:
        """Compile a whole time step.

        Parameters
        ----------
        integrator : dataclass
            With ``advance(positions, velocities, forces, noise, energy_and_forces)``, a function of tensors. Its
            numbers and tensors become one input of the compiled code, see :class:`Parameters`.
        quiet : bool, optional
            By default as the model was compiled.

        Returns
        -------
        callable
            Maps positions, velocities, forces and noise, each (R, N, 3), to positions, velocities, forces and
            energies (R,) one step later.
        """
        parameters = Parameters(integrator, self.replicas, self.device)
        packed = [parameters.packed(start, self.chunk) for start in range(0, self.replicas, self.chunk)]

        def step(x: Tensor, v: Tensor, f: Tensor, noise: Tensor, numbers: Tensor) -> tuple[Tensor, ...]:
            own = parameters.restored(numbers, self.chunk)
            distances = []

            def evaluate(positions: Tensor) -> tuple[Tensor, Tensor]:
                energies, forces, nearest = self._dense.energy_forces_and_nearest(positions)
                distances.append(nearest)
                return energies, forces

            result: tuple[Tensor, ...] = own.advance(x, v, f, noise, evaluate)
            return *result, torch.stack(distances).amin()

        run: Function = step
        if self.form == "compiled":
            # Each its own tensor: the tracer takes one tensor in two places for one input.
            example = self._example()
            examples = [example, *[torch.zeros_like(example) for _ in range(3)], packed[0]]
            key = self._key | {"step": type(integrator).__qualname__, "parameters": parameters.layout}
            silent = self._quiet if quiet is None else quiet
            try:
                run = compiled_function(step, examples, self.device, key, "a time step", quiet=silent)
            except CompilerError as error:
                _say_slow(f"{error}, so PyTorch steps operation by operation", stacklevel=3)

        def stepped(x: Tensor, v: Tensor, f: Tensor, noise: Tensor) -> Advanced:
            given = [self._checked(tensor, name) for tensor, name in zip((x, v, f, noise), INPUTS, strict=True)]
            if len(packed) == 1:
                *advanced, nearest = run(*given, packed[0])
            else:
                parts = [run(*part, own) for part, own in zip(self._chunks(*given), packed, strict=True)]
                advanced, nearest = list(_joined([part[:-1] for part in parts], self.replicas)), _least(parts)
            if not self.looks_at_steps:
                self.close.note(nearest)
            elif self.close.within(nearest):
                return cast("Advanced", integrator.advance(*given, self.energy_and_forces))
            return cast("Advanced", tuple(advanced))

        return stepped

    def _checked(self, tensor: Tensor, name: str) -> Tensor:
        # Compiled code does not look: it would read beyond the tensor, or other bytes as numbers.
        if tensor.shape != self._shape or tensor.dtype != torch.float64:
            raise InputError(
                f"{name} must be a double-precision tensor of shape {self._shape}, not {tensor.dtype} of shape "
                f"{tuple(tensor.shape)}"
            )
        return tensor.contiguous()

    def _example(self) -> Tensor:
        n = self.topology.n_beads
        line = torch.arange(n, dtype=torch.float64, device=self.device)
        example = torch.stack([3.0 * line, torch.sin(line), torch.cos(2 * line)], dim=-1)
        return example.expand(self.chunk, n, 3).clone()

    def _chunks(self, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
        """Divide tensors (R, …) into chunks of equal size, the last filled up with its first replica."""
        divided = []
        for start in range(0, self.replicas, self.chunk):
            parts = [tensor[start : start + self.chunk] for tensor in tensors]
            missing = self.chunk - len(parts[0])
            if missing:
                parts = [torch.cat([part, part[:1].expand(missing, *part.shape[1:])]) for part in parts]
            divided.append(tuple(parts))
        return divided


def compile_model(
    model: CGModel,
    topology: BeadTopology | None = None,
    *,
    replicas: int = 1,
    device: str = "cpu",
    dtype: str = "float32",
    frames: ArrayLike | None = None,
    gate: float = GATE,
    quiet: bool = False,
) -> CompiledModel:
    """Compile a model for replicas of one molecule; see :meth:`ase_cg.models.model.CGModel.compile`."""
    topology = topology or model.only_topology()
    where = find_device(device)
    _check(replicas, dtype, gate, topology)
    gauge = Gate(model, topology, frames_to_check(model, topology, frames), gate, where)
    chunk = _chunk(replicas, topology.n_beads) if where.type == "cpu" else replicas
    key = {
        "model": model_hash(model),
        "topology": topology.to_dict(),
        "chunk": chunk,
        "device": str(where) if where.type == "cpu" else torch.cuda.get_device_name(where),
        "dtype": dtype,
    }
    compiler = where.type != "cpu" or has_compiler()
    large = topology.n_beads >= native.SMALLEST
    simple = model.backbone_name == "schnet" and chunk * topology.n_beads >= native.SIMPLE_BEADS
    natively = compiler and where.type == "cpu" and (large or simple) and native.load(quiet=quiet)
    how = {"native": natively, "simple_only": natively and not large}
    dense, intervals, error = _tabulated(model, topology, chunk, dtype, where, gauge, **how)
    close = CloseBeads(model, topology, gauge.closest(dense.energy_and_forces, chunk), where, dtype)
    compiled = CompiledModel(dense, topology, replicas, chunk, key | {"intervals": intervals} | how, close)
    compiled.force_error = error
    what = f"{model.backbone_name or 'priors'} of {topology.n_beads} beads × {chunk} replicas"
    try:
        if not compiler:
            raise CompilerError("no C++ compiler was found")  # noqa: TRY301 - the same notice as of one that fails
        compiled.compile(what, quiet=quiet)
    except CompilerError as error:
        _say_slow(f"{error}, so PyTorch evaluates the model operation by operation", stacklevel=3)
        return compiled
    compiled.force_error = gauge.error(compiled.chunk_function, chunk)
    if not compiled.force_error <= gate:
        raise GateError(
            f"the compiled forces differ from the model's by {compiled.force_error:.1e}, above the gate of {gate:.1e}; "
            "clear the cache with `ase-cg cache --clear`, or do without compiling"
        )
    return compiled


def _say_slow(what: str, *, stacklevel: int) -> None:
    warnings.warn(f"{what}, several times slower; install g++", UserWarning, stacklevel=stacklevel + 1)


def model_hash(model: CGModel) -> str:
    """Return a hash of what a model computes: weights, architecture and priors."""
    digest = hashlib.sha256()
    backbone = model.backbone
    described = {
        "vocabulary": model.vocabulary,
        "backbone": [model.backbone_name, {} if backbone is None else backbone.hyper_parameters],
        "priors": {str(name): term.settings for name, term in model.priors.terms.items()},
    }
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    for part in (model.priors, *([] if backbone is None else [backbone])):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _check(replicas: int, dtype: str, gate: float, topology: BeadTopology) -> None:
    if replicas < 1:
        raise InputError(f"the number of replicas must be at least 1, not {replicas}")
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}; known are {', '.join(DTYPES)}")
    if not 0 < gate < 1:
        raise InputError(f"the gate must be a relative force error between 0 and 1, not {gate!r}")
    check_size(topology)


def check_size(topology: BeadTopology) -> None:
    """Raise :class:`InputError` if a molecule is too large to be compiled."""
    if topology.n_beads > MAX_BEADS:
        raise InputError(
            f"a molecule of {topology.n_beads} beads is too large to be compiled, which keeps all pairs; the limit is "
            f"{MAX_BEADS} beads"
        )


def _chunk(replicas: int, n_beads: int) -> int:
    """Return how many replicas are evaluated at once: as even a division as possible."""
    most = max(1, min(MAX_CHUNK, CHUNK_BEADS // n_beads))
    return math.ceil(replicas / math.ceil(replicas / most))


def _tabulated(
    model: CGModel,
    topology: BeadTopology,
    chunk: int,
    dtype: str,
    device: torch.device,
    gauge: Gate,
    **how: bool,
) -> tuple[DenseModel, int, float]:
    """Return the form with the smallest tables that passes the gate, also with beads closer than in the frames.

    Where none does the latter, that with the smallest tables that passes on the frames.
    """
    error, passed = math.inf, None
    for intervals in INTERVALS:
        dense = DenseModel(model, topology, chunk, getattr(torch, dtype), intervals, device, **how)
        error = gauge.error(dense.energy_and_forces, chunk)
        if error <= gauge.limit:
            passed = passed or (dense, intervals, error)
            if gauge.error_closer(dense.energy_and_forces, chunk, SHARES[0]) <= gauge.limit:
                return dense, intervals, error
    if passed:
        return passed
    raise GateError(
        f"the tabulated forces differ from the model's by {error:.1e} in {dtype}, above the gate of {gauge.limit:.1e}; "
        "ask for a looser gate, for float64, or do without compiling"
    )


def _least(parts: list[tuple[Tensor, ...]]) -> Tensor:
    """Return the least of the distances that each part has as its last."""
    return torch.stack([part[-1] for part in parts]).amin()


def _joined(parts: list[tuple[Tensor, ...]], replicas: int) -> tuple[Tensor, ...]:
    return tuple(torch.cat(tensors)[:replicas] for tensors in zip(*parts, strict=True))
