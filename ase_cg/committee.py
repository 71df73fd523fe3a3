"""Several models as one ASE calculator: their mean, and how far they disagree."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray

from ase_cg.calculator import CGCalculator
from ase_cg.errors import InputError

if TYPE_CHECKING:
    from ase_cg.models.model import CGModel


class CommitteeCalculator(Calculator):
    """The mean of several models of the same beads, with their standard deviation beside it.

    Parameters
    ----------
    models : sequence of CGModel or path
        At least two, with the same vocabulary and temperature; seeds of one recipe, for instance.
    **options
        Of every :class:`ase_cg.CGCalculator`: ``topology``, ``device``, ``dtype``, ``priors``.

    Attributes
    ----------
    deviations : dict
        Standard deviations over the models (of a sample, n − 1) at the last evaluation: ``energy`` (float, eV) and
        ``forces`` (ndarray, shape (N, 3), eV/Å). An energy is known up to a constant of each model: differences of
        ``energy`` between frames mean more than its size.

    Raises
    ------
    InputError
        If there are fewer than two models, or they differ in vocabulary or temperature.

    Examples
    --------
    >>> atoms.calc = CommitteeCalculator(["seed0.safetensors", "seed1.safetensors"])  # doctest: +SKIP
    >>> atoms.get_forces(), atoms.calc.deviations["forces"]  # doctest: +SKIP
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "energies", "forces", "stress"]
    discard_results_on_any_change = True

    def __init__(self, models: "Sequence[CGModel | str | os.PathLike[str]]", **options: Any) -> None:
        if isinstance(models, str | os.PathLike) or len(models) < 2:
            raise InputError("a committee needs at least two models")
        self.members = [CGCalculator(model, **options) for model in models]
        first, *others = [member.model for member in self.members]
        for number, other in enumerate(others, 1):
            if other.vocabulary != first.vocabulary:
                raise InputError(
                    f"model {number} of the committee knows the beads {', '.join(other.vocabulary)}, model 0 "
                    f"{', '.join(first.vocabulary)}; a committee needs one vocabulary"
                )
            if other.card.temperature != first.card.temperature:
                raise InputError(
                    f"model {number} of the committee is a free energy at {other.card.temperature:g} K, model 0 at "
                    f"{first.card.temperature:g} K"
                )
        self.deviations: dict[str, float | NDArray[np.float64]] = {}
        super().__init__()
        shared = {key: value for key, value in self.members[0].parameters.items() if key != "model"}
        self.parameters.update(models=[member.parameters.get("model") for member in self.members], **shared)

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Change parameters of all members; results are forgotten."""
        if {"model", "models"} & set(kwargs):
            raise InputError("the models of a committee stay what they are; make another one for other models")
        changed: dict[str, Any] = {}
        for member in self.members:  # the first to be asked refuses what is wrong, before anything is changed
            changed = member.set(**kwargs)
        if changed:
            self.parameters.update(changed)
            self.deviations = {}
            self.reset()
        return changed

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what has changed since the last evaluation, bead types included."""
        return self.members[0].check_state(atoms, tol)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Evaluate all members; see :class:`ase.calculators.calculator.Calculator`."""
        super().calculate(atoms, properties, system_changes)
        self.deviations = {}  # a member that fails must not leave those of other positions
        for member in self.members:
            member.calculate(self.atoms, properties, system_changes)
        found = [member.results for member in self.members]
        results: dict[str, Any] = {key: np.mean([each[key] for each in found], axis=0) for key in found[0]}
        for key in ("energy", "free_energy"):
            results[key] = float(results[key])
        self.results = results
        self.deviations = {
            "energy": float(np.std([each["energy"] for each in found], ddof=1)),
            "forces": np.std([each["forces"] for each in found], axis=0, ddof=1),
        }
