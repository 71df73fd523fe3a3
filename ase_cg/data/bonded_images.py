"""Which pairs of beads, and of their images in a periodic cell, bonds hold together."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.data.graph import BeadGraph

Integers = NDArray[np.int64]


def chains_of(bonds: Tensor, n: int) -> Tensor:
    """Return which chain each of n beads belongs to, shape (n,)."""
    from scipy.sparse.csgraph import connected_components

    _, labels = connected_components(bond_adjacency(bonds, n), directed=False)
    return torch.from_numpy(labels.astype(np.int64)).to(bonds.device)


def bond_adjacency(bonds: Tensor, n: int) -> Any:
    """Return the sparse matrix (n, n) that is 1 where two beads are bonded."""
    from scipy.sparse import csr_array

    i, j = bonds.cpu().numpy()
    ends = (np.concatenate([i, j]), np.concatenate([j, i]))
    return csr_array((np.ones(2 * len(i)), ends), shape=(n, n))


def bonded_image_edges(graph: BeadGraph, within: int) -> Tensor:
    """Return which edges of a periodic graph join beads that at most `within` bonds separate, shape (e,).

    The image counts: the edge has to lead to where the bonds lead.
    """
    if within == 0 or not graph.bonds.shape[1]:
        return torch.zeros_like(graph.edges[0], dtype=torch.bool)
    edges, images = graph.edges.cpu().numpy(), _edge_images(graph)
    directed = _directed_bonds(graph)
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


def edges_between_chain_images(graph: BeadGraph) -> Tensor:
    """Return which edges of a periodic graph join two chains, or two images of one, shape (e,).

    A chain that is bonded to its own image goes on for ever: along that direction its images are itself.
    """
    from scipy.sparse.csgraph import breadth_first_order

    n = len(graph.positions)
    i, j = graph.edges.cpu().numpy()
    chain = chains_of(graph.bonds, n).cpu().numpy()
    directed = _directed_bonds(graph)
    step_of = {(int(a), int(b)): s for a, b, s in zip(directed[:, 0], directed[:, 1], directed[:, 2:], strict=True)}
    place = np.zeros((n, 3), dtype=np.int64)  # the image in which each bead is, where its chain is whole
    adjacency = bond_adjacency(graph.bonds, n)
    for start in np.unique(chain, return_index=True)[1]:
        order, before = breadth_first_order(adjacency, int(start), directed=False)
        for bead in order[1:].tolist():
            place[bead] = place[before[bead]] + step_of[int(before[bead]), bead]
    # Where a bond does not lead to where its bead was placed, the chain comes back to itself one period on.
    periods = place[directed[:, 0]] + directed[:, 2:] - place[directed[:, 1]]
    between = _edge_images(graph) - (place[j] - place[i])
    same = chain[i] == chain[j]
    for number in np.unique(chain[i[same]]):
        own = same & (chain[i] == number)
        same[own] = _on_lattice(between[own], periods[chain[directed[:, 0]] == number])
    return torch.from_numpy(~same).to(graph.edges.device)


def _directed_bonds(graph: BeadGraph) -> Integers:
    """Return each bond in both directions, sorted by the first bead: rows of first, second and the image S, (2b, 5)."""
    if not graph.bonds.shape[1]:
        return np.zeros((0, 5), dtype=np.int64)
    bonds = graph.bonds.cpu().numpy()
    steps = graph.bonded_images(*graph.bonds).cpu().numpy().round().astype(np.int64)
    directed = np.concatenate([np.column_stack([*bonds, steps]), np.column_stack([*bonds[::-1], -steps])])
    return np.asarray(directed[np.argsort(directed[:, 0], kind="stable")])


def _edge_images(graph: BeadGraph) -> Integers:
    assert graph.edge_images is not None  # noqa: S101 - of periodic graphs
    return np.asarray(graph.edge_images.detach().cpu().numpy().round().astype(np.int64))


def _image_keys(i: Integers, j: Integers, images: Integers, n: int, reach: int) -> Integers:
    """Return one number for each pair of beads of n and image of at most `reach`, the same for both directions."""
    leading = np.sign(images @ np.array([9_000_000_000_000, 3_000_000, 1]))
    back = (i > j) | ((i == j) & (leading < 0))
    low, high = np.where(back, j, i), np.where(back, i, j)
    width = 2 * reach + 1
    shifted = np.where(back[:, None], -images, images) + reach
    return np.asarray((low * n + high) * width**3 + shifted @ np.array([width**2, width, 1]))


def _on_lattice(vectors: Integers, generators: Integers) -> NDArray[np.bool_]:
    """Return which vectors (m, 3) are sums of whole multiples of the generators (k, 3)."""
    rest, rows = vectors.copy(), [row for row in np.unique(generators, axis=0) if row.any()]
    whole = np.ones(len(vectors), dtype=bool)
    for axis in range(3):
        # Euclid's algorithm leaves one generator with a component along the axis.
        while len(leading := [row for row in rows if row[axis]]) > 1:
            least = min(leading, key=lambda row: abs(row[axis]))
            reduced = [row if row is least else row - (row[axis] // least[axis]) * least for row in rows]
            rows = [row for row in reduced if row.any()]
        if leading:
            (pivot,) = leading
            rows = [row for row in rows if row is not pivot]
            whole &= rest[:, axis] % pivot[axis] == 0
            rest -= (rest[:, axis] // pivot[axis])[:, None] * pivot
    return np.asarray(whole & ~rest.any(1))
