"""Size and time of the backbones: energies and forces, and a step of training, at their default sizes.

    OMP_NUM_THREADS=1 python benchmarks/backbones.py

The backbones are measured in turn, round by round, and the median of the rounds is printed.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import BeadGraph, topology_graph
from ase_cg.models.backbones import make_backbone
from ase_cg.models.base import Backbone, energy_and_forces

PROTEIN: dict[str, dict[str, object]] = {
    "schnet": {"cutoff": 12.0, "n_interactions": 4},
    "painn": {"cutoff": 12.0, "n_basis": 32, "n_interactions": 3},
    "mace": {"cutoff": 12.0, "n_basis": 10, "hidden_irreps": "64x0e + 64x1o", "avg_num_neighbors": 20.0},
}
ROUNDS = 7


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    print("Defaults, milliseconds:\n")
    print("| backbone | parameters | 6 beads | 64 × 6 beads | training step |\n| --- | --- | --- | --- | --- |")
    table({name: {} for name in PROTEIN}, [(6, 1, False), (6, 64, False), (6, 64, True)])
    print("\nSettings for proteins, milliseconds:\n")
    print("| backbone | parameters | 100 beads | training step, 4 × 100 beads |\n| --- | --- | --- | --- |")
    table(PROTEIN, [(100, 1, False), (100, 4, True)])


def table(settings: dict[str, dict[str, object]], cases: list[tuple[int, int, bool]]) -> None:
    """Measure all cases of all backbones, in turn."""
    networks = {name: make_backbone(name, 20, dict(options)) for name, options in settings.items()}
    work = {
        (name, case): call(network, chain(case[0], case[1]), training=case[2])
        for name, network in networks.items()
        for case in cases
    }
    times: dict[tuple[str, tuple[int, int, bool]], list[float]] = {key: [] for key in work}
    for _ in range(ROUNDS + 1):
        for key, function in work.items():
            times[key].append(timed(function))
    for name, network in networks.items():
        # The first round warms up.
        shown = " | ".join(f"{1e3 * np.median(times[name, case][1:]):.1f}" for case in cases)
        print(f"| {name} | {sum(p.numel() for p in network.parameters())} | {shown} |")


def chain(n_beads: int, copies: int) -> BeadGraph:
    """Return compact random chains with bonds of 3.8 Å (1.5 Å for dipeptides)."""
    rng = np.random.default_rng(0)
    names = tuple(f"T{i % 20}" for i in range(n_beads))
    topology = BeadTopology(
        names,
        names,
        tuple(range(n_beads)),
        (0,) * n_beads,
        (12.0,) * n_beads,
        tuple((i, i + 1) for i in range(n_beads - 1)),
    )
    steps = rng.standard_normal((copies, n_beads, 3))
    length = 1.5 if n_beads < 20 else 3.8
    x = np.cumsum(length * steps / np.linalg.norm(steps, axis=-1, keepdims=True), axis=1)
    graph = topology_graph(topology, tuple(f"T{i}" for i in range(20)), copies)
    return graph._replace(positions=torch.tensor(x, dtype=torch.float32).reshape(-1, 3))


def call(network: Backbone, graph: BeadGraph, *, training: bool) -> Callable[[], None]:
    """Return what is timed."""

    def evaluate() -> None:
        network.requires_grad_(requires_grad=False)
        energy_and_forces(network, graph)

    def step() -> None:
        network.requires_grad_(requires_grad=True)
        _, forces = energy_and_forces(network, graph, training=True)
        network.zero_grad()
        (forces**2).mean().backward()

    return step if training else evaluate


def timed(function: Callable[[], None], seconds: float = 0.3) -> float:
    """Return the mean time of a call over a while."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        function()
        count += 1
    return (time.perf_counter() - started) / count


if __name__ == "__main__":
    main()
