"""A model compiled for one topology: what is made once, and called at every step."""

import dataclasses
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
from ase_cg.devices import find_device
from ase_cg.errors import InputError
from ase_cg.files import written_whole
from ase_cg.inference import cache, native
from ase_cg.inference.dense import DenseModel
from ase_cg.inference.export import Function, Replay, fused, has_compiler, read_package, write_package
from ase_cg.inference.gate import GATE, Gate
from ase_cg.models.model import DTYPES, CGModel
from ase_cg.progress import waiting

Advanced = tuple[Tensor, Tensor, Tensor, Tensor]
Step = Callable[[Tensor, Tensor, Tensor, Tensor], Advanced]

INTERVALS = (32, 64, 128, 256, 512, 1024)
CHUNK_BEADS = 640  # beads a processor's cache holds the features of
MAX_CHUNK = 32  # replicas
MAX_BEADS = 1000  # all pairs in memory beyond this are too many


class CompiledModel:
    """Energies and forces of R replicas of one molecule, and whole time steps, compiled.

    Made by :func:`compile_model`. Replicas are evaluated in chunks that fit the processor's cache.

    Attributes
    ----------
    topology : BeadTopology
    replicas : int
    form : {"compiled", "eager"}
        Eager where there is no C++ compiler.
    force_error : float
        Relative error of the forces against the model in double precision, measured on frames.
    """

    def __init__(
        self, dense: DenseModel, topology: BeadTopology, replicas: int, chunk: int, key: dict[str, Any]
    ) -> None:
        self.topology = topology
        self.replicas = replicas
        self._shape = (replicas, topology.n_beads, 3)
        self.chunk = chunk
        self.form = "eager"
        self.force_error = math.nan
        self._dense = dense
        self._key = key
        self._evaluate: Function = dense.energy_and_forces
        self._quiet = False

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._dense.itself.device

    def energy_and_forces(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return energies (R,) in eV and forces (R, N, 3) in eV/Å at positions (R, N, 3) in Å, in double precision."""
        # Compiled code does not look: it would read beyond the positions, or other bytes as numbers.
        if positions.shape != self._shape or positions.dtype != torch.float64:
            raise InputError(
                f"positions must be a double-precision tensor of shape {self._shape}, not {positions.dtype} of shape "
                f"{tuple(positions.shape)}"
            )
        positions = positions.contiguous()
        if self.replicas == self.chunk:
            energies, forces = self._evaluate(positions)
            return energies, forces
        energies, forces = _joined([self._evaluate(*part) for part in self._chunks(positions)], self.replicas)
        return energies, forces

    def energy_and_forces_of(self, positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return energy in eV and forces in eV/Å, shape (N, 3), of one replica at positions (N, 3) in Å."""
        given = torch.from_numpy(np.ascontiguousarray(positions, dtype=np.float64))[None]
        if self.device.type != "cpu":
            given = given.to(self.device)
        energies, forces = self._evaluate(given)
        return energies.item(), forces[0].cpu().numpy()

    @property
    def chunk_function(self) -> Function:
        """The function of one chunk of replicas: positions to energies and forces."""
        return self._evaluate

    def compile(self, what: str, *, quiet: bool) -> None:
        """Put compiled code in the place of PyTorch's operations; `what` is named in the progress line."""
        self._quiet = quiet
        self._evaluate = _compiled(self._evaluate, [self._example()], self.device, self._key, what, quiet=quiet)
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
            result: tuple[Tensor, ...] = own.advance(x, v, f, noise, self._dense.energy_and_forces)
            return result

        run: Function = step
        if self.form == "compiled":
            # Each its own tensor: the tracer takes one tensor in two places for one input.
            example = self._example()
            examples = [example, *[torch.zeros_like(example) for _ in range(3)], packed[0]]
            key = self._key | {"step": type(integrator).__qualname__, "parameters": parameters.layout}
            run = _compiled(
                step, examples, self.device, key, "a time step", quiet=self._quiet if quiet is None else quiet
            )

        if len(packed) == 1:
            only = packed[0]
            return lambda x, v, f, noise: cast("Advanced", run(x, v, f, noise, only))

        def stepped(x: Tensor, v: Tensor, f: Tensor, noise: Tensor) -> Advanced:
            parts = zip(self._chunks(x, v, f, noise), packed, strict=True)
            return cast("Advanced", _joined([run(*part, numbers) for part, numbers in parts], self.replicas))

        return stepped

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


class Parameters:
    """The numbers of an integrator as one tensor, so that the compiled step takes one input for them.

    Parameters
    ----------
    integrator : dataclass
        The floats and tensors it is made of are its numbers; tensors of shape (R, 1, 1) differ among replicas.
        Constants it makes of them itself are made again within the compiled step.
    replicas : int
        R.
    device : torch.device
    """

    def __init__(self, integrator: Any, replicas: int, device: torch.device) -> None:
        self._integrator = integrator
        fields = {field.name: getattr(integrator, field.name) for field in dataclasses.fields(integrator) if field.init}
        self._values = {
            name: torch.as_tensor(value, dtype=torch.float64, device=device)
            for name, value in fields.items()
            if isinstance(value, float | Tensor)
        }
        self._differ = [name for name, value in self._values.items() if value.shape == (replicas, 1, 1)]

    @property
    def layout(self) -> list[Any]:
        """Names and shapes of the numbers, and which of them differ among replicas."""
        shapes = {name: [] if name in self._differ else list(value.shape) for name, value in self._values.items()}
        return [shapes, self._differ]

    def packed(self, start: int, chunk: int) -> Tensor:
        """Return the numbers of a chunk of replicas, its end filled up with its first replica's."""
        parts = []
        for name, value in self._values.items():
            own = value
            if name in self._differ:
                own = value[start : start + chunk]
                own = torch.cat([own, own[:1].expand(chunk - len(own), 1, 1)])
            parts.append(own.reshape(-1))
        return torch.cat(parts)

    def restored(self, numbers: Tensor, chunk: int) -> Any:
        """Return the integrator of a chunk of replicas with the numbers of a packed tensor."""
        values = {}
        start = 0
        for name, value in self._values.items():
            shape = (chunk, 1, 1) if name in self._differ else tuple(value.shape)
            size = math.prod(shape)
            values[name] = numbers[start : start + size].reshape(shape)
            start += size
        return dataclasses.replace(self._integrator, **values)


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
    checked = _frames(model, topology, frames)
    gauge = Gate(model, topology, checked, gate, where)
    chunk = _chunk(replicas, topology.n_beads) if where.type == "cpu" else replicas
    key = {
        "model": model_hash(model),
        "topology": topology.to_dict(),
        "chunk": chunk,
        "device": str(where) if where.type == "cpu" else torch.cuda.get_device_name(where),
        "dtype": dtype,
    }
    compiler = where.type != "cpu" or has_compiler()
    natively = compiler and where.type == "cpu" and topology.n_beads >= native.SMALLEST and native.load(quiet=quiet)
    dense, intervals, error = _tabulated(model, topology, chunk, dtype, where, gauge, native=natively)
    compiled = CompiledModel(dense, topology, replicas, chunk, key | {"intervals": intervals, "native": natively})
    compiled.force_error = error
    if not compiler:
        warnings.warn(
            "no C++ compiler was found, so PyTorch evaluates the model operation by operation, several times slower; "
            "install g++",
            UserWarning,
            stacklevel=2,
        )
        return compiled
    what = f"{model.backbone_name or 'priors'} of {topology.n_beads} beads × {chunk} replicas"
    compiled.compile(what, quiet=quiet)
    compiled.force_error = gauge.error(compiled.chunk_function, chunk)
    if not compiled.force_error <= gate:
        raise InputError(
            f"the compiled forces differ from the model's by {compiled.force_error:.1e}, above the gate of {gate:.1e}; "
            "clear the cache with `ase-cg cache --clear`, or do without compiling"
        )
    return compiled


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


def _frames(model: CGModel, topology: BeadTopology, frames: ArrayLike | None) -> NDArray[np.float64]:
    if frames is None:
        frames = model.frames_of(topology)
    if frames is None:
        raise InputError(
            "the model's file holds no frames of its data to check the compiled forces with; give frames=…, positions "
            "of shape (F, N, 3) in Å"
        )
    found = np.asarray(frames, dtype=float)
    if found.ndim == 2:
        found = found[None]
    if found.ndim != 3 or found.shape[1:] != (topology.n_beads, 3) or not len(found):
        raise InputError(f"frames of shape {found.shape} do not fit (F, {topology.n_beads}, 3)")
    if not np.isfinite(found).all():
        raise InputError("the frames to check the compiled forces with have positions that are no numbers")
    return found


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
    *,
    native: bool,
) -> tuple[DenseModel, int, float]:
    """Return the form with the smallest tables that passes the gate."""
    error = math.inf
    for intervals in INTERVALS:
        dense = DenseModel(model, topology, chunk, getattr(torch, dtype), intervals, device, native=native)
        error = gauge.error(dense.energy_and_forces, chunk)
        if error <= gauge.limit:
            return dense, intervals, error
    raise InputError(
        f"the tabulated forces differ from the model's by {error:.1e} in {dtype}, above the gate of {gauge.limit:.1e}; "
        "ask for a looser gate, for float64, or do without compiling"
    )


def _compiled(
    function: Function,
    examples: list[Tensor],
    device: torch.device,
    key: dict[str, Any],
    what: str,
    *,
    quiet: bool,
) -> Function:
    """Return a function compiled, from the cache where it is there."""
    if device.type == "cuda":
        with waiting(f"Compiling {what}", quiet=quiet):
            return Replay(fused(function, examples), examples)
    place = cache.entry(cache.make_key(**key))
    if (kept := _kept(place)) is not None:
        return kept
    cache.make_folder(place.package.parent)
    with waiting(f"Compiling {what}, once: it is kept for the next time", quiet=quiet), place.alone():
        if (kept := _kept(place)) is not None:  # another process made it in the meantime
            return kept
        with written_whole(place.package, overwrite=True) as partial:
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


def _joined(parts: list[tuple[Tensor, ...]], replicas: int) -> tuple[Tensor, ...]:
    return tuple(torch.cat(tensors)[:replicas] for tensors in zip(*parts, strict=True))
