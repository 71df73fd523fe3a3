"""Pairs beyond the cutoff, left out where that is cheaper than computing their zeros."""

import torch

from ase_cg.data.graph import BeadGraph

WORTHWHILE = 64  # pairs; below it the selection costs more than it saves


def near_pairs(graph: BeadGraph, cutoff: float) -> BeadGraph:
    """Return the graph with the pairs nearer than `cutoff` (in Å) only, or as it is.

    Left as it is while it is small, and where shapes must not depend on values: on a GPU, which would have to wait
    for the count, under `torch.compile`, and while a graph is traced, which would keep the pairs of its example. A
    pair whose distance is not a number stays, so that it is noticed.
    """
    if graph.edges.shape[1] < WORTHWHILE or graph.positions.is_cuda or _traced():
        return graph
    with torch.no_grad():
        vectors = graph.edge_vectors()
        near = ~((vectors * vectors).sum(-1) >= cutoff**2)
        if near.all():
            return graph
        images = None if graph.edge_images is None else graph.edge_images[near]
        return graph._replace(edges=graph.edges[:, near], edge_images=images)


def _traced() -> bool:
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    return torch.compiler.is_compiling() or get_proxy_mode() is not None
