"""Repulsion between beads that are not bonded: (σ/r)ⁿ."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.bonded_images import bond_adjacency, bonded_image_edges, chains_of, edges_between_chain_images
from ase_cg.data.graph import BeadGraph
from ase_cg.data.neighbors import check_cutoff
from ase_cg.errors import InputError
from ase_cg.models.prior_options import RepulsionOptions
from ase_cg.models.priors.base import GENERIC, MIN_SAMPLES, PriorTerm, Samples, warn_of_rare

CLOSEST = 0.001  # quantile of the distances that counts as the closest approach
COST = 0.1  # of kT at the closest approach: next to nothing where the data live
SWITCH = 0.8  # of the cutoff, where the energy begins to be switched off
CLOSEST_SQUARED = 1e-18  # Å²; keeps 0/0 away where two beads lie on one spot, which is an error elsewhere
NUMBERS_AT_ONCE = 5_000_000
PAIR_SAMPLES = 50_000_000


class Repulsion(PriorTerm):
    """Σ (σ/r)ⁿ eV over pairs of beads that more than so many bonds separate; σ is where a pair costs 1 eV.

    Parameters
    ----------
    sigma : Tensor, shape (n_types, n_types)
        σ in Å of each pair of types, symmetric.
    exponent : int
        n.
    exclude : int
        Pairs that at most so many bonds separate feel none.
    cutoff : float or None
        In Å; the energy is switched off over its last fifth. None for no cutoff.
    """

    name = "repulsion"
    sigma: Tensor

    def __init__(self, sigma: Tensor, exponent: int = 6, exclude: int = 2, cutoff: float | None = 12.0) -> None:
        super().__init__()
        self.register_buffer("sigma", sigma)
        self.n_types = len(sigma)
        self.exponent, self.exclude = exponent, exclude
        self.cutoff = math.inf if cutoff is None else float(cutoff)
        if not self.cutoff > 0:
            raise InputError(f"the cutoff of the prior {self.name!r} must be a positive number of Å, not {cutoff}")
        self._last: tuple[tuple[Tensor | None, ...], Tensor, Tensor] | None = None
        self._last_excluded: tuple[Tensor, Tensor] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Exponent, exclusions and cutoff."""
        cutoff = None if math.isinf(self.cutoff) else self.cutoff
        return {"exponent": self.exponent, "exclude": self.exclude, "cutoff": cutoff}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], n_types: int) -> Self:
        """Make the term from σ and its settings."""
        del n_types
        return cls(tensors["sigma"], **settings)

    @classmethod
    def samples(
        cls, positions: NDArray[np.float64], topology: BeadTopology, vocabulary: Sequence[str], options: Any
    ) -> Samples:
        """Return distances of pairs that are not excluded, by types."""
        index = {name: i for i, name in enumerate(vocabulary)}
        types = np.array([index[name] for name in topology.names])
        pairs = cls._pairs(topology, options)
        if not len(pairs):
            return {}
        stride = max(1, len(positions) * len(pairs) // PAIR_SAMPLES)
        used = positions[::stride]
        collected: dict[tuple[int, ...], list[NDArray[np.float64]]] = {}
        step = max(1, NUMBERS_AT_ONCE // len(used))
        for start in range(0, len(pairs), step):
            part = pairs[start : start + step]
            distances = np.linalg.norm(used[:, part[:, 0]] - used[:, part[:, 1]], axis=-1)
            for (i, j), column in zip(part, distances.T, strict=True):
                key = tuple(sorted((int(types[i]), int(types[j]))))
                collected.setdefault(key, []).append(column.astype(np.float32))
        return {key: np.concatenate(found) for key, found in sorted(collected.items())}

    @classmethod
    def _pairs(cls, topology: BeadTopology, options: Any) -> NDArray[np.int64]:
        """Return the pairs that the term is fitted to, shape (p, 2)."""
        excluded = set(topology.exclusions(options.exclude))
        n = topology.n_beads
        found = [(i, j) for i in range(n) for j in range(i + 1, n) if (i, j) not in excluded]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    @classmethod
    def fit(cls, values: Samples, kT: float, vocabulary: Sequence[str], options: RepulsionOptions) -> Self:
        """Choose σ so that the closest approach in the data, their 0.1 % quantile, costs a tenth of kT.

        Pairs of types with fewer than 50 samples take the generic σ, that of all pairs together; a warning counts them.
        """
        n_types = len(vocabulary)
        if not values:
            raise InputError(f"the prior {cls.name!r} has no pairs to be fitted to: all beads are bonded neighbours")
        energy = COST * kT * options.scale

        def sigma_of(samples: NDArray[np.float64]) -> float:
            return float(np.quantile(samples, CLOSEST) * energy ** (1 / options.exponent))

        generic = sigma_of(np.concatenate(list(values.values())))
        sigma = np.full((n_types, n_types), generic)
        rare: dict[tuple[int, ...], int] = {}
        for (i, j), samples in values.items():
            if len(samples) < MIN_SAMPLES:
                rare[i, j] = len(samples)
            else:
                sigma[i, j] = sigma[j, i] = sigma_of(samples)
        if rare:
            warn_of_rare(cls.name, rare, vocabulary)
        settings = options.model_dump(exclude={"scale"})
        return cls(torch.tensor(sigma, dtype=torch.float32), **settings)

    def bead_energies(self, graph: BeadGraph) -> Tensor:
        """Return the energy in eV, shape (n,), shared evenly between the two beads of each pair."""
        keep, sigma = self.pairs_of(graph)
        i, j = graph.edges[:, keep]
        vectors = graph.edge_vectors()[keep]
        squared = (vectors * vectors).sum(-1).clamp_min(CLOSEST_SQUARED)
        energy = (sigma * sigma / squared) ** (self.exponent / 2)
        if not math.isinf(self.cutoff):
            energy = energy * switch(torch.sqrt(squared), self.cutoff)
        share = energy / 2
        zeros = share.new_zeros(len(graph.positions))
        return zeros.index_add(0, i, share).index_add(0, j, share)

    def pairs_of(self, graph: BeadGraph) -> tuple[Tensor, Tensor]:
        """Return which edges feel the term, and their σ; looked up when the edges are first seen.

        Raises
        ------
        InputError
            If the graph is periodic and the term has no cutoff.
        """
        seen = (graph.edges, graph.bead_type, graph.bonds, graph.edge_images)
        if self._last is None or any(now is not before for now, before in zip(seen, self._last[0], strict=True)):
            if graph.cell is not None:
                check_cutoff(self.cutoff)
            keep = torch.nonzero(self._feels(graph)).squeeze(1)
            i, j = graph.edges[:, keep]
            self._last = (seen, keep, self.sigma[graph.bead_type[i], graph.bead_type[j]])
        return self._last[1], self._last[2]

    def _feels(self, graph: BeadGraph) -> Tensor:
        """Return which edges are pairs that are not excluded, shape (e,).

        In a cell a pair is excluded only through the images along its bonds, and not through others.
        """
        if graph.cell is not None and graph.edge_images is not None:
            return ~bonded_image_edges(graph, self.exclude)
        excluded = self._excluded(graph)
        if not len(excluded):
            return torch.ones_like(graph.edges[0], dtype=torch.bool)
        low, high = graph.edges.min(0).values, graph.edges.max(0).values
        keys = low * len(graph.positions) + high
        place = torch.searchsorted(excluded, keys).clamp_max(len(excluded) - 1)
        return excluded[place] != keys

    def _excluded(self, graph: BeadGraph) -> Tensor:
        """Return sorted keys of the excluded pairs, made when the bonds are first seen."""
        if self._last_excluded is None or self._last_excluded[0] is not graph.bonds:
            keys = excluded_keys(graph.bonds, len(graph.positions), self.exclude)
            self._last_excluded = (graph.bonds, keys)
        return self._last_excluded[1]

    def parameters_by_type(self) -> list[dict[str, Any]]:
        """Return σ in Å of each pair of types."""
        n = len(self.sigma)
        return [{"types": [i, j], "sigma": float(self.sigma[i, j])} for i in range(n) for j in range(i, n)]


class ExcludedVolume(Repulsion):
    """Σ (σ/r)ⁿ eV over pairs of beads of different chains, with one σ for all.

    It keeps chains apart that the data never show in contact. Chains are told by their bonds.
    """

    name = "excluded_volume"

    def __init__(self, sigma: Tensor, exponent: int = 6, cutoff: float | None = 12.0) -> None:
        super().__init__(sigma, exponent, 0, cutoff)

    @property
    def settings(self) -> dict[str, Any]:
        """Exponent and cutoff."""
        return {key: value for key, value in super().settings.items() if key != "exclude"}

    @classmethod
    def _pairs(cls, topology: BeadTopology, options: Any) -> NDArray[np.int64]:
        """Return all pairs that more than two bonds separate: what beads do within a chain they do between chains."""
        del options
        return super()._pairs(topology, RepulsionOptions(exclude=2))

    @classmethod
    def fit(cls, values: Samples, kT: float, vocabulary: Sequence[str], options: Any) -> Self:
        """Choose one σ so that the closest approach of any pair costs a tenth of kT."""
        if not values:
            raise InputError(f"the prior {cls.name!r} has no pairs to be fitted to: all beads are bonded neighbours")
        pooled = {(GENERIC, GENERIC): np.concatenate(list(values.values()))}
        closest = float(np.quantile(pooled[GENERIC, GENERIC], CLOSEST))
        sigma = closest * (COST * kT * options.scale) ** (1 / options.exponent)
        n_types = len(vocabulary)
        return cls(torch.full((n_types, n_types), sigma), options.exponent, options.cutoff)

    def _feels(self, graph: BeadGraph) -> Tensor:
        """Return which edges join two chains, shape (e,); an image of a chain is another one."""
        if graph.cell is not None and graph.edge_images is not None:
            return edges_between_chain_images(graph)
        if self._last_excluded is None or self._last_excluded[0] is not graph.bonds:
            self._last_excluded = (graph.bonds, chains_of(graph.bonds, len(graph.positions)))
        chain = self._last_excluded[1]
        i, j = graph.edges
        return chain[i] != chain[j]


def excluded_keys(bonds: Tensor, n: int, within: int) -> Tensor:
    """Return sorted keys low·n + high of the pairs that at most `within` bonds separate."""
    if within == 0 or not bonds.shape[1]:
        return bonds.new_zeros(0)
    adjacency = bond_adjacency(bonds, n)
    reached = adjacency
    for _ in range(within - 1):
        reached = reached + reached @ adjacency
    rows, columns = reached.nonzero()
    upper = rows < columns
    keys = np.sort(rows[upper].astype(np.int64) * n + columns[upper])
    return torch.from_numpy(keys).to(bonds.device)


def switch(distance: Tensor, cutoff: float) -> Tensor:
    """Return 1 up to four fifths of the cutoff and 0 from the cutoff on, with its derivative continuous."""
    x = ((distance / cutoff - SWITCH) / (1 - SWITCH)).clamp(0, 1)
    return 0.5 * (1 + torch.cos(math.pi * x))
