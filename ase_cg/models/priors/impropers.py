"""Impropers: how far a bead is out of the plane of its neighbours, and on which side."""

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import BeadGraph
from ase_cg.errors import InputError
from ase_cg.models.prior_options import ImproperOptions
from ase_cg.models.priors.base import MIN_SAMPLES, BondedPrior, Samples, Types
from ase_cg.models.priors.geometry import dihedral_angles, dihedral_cosine_and_sine
from ase_cg.models.priors.quadruples import Names, find_quadruples, type_mask

DEGENERATE = 1e-12  # of cos² + sin²: three of the beads lie on a line, and the angle means nothing
STIFFEST = 1e8  # of κ = 2k/kT


class Impropers(BondedPrior):
    """k Δ² over quadruples, Δ = ω − ω₀ taken between −π and π: k in eV/rad², ω in rad.

    ω is the dihedral angle of a, b, c, d (IUPAC sign), where by default a, b and c are three bonded neighbours of d:
    the angle between the planes a b c and b c d. It changes its sign in the mirror image, so the term tells one hand
    from the other, and keeps flat what is flat. A quadruple is read in one direction.
    Source of the form: mlcg (github ClementiGroup/mlcg), ``HarmonicImpropers`` and, near ±π, its shifted form.

    Parameters
    ----------
    types : Tensor, shape (p, 4)
        See :class:`ase_cg.models.priors.base.BondedPrior`.
    stiffness, equilibrium : Tensor, shape (p,)
        k and ω₀.
    vocabulary : sequence of str
        Bead names in the order of the types, by which quadruples are found.
    quadruples : sequence of four names each, optional
        See :func:`ase_cg.models.priors.quadruples.find_quadruples`.
    """

    name = "impropers"
    width = 4
    parameter_names = ("stiffness", "equilibrium")
    names_beads = True
    stiffness: Tensor
    equilibrium: Tensor

    def __init__(
        self,
        types: Tensor,
        stiffness: Tensor,
        equilibrium: Tensor,
        vocabulary: Sequence[str],
        quadruples: Sequence[Sequence[str]] | None = None,
    ) -> None:
        parameters = {"stiffness": stiffness, "equilibrium": equilibrium}
        super().__init__(types, parameters, len(vocabulary), directed=True)
        self.vocabulary = tuple(vocabulary)
        self.quadruples = _checked(quadruples)
        self._last_found: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Bead names, and the list of quadruples where there is one."""
        listed = {} if self.quadruples is None else {"quadruples": [list(names) for names in self.quadruples]}
        return {"vocabulary": list(self.vocabulary), **listed}

    @classmethod
    def settings_of(cls, vocabulary: Sequence[str], options: Any) -> dict[str, Any]:
        """Return bead names and the list of quadruples."""
        return {"vocabulary": list(vocabulary), "quadruples": options.quadruples}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], n_types: int) -> Self:
        """Make the term from its types and parameters."""
        if len(settings["vocabulary"]) != n_types:
            raise InputError(f"the prior {cls.name!r} names {len(settings['vocabulary'])} beads of {n_types} types")
        return cls(tensors["types"], tensors["stiffness"], tensors["equilibrium"], **settings)

    @classmethod
    def members(cls, graph: BeadGraph) -> Tensor:
        """Return the quadruples, shape (4, m)."""
        return graph.dihedrals

    @classmethod
    def internal_coordinate(cls, graph: BeadGraph) -> Tensor:
        """Return the angles in rad, shape (m,)."""
        return dihedral_angles(graph)

    @classmethod
    def fitted_view(cls, graph: BeadGraph, vocabulary: Sequence[str], options: Any) -> BeadGraph:
        """Return the graph with quadruples in the place of dihedrals."""
        return graph._replace(dihedrals=find_quadruples(graph, vocabulary, options.quadruples))

    def view(self, graph: BeadGraph) -> BeadGraph:
        """Return the graph with quadruples in the place of dihedrals; they are found when the bonds are first seen."""
        last = self._last_found
        if last is None or last[0] is not graph.bonds or last[1] is not graph.bead_type:
            found = find_quadruples(graph, self.vocabulary, self.quadruples)
            self._last_found = last = (graph.bonds, graph.bead_type, found)
        return graph._replace(dihedrals=last[2])

    @classmethod
    def samples(
        cls, positions: NDArray[np.float64], topology: BeadTopology, vocabulary: Sequence[str], options: Any
    ) -> Samples:
        """Return the angles of all frames, by sequence of bead types."""
        _checked(options.quadruples)
        return super().samples(positions, topology, vocabulary, options)

    @classmethod
    def fit(cls, values: Samples, kT: float, vocabulary: Sequence[str], options: ImproperOptions) -> Self:  # type: ignore[override] # options of its own
        """Fit each sequence of types; those with few samples together with others of the same atoms.

        What `ALA:N`–`ALA:CB`–`ALA:C`–`ALA:CA` lacks, it takes from the same atoms of all residues.

        Raises
        ------
        InputError
            If there are no quadruples, or none of one of those that are listed.
        """
        for names in options.quadruples or []:
            masks = [type_mask(name, vocabulary) for name in names]
            if not any(all(mask[t] for mask, t in zip(masks, types, strict=True)) for types in values):
                raise InputError(f"the prior {cls.name!r} has nothing to be fitted to: no bonded beads are {names}")
        if not values:
            raise InputError(f"the prior {cls.name!r} has nothing to be fitted to: no bead has three bonded neighbours")
        pools: dict[tuple[str, ...], list[NDArray[np.float64]]] = {}
        for types, angles in values.items():
            pools.setdefault(_atoms(types, vocabulary), []).append(angles)
        rich = {}
        for types, angles in values.items():
            pool = np.concatenate(pools[_atoms(types, vocabulary)])
            rich[types] = pool if len(angles) < MIN_SAMPLES <= len(pool) else angles
        return super().fit(rich, kT, vocabulary, cast("Any", options))

    @classmethod
    def fluctuation(cls, samples: NDArray[np.float64]) -> float:
        """Return the standard deviation in rad; ±π is one place."""
        return float(_around_mean(samples)[1].std())

    @classmethod
    def fit_one(cls, samples: NDArray[np.float64], kT: float, options: Any) -> dict[str, Any]:
        """Return ω₀, the mean on the circle, and k = kT/(2 var ω), deviations taken between −π and π."""
        del options
        mean, deviation = _around_mean(samples)
        return {"stiffness": kT / (2 * deviation.var()), "equilibrium": _wrapped(mean + deviation.mean())}

    def tuple_energies(self, graph: BeadGraph, rows: Tensor) -> Tensor:
        """Return k Δ² in eV, shape (m,); it fades out where three of the beads lie on a line."""
        cosine, sine = self._turned(graph, rows)
        squared = cosine * cosine + sine * sine
        defined = squared > DEGENERATE
        deviation = torch.atan2(torch.where(defined, sine, 0.0), torch.where(defined, cosine, 1.0))
        return self.stiffness[rows] * deviation * deviation * squared

    def _turned(self, graph: BeadGraph, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of ω − ω₀."""
        cosine, sine = dihedral_cosine_and_sine(graph)
        c0, s0 = torch.cos(self.equilibrium[rows]), torch.sin(self.equilibrium[rows])
        return cosine * c0 + sine * s0, sine * c0 - cosine * s0


class PeriodicImpropers(Impropers):
    """2k (1 − cos(ω − ω₀)) over quadruples: k in eV/rad², ω in rad; smooth all around, and k Δ² near ω₀.

    Quadruples and ω are those of :class:`Impropers`.
    """

    name = "periodic_impropers"

    @classmethod
    def fit_one(cls, samples: NDArray[np.float64], kT: float, options: Any) -> dict[str, Any]:
        """Return ω₀ and k of the most likely distribution exp(−U/kT), von Mises's with κ = 2k/kT.

        κ follows from the length of the mean of exp(iω), which is I₁(κ)/I₀(κ).
        Source: Mardia and Jupp, Directional Statistics (2000), 5.3.
        """
        del options
        from scipy.optimize import brentq
        from scipy.special import ive

        mean = np.exp(1j * samples).mean()
        kappa = brentq(lambda k: ive(1, k) / ive(0, k) - min(abs(mean), 1 - 1 / STIFFEST), 1e-12, STIFFEST)
        return {"stiffness": kappa * kT / 2, "equilibrium": float(np.angle(mean))}

    def tuple_energies(self, graph: BeadGraph, rows: Tensor) -> Tensor:
        """Return 2k (1 − cos Δ) in eV, shape (m,)."""
        cosine, _ = self._turned(graph, rows)
        return 2 * self.stiffness[rows] * (1 - cosine)


def _around_mean(angles: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the mean direction, and deviations from it between −π and π."""
    mean = float(np.angle(np.exp(1j * angles).mean()))
    return mean, np.asarray(_wrapped(angles - mean))


def _wrapped(angle: Any) -> Any:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _atoms(types: Types, vocabulary: Sequence[str]) -> tuple[str, ...]:
    return tuple(vocabulary[t].rpartition(":")[2] for t in types)


def _checked(quadruples: Any) -> list[Names] | None:
    """Return a list of quadruples as tuples of four names."""
    if quadruples is None:
        return None
    four = all(len(names) == 4 and all(isinstance(name, str) for name in names) for names in quadruples)
    if not quadruples or not four:
        raise InputError(f"quadruples are lists of four bead names, such as [N, CB, C, CA], not {quadruples!r}")
    return [cast("Names", tuple(names)) for names in quadruples]
