"""Quadruples of beads for impropers: a bead and three of its neighbours, or what a list of names asks for."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import combinations, permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.data.graph import BeadGraph

# Neighbours of a centre stand in this order, whatever their order in the file: N, CB, C around CA; CA, O, N around C.
FIRST_NAMES = ("CA", "O", "N", "CB", "C")
Indices = NDArray[np.int64]
Names = tuple[str, str, str, str]


def find_quadruples(graph: BeadGraph, vocabulary: Sequence[str], wanted: Sequence[Names] | None = None) -> Tensor:
    """Return the quadruples of a graph, shape (4, m), those of each molecule together.

    Parameters
    ----------
    graph : BeadGraph
    vocabulary : sequence of str
        Bead names in the order of the types.
    wanted : sequence of four names each, optional
        Of the beads of a quadruple: three neighbours of a bead and, as the last, that bead; or four beads along a
        chain. ``CA`` is the atom of any residue, ``ALA:CA`` that of one, ``*`` any bead; a leading ``+`` or ``-``, by
        which MDTraj means the next or last residue, is left to the bonds. By default every bead with three or more
        bonded neighbours, as the last, after each three of them.
    """
    types = graph.bead_type.cpu().numpy()
    centred = _stars(graph.bonds.cpu().numpy(), _ranks(vocabulary)[types])
    if wanted is not None:
        chains = graph.dihedrals.cpu().numpy()
        found = [_matching(centred, chains, types, [type_mask(name, vocabulary) for name in names]) for names in wanted]
        centred = np.concatenate([centred[:, :0], *found], axis=1)
    # Sorted by the first bead, so that copies of a molecule stand one after the other.
    return torch.from_numpy(np.unique(centred, axis=1)).to(graph.bonds.device)


def _ranks(vocabulary: Sequence[str]) -> Indices:
    """Return where the bead of each type stands among the neighbours of a centre."""
    atoms = [name.rpartition(":")[2] for name in vocabulary]
    place = {name: number for number, name in enumerate(FIRST_NAMES)}
    keys = [(place.get(atom, len(place)), atom, name) for atom, name in zip(atoms, vocabulary, strict=True)]
    ranks = np.empty(len(keys), dtype=np.int64)
    ranks[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    return ranks


def _stars(bonds: Indices, rank: Indices) -> Indices:
    """Return three neighbours and their centre, shape (4, m), for each three neighbours of a bead."""
    centre, neighbor = np.concatenate([bonds, bonds[::-1]], axis=1)
    order = np.lexsort((neighbor, rank[neighbor], centre))
    neighbor = neighbor[order]
    degree = np.bincount(centre, minlength=len(rank))
    first = np.cumsum(degree) - degree
    found = [np.zeros((4, 0), dtype=np.int64)]
    for many in np.unique(degree[degree >= 3]):
        centres = np.flatnonzero(degree == many)
        around = neighbor[first[centres] + np.arange(many)[:, None]]
        found += [np.concatenate([around[list(three)], centres[None]]) for three in combinations(range(many), 3)]
    return np.concatenate(found, axis=1)


def type_mask(name: str, vocabulary: Sequence[str]) -> NDArray[np.bool_]:
    """Return which types a name stands for."""
    bare = name.lstrip("+-")
    return np.array([fnmatchcase(bead, bare) or bead.rpartition(":")[2] == bare for bead in vocabulary])


def _matching(stars: Indices, chains: Indices, types: Indices, masks: Sequence[NDArray[np.bool_]]) -> Indices:
    """Return the quadruples whose beads are of the wanted types, in the wanted order; each once."""
    around = [(*three, 3) for three in permutations(range(3))]
    orders: list[tuple[Indices, list[tuple[int, ...]]]] = [(stars, around), (chains, [(0, 1, 2, 3), (3, 2, 1, 0)])]
    found = []
    for quadruples, ways in orders:
        free = np.ones(quadruples.shape[1], dtype=bool)
        for way in ways:
            turned = quadruples[list(way)]
            fits = np.all([mask[types[beads]] for mask, beads in zip(masks, turned, strict=True)], axis=0) & free
            found.append(turned[:, fits])
            free &= ~fits
    return np.concatenate(found, axis=1)
