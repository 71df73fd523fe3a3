"""Repulsion between beads that are not bonded: (σ/r)ⁿ."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import BeadGraph
from ase_cg.errors import InputError
from ase_cg.models.prior_options import RepulsionOptions
from ase_cg.models.priors.base import GENERIC, MIN_SAMPLES, PriorTerm, Samples, warn_of_rare

CLOSEST = 0.001  # quantile of the distances that counts as the closest approach
COST = 0.1  # of kT at the closest approach: next to nothing where the data live
SWITCH = 0.8  # of the cutoff, where the energy begins to be switched off
CLOSEST_SQUARED = 1e-4  # Å²; nearer pairs cost what they cost there
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
        self._last: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
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
        """Return which edges feel the term, and their σ; looked up when the edges are first seen."""
        if self._last is None or self._last[0] is not graph.edges or self._last[1] is not graph.bead_type:
            keep = torch.nonzero(self._feels(graph)).squeeze(1)
            i, j = graph.edges[:, keep]
            sigma = self.sigma[graph.bead_type[i], graph.bead_type[j]]
            self._last = (graph.edges, graph.bead_type, keep, sigma)
        return self._last[2], self._last[3]

    def _feels(self, graph: BeadGraph) -> Tensor:
        """Return which edges are pairs that are not excluded, shape (e,).

        In a cell a pair is excluded only through the images along its bonds, and not through others.
        """
        if graph.cell is not None and graph.edge_images is not None:
            return ~bonded_edges(graph, self.exclude)
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
            return edges_between_chains(graph)
        if self._last_excluded is None or self._last_excluded[0] is not graph.bonds:
            self._last_excluded = (graph.bonds, chains_of(graph.bonds, len(graph.positions)))
        chain = self._last_excluded[1]
        i, j = graph.edges
        return chain[i] != chain[j]


def excluded_keys(bonds: Tensor, n: int, within: int) -> Tensor:
    """Return sorted keys low·n + high of the pairs that at most `within` bonds separate."""
    if within == 0 or not bonds.shape[1]:
        return bonds.new_zeros(0)
    adjacency = _adjacency(bonds, n)
    reached = adjacency
    for _ in range(within - 1):
        reached = reached + reached @ adjacency
    rows, columns = reached.nonzero()
    upper = rows < columns
    keys = np.sort(rows[upper].astype(np.int64) * n + columns[upper])
    return torch.from_numpy(keys).to(bonds.device)


def bonded_edges(graph: BeadGraph, within: int) -> Tensor:
    """Return which edges of a periodic graph join beads that at most `within` bonds separate, shape (e,).

    The image counts: the edge has to lead to where the bonds lead.
    """
    edges, images = graph.edges.cpu().numpy(), _whole_images(graph)
    if within == 0 or not graph.bonds.shape[1]:
        return torch.zeros_like(graph.edges[0], dtype=torch.bool)
    bonds = graph.bonds.cpu().numpy()
    steps = graph.bonded_images(*graph.bonds).cpu().numpy().round().astype(np.int64)
    # Each bond in both directions, sorted by its first bead: first, second, image.
    directed = np.concatenate([np.column_stack([*bonds, steps]), np.column_stack([*bonds[::-1], -steps])])
    directed = directed[np.argsort(directed[:, 0], kind="stable")]
    begin = np.searchsorted(directed[:, 0], np.arange(len(graph.positions) + 1))
    walks, found = directed, [directed]
    for _ in range(within - 1):
        count = np.diff(begin)[walks[:, 1]]
        nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        following = directed[np.repeat(begin[walks[:, 1]], count) + nth]
        walks = np.repeat(walks, count, axis=0)
        walks = np.unique(np.column_stack([walks[:, 0], following[:, 1], walks[:, 2:] + following[:, 2:]]), axis=0)
        found.append(walks)
    reached = np.concatenate(found)
    reach = int(max(np.abs(reached[:, 2:]).max(initial=0), np.abs(images).max(initial=0)))
    n = len(graph.positions)
    keys = _image_keys(edges[0], edges[1], images, n, reach)
    excluded = _image_keys(reached[:, 0], reached[:, 1], reached[:, 2:], n, reach)
    return torch.from_numpy(np.isin(keys, excluded)).to(graph.edges.device)


def edges_between_chains(graph: BeadGraph) -> Tensor:
    """Return which edges of a periodic graph join two chains, or two images of one, shape (e,).

    A chain that is bonded to its own image is one chain in all of them.
    """
    from scipy.sparse.csgraph import breadth_first_order

    n = len(graph.positions)
    i, j = graph.edges.cpu().numpy()
    chain = chains_of(graph.bonds, n).cpu().numpy()
    if not graph.bonds.shape[1]:
        return torch.from_numpy((i != j) | _whole_images(graph).any(1)).to(graph.edges.device)
    bonds = graph.bonds.cpu().numpy()
    steps = graph.bonded_images(*graph.bonds).cpu().numpy().round().astype(np.int64)
    step_of = {(a, b): s for a, b, s in zip(*bonds.tolist(), steps, strict=True)}
    step_of |= {(b, a): -s for (a, b), s in step_of.items()}
    place = np.zeros((n, 3), dtype=np.int64)  # the image in which each bead is, where its chain is whole
    adjacency = _adjacency(graph.bonds, n)
    for start in np.unique(chain, return_index=True)[1]:
        order, before = breadth_first_order(adjacency, int(start), directed=False)
        for bead in order[1:].tolist():
            place[bead] = place[before[bead]] + step_of[int(before[bead]), bead]
    endless = np.zeros(chain.max() + 1, dtype=bool)
    endless[chain[bonds[0]][(place[bonds[1]] - place[bonds[0]] != steps).any(1)]] = True
    same = (chain[i] == chain[j]) & (endless[chain[i]] | (_whole_images(graph) == place[j] - place[i]).all(1))
    return torch.from_numpy(~same).to(graph.edges.device)


def _whole_images(graph: BeadGraph) -> NDArray[np.int64]:
    assert graph.edge_images is not None  # noqa: S101 - of periodic graphs
    return np.asarray(graph.edge_images.detach().cpu().numpy().round().astype(np.int64))


def _image_keys(
    i: NDArray[np.int64], j: NDArray[np.int64], images: NDArray[np.int64], n: int, reach: int
) -> NDArray[np.int64]:
    """Return one number for each pair of beads of n and image of at most `reach`, the same for both directions."""
    leading = np.sign(images @ np.array([9_000_000_000_000, 3_000_000, 1]))
    back = (i > j) | ((i == j) & (leading < 0))
    low, high = np.where(back, j, i), np.where(back, i, j)
    width = 2 * reach + 1
    shifted = np.where(back[:, None], -images, images) + reach
    return np.asarray((low * n + high) * width**3 + shifted @ np.array([width**2, width, 1]))


def chains_of(bonds: Tensor, n: int) -> Tensor:
    """Return which chain each of n beads belongs to, shape (n,)."""
    from scipy.sparse.csgraph import connected_components

    _, labels = connected_components(_adjacency(bonds, n), directed=False)
    return torch.from_numpy(labels.astype(np.int64)).to(bonds.device)


def _adjacency(bonds: Tensor, n: int) -> Any:
    from scipy.sparse import csr_array

    i, j = bonds.cpu().numpy()
    ends = (np.concatenate([i, j]), np.concatenate([j, i]))
    return csr_array((np.ones(2 * len(i)), ends), shape=(n, n))


def switch(distance: Tensor, cutoff: float) -> Tensor:
    """Return 1 up to four fifths of the cutoff and 0 from the cutoff on, with its derivative continuous."""
    x = ((distance / cutoff - SWITCH) / (1 - SWITCH)).clamp(0, 1)
    return 0.5 * (1 + torch.cos(math.pi * x))
