"""The coarse-grained model as an ASE calculator."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
    compare_atoms,
)
from numpy.typing import NDArray

from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError, SimulationError, hint
from ase_cg.keys import BEAD_NAME, BEAD_TYPE, MAX_FORCE
from ase_cg.temperature_watch import TemperatureWatch

if TYPE_CHECKING:
    from ase_cg.data.graph import BeadGraph
    from ase_cg.models.model import CGModel

PARAMETERS = ("model", "device", "dtype", "priors")
CENTRE_AT_REST = 1e-4  # of the largest momentum; single-precision forces let the sum drift by 1e-6
PRIOR_CHOICES = ("simulation", "training")


class CGCalculator(Calculator):
    """A coarse-grained free-energy surface under ASE's dynamics, optimizers and filters.

    Parameters
    ----------
    model : CGModel or path
        A ``.safetensors`` model file, or a model in memory.
    topology : BeadTopology or path, optional
        Bonds of the beads; a structure file (PDB, …) is read at the model's resolution. Not needed for
        molecules the model was trained on.
    device : str
        ``"cpu"`` or ``"cuda"``.
    dtype : {"float32", "float64"}
        Of the evaluation; ``"float64"`` for finite differences and tight minimisation.
    priors : {"simulation", "training"}
        For models with sharpened priors: those of simulation, or those the network was trained with.

    Attributes
    ----------
    term_energies : dict of str to float
        Energies of the terms (priors and network) in eV, of the last evaluation.

    Raises
    ------
    InputError
        If the model cannot be read, the device is not there, or a name is not known.

    Notes
    -----
    Beads are recognised by ``atoms.arrays["bead_type"]``, or by ``atoms.numbers − 1`` where a file format has
    dropped it; ``atoms.arrays["bead_name"]``, where present, must agree. Properties: ``energy`` and
    ``free_energy`` in eV, ``forces`` in eV/Å, ``energies`` (each bead's share of every term), and ``stress``
    where the cell is periodic in all directions.

    A molecule at another temperature than that of the model's data draws one warning, once its kinetic
    temperature is known well enough.

    Examples
    --------
    >>> atoms = ase_cg.read_beads("ala2.pdb", model)  # doctest: +SKIP
    >>> atoms.calc = CGCalculator("ala2.safetensors")  # doctest: +SKIP
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "energies", "forces", "stress"]
    default_parameters: ClassVar[dict[str, Any]] = {"device": "cpu", "dtype": "float32", "priors": "simulation"}
    discard_results_on_any_change = True

    def __init__(
        self,
        model: "CGModel | str | os.PathLike[str]",
        *,
        topology: BeadTopology | str | os.PathLike[str] | None = None,
        device: str = "cpu",
        dtype: Literal["float32", "float64"] = "float32",
        priors: Literal["simulation", "training"] = "simulation",
    ) -> None:
        from ase_cg.models.model import CGModel

        path = None if isinstance(model, CGModel) else str(model)
        self._loaded = path
        self._source = model if isinstance(model, CGModel) else CGModel.load(model)
        self._given_topology = _read_given_topology(topology, self._source)
        self.term_energies: dict[str, float] = {}
        self._graphs: dict[tuple[int, ...], tuple[BeadGraph, BeadTopology]] = {}
        self._last_good: NDArray[np.float64] | None = None
        self._watch = TemperatureWatch(self._source.card.temperature)
        super().__init__(model=path, device=device, dtype=dtype, priors=priors)

    @property
    def model(self) -> "CGModel":
        """The model, as it was given or loaded."""
        return self._source

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Change parameters; results are forgotten and the model is prepared again."""
        if "model" in kwargs and kwargs["model"] is not None:
            if not isinstance(kwargs["model"], str | os.PathLike):
                raise InputError("set(model=…) takes the path of a model file; for a model in memory make a calculator")
            kwargs["model"] = str(kwargs["model"])
        elif "model" in kwargs and self._loaded is not None:
            raise InputError("set(model=None) means nothing: give the path of a model file")
        wanted = {**self.parameters, **kwargs}
        unknown = [key for key in kwargs if key not in PARAMETERS]
        if unknown:
            raise InputError(f"CGCalculator has no parameter {unknown[0]!r}; {hint(unknown[0], PARAMETERS)}")
        if wanted.get("priors") not in PRIOR_CHOICES:
            raise InputError(f"unknown priors {wanted.get('priors')!r}; known are {', '.join(PRIOR_CHOICES)}")
        source, watch = self._source, self._watch
        if wanted.get("model") is not None and wanted["model"] != self._loaded:
            from ase_cg.models.model import CGModel

            source = CGModel.load(wanted["model"])
            watch = TemperatureWatch(source.card.temperature)
        # Prepared before anything is changed: a call that fails leaves the calculator as it was.
        prepared = _prepared(source, wanted)
        changed: dict[str, Any] = super().set(**kwargs)
        if changed:
            self.reset()
            self._source, self._watch, self._model = source, watch, prepared
            self._loaded = wanted.get("model")
            self._graphs.clear()
        return changed

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """Return the JSON-safe parameters."""
        described: dict[str, Any] = super().todict(skip_default)
        return described

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what has changed since the last evaluation, bead types included."""
        changes: list[str] = compare_atoms(self.atoms, atoms, tol=tol)
        if self.atoms is not None and "numbers" not in changes:
            before, now = self.atoms.arrays.get(BEAD_TYPE.name), atoms.arrays.get(BEAD_TYPE.name)
            if (before is None) != (now is None) or (now is not None and not np.array_equal(before, now)):
                changes.append("numbers")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Evaluate all properties of the beads; see :class:`ase.calculators.calculator.Calculator`."""
        super().calculate(atoms, properties, system_changes)
        beads = self.atoms
        full_cell = bool(beads.pbc.all()) and beads.cell.rank == 3
        if "stress" in properties and not full_cell:
            raise PropertyNotImplementedError("stress needs a cell that is periodic in all three directions")
        positions = beads.get_positions()
        if not np.isfinite(positions).all():
            self._fail(positions, "has a position that is no number")
        graph, topology = self._graph(beads)
        self.results = self._evaluate(graph, beads, with_stress=full_cell)
        forces = self.results["forces"]
        if not np.isfinite(forces).all() or np.abs(forces).max(initial=0.0) > MAX_FORCE:
            self.results = {}
            self._fail(forces, f"feels a force that is no number or above {MAX_FORCE:g} eV/Å", topology)
        self._last_good = positions
        self._warn_of_temperature(beads)

    def _evaluate(self, graph: "BeadGraph", beads: Atoms, *, with_stress: bool) -> dict[str, Any]:
        import torch

        with torch.enable_grad():
            positions = graph.positions.requires_grad_(True)
            strain = torch.zeros(3, 3, dtype=positions.dtype, device=positions.device)
            strained, inputs = graph, [positions]
            if with_stress and graph.cell is not None:
                strain.requires_grad_(True)
                symmetric = (strain + strain.T) / 2
                strained = graph._replace(
                    positions=positions + positions @ symmetric, cell=graph.cell + graph.cell @ symmetric
                )
                inputs = [positions, strain]
            shares = self._model.bead_energies_by_term(strained)
            energies = torch.stack(list(shares.values())).sum(0)
            gradients = torch.autograd.grad(energies.sum(), inputs)
        per_bead = energies.detach().cpu().double().numpy()
        self.term_energies = {name: float(share.detach().sum()) for name, share in shares.items()}
        energy = float(per_bead.sum())
        results: dict[str, Any] = {
            "energy": energy,
            "free_energy": energy,
            "energies": per_bead,
            "forces": -gradients[0].cpu().double().numpy(),
        }
        if with_stress:
            from ase.stress import full_3x3_to_voigt_6_stress

            virial = gradients[1].cpu().double().numpy()
            results["stress"] = full_3x3_to_voigt_6_stress(virial / beads.get_volume())
        return results

    def _graph(self, beads: Atoms) -> "tuple[BeadGraph, BeadTopology]":
        """Return the graph at the beads' positions; all but the positions is made once per topology."""
        import torch

        from ase_cg.data.neighbors import ALL_PAIRS_LIMIT, NeighborList

        types = self._types(beads)
        key = tuple(types.tolist())
        if key not in self._graphs:
            topology = self._find_topology(key)
            self._graphs[key] = (self._model.graph(topology), topology)
            self._neighbors = NeighborList(self._model.cutoff)
        graph, topology = self._graphs[key]
        absolute = beads.get_positions()
        dtype, device = graph.positions.dtype, graph.positions.device
        periodic = bool(beads.pbc.any())
        if periodic or len(beads) > ALL_PAIRS_LIMIT:
            cell = np.where(beads.pbc[:, None], beads.cell.array, 0.0)
            edges, images = self._neighbors.edges(absolute, cell, beads.pbc)
            graph = graph._replace(edges=edges.to(device))
            if periodic:
                graph = graph._replace(
                    cell=torch.as_tensor(cell[None], dtype=dtype, device=device),
                    edge_images=images.to(device, dtype),
                )
        # Far from the origin single precision would be lost on the distance travelled.
        absolute = absolute - absolute.mean(0)
        return graph._replace(positions=torch.as_tensor(absolute, dtype=dtype, device=device)), topology

    def _types(self, beads: Atoms) -> NDArray[np.int64]:
        vocabulary = self._model.vocabulary
        types: NDArray[np.int64] | None = beads.arrays.get(BEAD_TYPE.name)
        if types is None:
            types = self._types_of_numbers(beads.numbers)
        if len(types) == 0 or types.min() < 0 or types.max() >= len(vocabulary):
            raise InputError(
                f"the {len(types)} atoms are no beads of this model, which knows {len(vocabulary)} types; "
                "make them with ase_cg.read_beads(path, model)"
            )
        names = beads.arrays.get(BEAD_NAME.name)
        if names is not None:
            known = np.array(vocabulary)[types]
            wrong = np.flatnonzero(known != names)
            if len(wrong):
                bead = int(wrong[0])
                raise InputError(
                    f"bead {bead} is called {str(names[bead])!r} but has the number of {str(known[bead])!r} in the "
                    "model's vocabulary; make the beads with ase_cg.read_beads(path, model)"
                )
        return types

    def _types_of_numbers(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the types that atomic numbers stand for; where they begin again, the molecule tells."""
        from ase_cg.beads.atoms import MAX_NUMBER, bead_numbers, bead_types

        if len(self._model.vocabulary) > MAX_NUMBER:
            for topology in self._known_topologies():
                types = bead_types(topology.names, self._model.vocabulary)
                if np.array_equal(bead_numbers(types), numbers):
                    return types
        return numbers - 1

    def _known_topologies(self) -> list[BeadTopology]:
        return [self._given_topology] if self._given_topology else list(self._model.card.topologies)

    def _find_topology(self, types: tuple[int, ...]) -> BeadTopology:
        from ase_cg.beads.atoms import bead_types

        for topology in self._known_topologies():
            if tuple(bead_types(topology.names, self._model.vocabulary).tolist()) == types:
                return topology
        raise InputError(
            f"these {len(types)} beads are not a molecule this model was trained on, so their bonds are not known; "
            "give CGCalculator the topology, such as topology='molecule.pdb'"
        )

    def _fail(self, values: NDArray[np.float64], what: str, topology: BeadTopology | None = None) -> None:
        worst = int(np.nan_to_num(np.abs(values), nan=np.inf).max(1).argmax())
        name = topology.names[worst] if topology else self.atoms.arrays.get(BEAD_NAME.name, ["?"] * len(values))[worst]
        since = "; last_good of this error holds the last good frame"
        if self._last_good is None:
            since = "; no frame before it was good"
        raise SimulationError(f"bead {worst} ({name}) {what}{since}", self._last_good)

    def _warn_of_temperature(self, beads: Atoms) -> None:
        if self._watch.decided or not beads.has("momenta"):
            return
        momenta = beads.get_momenta()
        kinetic = 0.5 * float((momenta**2 / beads.get_masses()[:, None]).sum())
        freedom = beads.get_number_of_degrees_of_freedom()
        at_rest = np.abs(momenta.sum(0)).max() < CENTRE_AT_REST * np.abs(momenta).max()
        if at_rest and freedom == 3 * len(beads):
            freedom -= 3  # the centre of mass is held, and by no constraint that ASE has counted already
        message = self._watch.observe(kinetic, max(freedom, 1))
        if message:
            warnings.warn(message, UserWarning, stacklevel=2)


def _prepared(source: "CGModel", parameters: dict[str, Any]) -> "CGModel":
    from ase_cg.devices import find_device
    from ase_cg.models.model import prepared_copy

    return prepared_copy(
        source.with_priors(parameters["priors"]), find_device(parameters["device"]), parameters["dtype"]
    )


def _read_given_topology(
    topology: "BeadTopology | str | os.PathLike[str] | None", model: "CGModel"
) -> BeadTopology | None:
    if topology is None or isinstance(topology, BeadTopology):
        return topology
    from ase_cg.beads.atoms import read_topology

    return read_topology(Path(topology), model.card.resolution)
