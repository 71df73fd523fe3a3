"""Repulsion that ends smoothly at a cutoff, and exponential repulsion."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.data.graph import BeadGraph
from ase_cg.errors import InputError
from ase_cg.models.priors.base import MIN_SAMPLES, Samples, warn_of_rare
from ase_cg.models.priors.repulsion import CLOSEST, CLOSEST_SQUARED, COST, Repulsion

Parameters = dict[str, Tensor]


class ShortRepulsion(Repulsion):
    """Repulsion whose energy is u(r) − u(r_c) − (r − r_c) u′(r_c) within the cutoff r_c and zero beyond.

    Energy and force are continuous at the cutoff. Without a cutoff it is u(r).
    """

    tables: ClassVar[tuple[str, ...]]
    _last_parameters: tuple[Tensor, Parameters] | None = None

    @abstractmethod
    def plain(self, distance: Tensor | float, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Return u and its slope, in eV and eV/Å, at distances in Å."""

    @classmethod
    @abstractmethod
    def fit_pair(cls, closest: float, energy: float, options: Any) -> dict[str, float]:
        """Return the parameters with which a pair at the distance `closest` in Å costs an energy in eV."""

    def pair_energies(self, squared: Tensor, parameters: Parameters) -> Tensor:
        """Return energies in eV of pairs whose squared distances are given in Å²."""
        distance = torch.sqrt(squared.clamp_min(CLOSEST_SQUARED))
        energy, _ = self.plain(distance, parameters)
        if math.isinf(self.cutoff):
            return energy
        end, slope = self.plain(self.cutoff, parameters)
        return torch.where(distance < self.cutoff, energy - end - (distance - self.cutoff) * slope, 0.0)

    def bead_energies(self, graph: BeadGraph) -> Tensor:
        """Return the energy in eV, shape (n,), shared evenly between the two beads of each pair."""
        keep, _ = self.pairs_of(graph)
        i, j = graph.edges[:, keep]
        vectors = graph.edge_vectors()[keep]
        share = self.pair_energies((vectors * vectors).sum(-1), self.parameters_of(graph)) / 2
        zeros = share.new_zeros(len(graph.positions))
        return zeros.index_add(0, i, share).index_add(0, j, share)

    def parameters_of(self, graph: BeadGraph) -> Parameters:
        """Return the parameters of the edges that feel the term."""
        keep, _ = self.pairs_of(graph)
        if self._last_parameters is None or self._last_parameters[0] is not keep:
            i, j = graph.bead_type[graph.edges[:, keep]]
            self._last_parameters = (keep, {name: getattr(self, name)[i, j] for name in self.tables})
        return self._last_parameters[1]

    @classmethod
    def fit(cls, values: Samples, kT: float, vocabulary: Sequence[str], options: Any) -> Self:
        """Choose parameters so that the closest approach in the data, their 0.1 % quantile, costs a tenth of kT.

        Pairs of types with fewer than 50 samples take the generic ones, those of all pairs together; a warning counts
        them.
        """
        if not values:
            raise InputError(f"the prior {cls.name!r} has no pairs to be fitted to: all beads are bonded neighbours")

        def fitted(samples: NDArray[np.float64]) -> dict[str, float]:
            return cls.fit_pair(float(np.quantile(samples, CLOSEST)), COST * kT * options.scale, options)

        n_types = len(vocabulary)
        generic = fitted(np.concatenate(list(values.values())))
        tables = {name: np.full((n_types, n_types), generic[name]) for name in cls.tables}
        rare = {pair: len(samples) for pair, samples in values.items() if len(samples) < MIN_SAMPLES}
        for (i, j), samples in values.items():
            if (i, j) not in rare:
                for name, value in fitted(samples).items():
                    tables[name][i, j] = tables[name][j, i] = value
        if rare:
            warn_of_rare(cls.name, rare, vocabulary)
        tensors = {name: torch.tensor(table, dtype=torch.float32) for name, table in tables.items()}
        settings = options.model_dump(include=cls.kept_options())
        return cls.from_tensors(tensors, settings, n_types)

    @classmethod
    def kept_options(cls) -> set[str]:
        """Return the names of options that are settings of the term."""
        return {"exclude", "cutoff"}

    def parameters_by_type(self) -> list[dict[str, Any]]:
        """Return the parameters of each pair of types."""
        n = self.n_types
        return [
            {"types": [i, j], **{name: float(getattr(self, name)[i, j]) for name in self.tables}}
            for i in range(n)
            for j in range(i, n)
        ]


class CutoffRepulsion(ShortRepulsion):
    """(σ/r)ⁿ eV over pairs of beads that more than so many bonds separate, brought to zero at a cutoff with its slope.

    Where :class:`ase_cg.models.priors.repulsion.Repulsion` switches the energy off over the last fifth of the cutoff,
    this one subtracts a line from it. Source of the form: mlcg (github ClementiGroup/mlcg), ``CutoffRepulsion``.

    Parameters
    ----------
    sigma : Tensor, shape (n_types, n_types)
        σ in Å of each pair of types, symmetric.
    exponent, exclude, cutoff
        As in :class:`ase_cg.models.priors.repulsion.Repulsion`; there is a cutoff.
    """

    name = "cutoff_repulsion"
    tables = ("sigma",)

    def __init__(self, sigma: Tensor, exponent: int = 6, exclude: int = 2, cutoff: float | None = 12.0) -> None:
        if cutoff is None:
            raise InputError("the prior 'cutoff_repulsion' needs a cutoff in Å; without one it is 'repulsion'")
        super().__init__(sigma, exponent, exclude, cutoff)

    def plain(self, distance: Tensor | float, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Return (σ/r)ⁿ and its slope."""
        ratio = parameters["sigma"] / distance
        energy = (ratio * ratio) ** (self.exponent / 2)
        return energy, -self.exponent * energy / distance

    @classmethod
    def fit_pair(cls, closest: float, energy: float, options: Any) -> dict[str, float]:
        """Return σ."""
        n, end = options.exponent, options.cutoff
        shape = closest**-n
        if closest < end:
            shape += -(end**-n) + n * (closest - end) * end ** (-n - 1)
        return {"sigma": min((energy / shape) ** (1 / n), closest)}

    @classmethod
    def kept_options(cls) -> set[str]:
        """Return exponent, exclusions and cutoff."""
        return {"exponent", "exclude", "cutoff"}


class ExponentialRepulsion(ShortRepulsion):
    """(6ε/α) exp(α (1 − r/σ)) over pairs of beads that more than so many bonds separate: ε in eV, σ in Å.

    It is the repulsive part of the exp-6 potential, and stays finite where two beads meet. With a cutoff energy and
    force end there as in :class:`CutoffRepulsion`. Source of the form: mlcg (github ClementiGroup/mlcg),
    ``ExpRepulsion`` and ``CutoffExpRepulsion``, which call σ r₀ and have ε = 1 kcal/mol.

    Parameters
    ----------
    strength, steepness, sigma : Tensor, shape (n_types, n_types)
        ε, α and σ of each pair of types, symmetric.
    exclude : int
        Pairs that at most so many bonds separate feel none.
    cutoff : float or None
        In Å. None for no cutoff.
    """

    name = "exponential_repulsion"
    tables = ("strength", "steepness", "sigma")
    strength: Tensor
    steepness: Tensor

    def __init__(
        self, strength: Tensor, steepness: Tensor, sigma: Tensor, exclude: int = 2, cutoff: float | None = 12.0
    ) -> None:
        super().__init__(sigma, exclude=exclude, cutoff=cutoff)
        self.register_buffer("strength", strength)
        self.register_buffer("steepness", steepness)

    @property
    def settings(self) -> dict[str, Any]:
        """Exclusions and cutoff."""
        return {"exclude": self.exclude, "cutoff": None if math.isinf(self.cutoff) else self.cutoff}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], n_types: int) -> Self:
        """Make the term from its tables and settings."""
        del n_types
        return cls(tensors["strength"], tensors["steepness"], tensors["sigma"], **settings)

    def plain(self, distance: Tensor | float, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Return the exponential and its slope."""
        alpha, sigma = parameters["steepness"], parameters["sigma"]
        energy = 6 * parameters["strength"] / alpha * torch.exp(alpha * (1 - distance / sigma))
        return energy, -alpha / sigma * energy

    @classmethod
    def fit_pair(cls, closest: float, energy: float, options: Any) -> dict[str, float]:
        """Return α as in the options, ε ten times the energy (kT), and σ."""
        alpha = options.steepness
        # Without the line that a cutoff subtracts, which at these distances is next to nothing and lowers the cost.
        sigma = closest / (1 - math.log(COST * alpha / 6) / alpha)
        return {"strength": energy / COST, "steepness": alpha, "sigma": sigma}
