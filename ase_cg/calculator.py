"""The coarse-grained model as an ASE calculator."""

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

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
from ase_cg.keys import BEAD_NAME, BEAD_TYPE, COINCIDENT, MAX_BEAD_ENERGY, MAX_FORCE
from ase_cg.recognition import Recognition, given_topology
from ase_cg.snapshot import fixed_state
from ase_cg.temperature_watch import TemperatureWatch

if TYPE_CHECKING:
    from ase_cg.evaluation import EagerEvaluation
    from ase_cg.inference.compiled import CompiledModel
    from ase_cg.models.model import CGModel

PARAMETERS = ("model", "device", "dtype", "priors", "compile")
PRIOR_CHOICES = ("simulation", "training")
WATCH_STRIDE = 10  # evaluations between looks at the kinetic energy
FRAME_SPREAD = 0.05  # Å; about a bond's thermal fluctuation


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
    compile : bool
        Use the compiled form of the model (:meth:`ase_cg.models.model.CGModel.compile`), several to many times faster;
        made at the first evaluation, which takes a minute, and then kept on disk. Its forces agree with the model's to
        1e-5; where beads are closer than was checked, the model itself is evaluated. Periodic systems, ``energies`` and
        ``stress`` are evaluated without it.

    Raises
    ------
    InputError
        If the model cannot be read, the device is not there, or a name is not known; when it is evaluated, if beads
        are periodic along a direction in which the cell has no vector, in a cell in which the images of bonds cannot be
        told apart, or with a term without cutoff.
    SimulationError
        When it is evaluated, if positions, energy or forces are NaN or beyond all reason, or beads lie on one spot.

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
    default_parameters: ClassVar[dict[str, Any]] = {
        "device": "cpu",
        "dtype": "float32",
        "priors": "simulation",
        "compile": False,
    }
    discard_results_on_any_change = True

    def __init__(
        self,
        model: "CGModel | str | os.PathLike[str]",
        *,
        topology: BeadTopology | str | os.PathLike[str] | None = None,
        device: str = "cpu",
        dtype: Literal["float32", "float64"] = "float32",
        priors: Literal["simulation", "training"] = "simulation",
        compile: bool = False,  # noqa: A002 - the word that PyTorch's users know
    ) -> None:
        from ase_cg.models.model import CGModel

        path = None if isinstance(model, CGModel) else str(model)
        self._loaded = path
        self._source = model if isinstance(model, CGModel) else CGModel.load(model)
        self._given_topology = given_topology(topology, self._source.card.resolution)
        self._molecules: dict[tuple[tuple[int, ...], bool], _Molecule] = {}
        self._terms: dict[str, float] | None = {}
        self._state: tuple[Any, ...] | None = None
        self._positions = b""
        self._evaluations = 0
        self._last_good: NDArray[np.float64] | None = None
        self._watch = TemperatureWatch(self._source.card.temperature)
        super().__init__(model=path, device=device, dtype=dtype, priors=priors, compile=compile)

    @property
    def term_energies(self) -> dict[str, float]:
        """Energies of the terms (priors and network) in eV, at the last evaluation; empty where there was none."""
        if not self.results:
            return {}
        if self._terms is None:
            _, self._terms = self._current.eager.results(self.atoms, with_stress=False)
        return self._terms

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
            self._molecules.clear()
            self._find()
        return changed

    def _find(self) -> None:
        given = self._given_topology
        known = [given] if given else list(self._source.card.topologies)
        self._recognition = Recognition(self._model.vocabulary, known)

    def todict(self, skip_default: bool = True) -> dict[str, Any]:
        """Return the JSON-safe parameters."""
        described: dict[str, Any] = super().todict(skip_default)
        return described

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what has changed since the last evaluation, bead types and names included."""
        changes: list[str] = compare_atoms(self.atoms, atoms, tol=tol)
        for key in (BEAD_TYPE, BEAD_NAME):
            if self.atoms is not None and "numbers" not in changes:
                before, now = self.atoms.arrays.get(key.name), atoms.arrays.get(key.name)
                if (before is None) != (now is None) or (now is not None and not np.array_equal(before, now)):
                    changes.append("numbers")
        return changes

    def reset(self) -> None:
        """Forget results."""
        super().reset()
        self._state = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: all but native code, which is found again."""
        return self.__dict__ | {"_terms": self.term_energies, "_state": None, "_molecules": {}, "_current": None}

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return a result by ASE's name, evaluated anew only if what it depends on has changed.

        ASE's own comparison of all arrays takes longer than a small network, and is asked for three times a step. Here
        what a run does not change is compared as bytes, and where only positions have changed, nothing is made anew.
        """
        if atoms is None or self._state is None or self._state != fixed_state(atoms):
            return super().get_property(name, atoms, allow_calculation)
        positions = atoms.arrays["positions"]
        now = positions.tobytes()
        if now != self._positions:
            if not allow_calculation or name not in self.results:
                return super().get_property(name, atoms, allow_calculation)
            self._evaluate_at(atoms, now, eager=name == "energies")
        result = self.results.get(name)
        if result is None:
            return super().get_property(name, atoms, allow_calculation)
        return result.copy() if isinstance(result, np.ndarray) else result

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Evaluate all properties of the beads; see :class:`ase.calculators.calculator.Calculator`."""
        self._state = None
        self.results: dict[str, Any] = {}
        super().calculate(atoms, properties, system_changes)
        beads = self.atoms
        self._full_cell = bool(beads.pbc.all()) and beads.cell.rank == 3
        if "stress" in properties and not self._full_cell:
            raise PropertyNotImplementedError("stress needs a cell that is periodic in all three directions")
        types = tuple(self._recognition.types(beads).tolist())
        key = (types, bool(beads.pbc.any()))
        if key not in self._molecules:
            self._molecules[key] = self._molecule(types, beads)
        self._current = self._molecules[key]
        needs_eager = bool({"energies", "stress"} & set(properties)) or bool(beads.pbc.any())
        self._evaluate(atoms if atoms is not None else beads, eager=needs_eager)
        self._positions = beads.arrays["positions"].tobytes()
        self._state = fixed_state(beads)

    def _molecule(self, types: tuple[int, ...], beads: Atoms) -> "_Molecule":
        from ase_cg.evaluation import EagerEvaluation

        topology = self._recognition.topology(types)
        compiled = None
        if self.parameters["compile"] and not beads.pbc.any():
            source = self._source.with_priors(self.parameters["priors"])
            frames = source.frames_of(topology)
            if frames is None:
                # The data of the model are not at hand: conformations around the present one stand for them.
                rng = np.random.default_rng(0)
                frames = beads.positions + FRAME_SPREAD * rng.standard_normal((4, len(beads), 3))
            options = {"device": self.parameters["device"], "dtype": self.parameters["dtype"]}
            compiled = source.compile(topology, frames=frames, **options)
        return _Molecule(topology, EagerEvaluation(self._model, topology), compiled)

    def _evaluate_at(self, atoms: Atoms, now: bytes, *, eager: bool) -> None:
        """Evaluate beads of which only the positions have changed since the last time."""
        self._state, state = None, self._state
        self.results = {}  # an evaluation that does not come to its end must not leave those of other positions
        self.atoms.arrays["positions"][:] = atoms.arrays["positions"]
        self._evaluate(atoms, eager=eager)
        self._positions, self._state = now, state

    def _evaluate(self, atoms: Atoms, *, eager: bool) -> None:
        """Fill the results at the positions of `self.atoms`; `atoms` has the momenta."""
        beads, molecule = self.atoms, self._current
        positions = beads.arrays["positions"]
        if eager or molecule.compiled is None:
            if not np.isfinite(positions).all():
                self._fail(positions, positions, molecule.topology)
            self.results, self._terms = molecule.eager.results(beads, with_stress=self._full_cell)
        else:
            energy, forces = molecule.compiled.energy_and_forces_of(positions)
            self.results = {"energy": energy, "free_energy": energy, "forces": forces}
            self._terms = None
        forces, energy = self.results["forces"], self.results["energy"]
        # Written so that what is no number fails, too.
        pair = molecule.eager.coincident_pair(beads) if np.isfinite(positions).all() else None
        if pair is None and not np.abs(forces).max(initial=0.0) <= MAX_FORCE:
            self.results = {}
            self._fail(positions, forces, molecule.topology)
        if pair is not None or not abs(energy) <= MAX_BEAD_ENERGY * len(beads):
            self.results = {}
            self._fail_energy(pair, energy, molecule.topology)
        self._last_good = positions.copy()
        self._evaluations += 1
        if not self._watch.decided and self._evaluations % WATCH_STRIDE == 0:
            message = self._watch.observe_beads(atoms)
            if message:
                warnings.warn(message, UserWarning, stacklevel=2)

    def _fail(self, positions: NDArray[np.float64], forces: NDArray[np.float64], topology: BeadTopology) -> None:
        values, what = forces, f"feels a force that is no number or above {MAX_FORCE:g} eV/Å"
        if not np.isfinite(positions).all():
            values, what = positions, "has a position that is no number"
        worst = int(np.nan_to_num(np.abs(values), nan=np.inf).max(1).argmax())
        raise SimulationError(f"bead {worst} ({topology.names[worst]}) {what}; {self._since}", self._last_good)

    def _fail_energy(self, pair: tuple[int, int] | None, energy: float, topology: BeadTopology) -> None:
        what = f"the energy is {energy:g} eV, which is NaN or beyond {MAX_BEAD_ENERGY:g} eV for each bead"
        if pair is not None:
            i, j = pair
            what = (
                f"beads {i} ({topology.names[i]}) and {j} ({topology.names[j]}) are on one spot (nearer than "
                f"{COINCIDENT} Å), where forces have no direction"
            )
        raise SimulationError(f"{what}; {self._since}", self._last_good)

    @property
    def _since(self) -> str:
        if self._last_good is None:
            return "no frame before it was good"
        return "last_good of this error holds the last good frame"


class _Molecule(NamedTuple):
    """A molecule the calculator has met."""

    topology: BeadTopology
    eager: "EagerEvaluation"
    compiled: "CompiledModel | None"


def _prepared(source: "CGModel", parameters: dict[str, Any]) -> "CGModel":
    from ase_cg.devices import find_device
    from ase_cg.models.model import prepared_copy

    return prepared_copy(
        source.with_priors(parameters["priors"]), find_device(parameters["device"]), parameters["dtype"]
    )
