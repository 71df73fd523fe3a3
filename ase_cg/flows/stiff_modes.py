"""Which bonds and angles a molecule has, how far they fluctuate, and what axes its beads are seen in."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_cg.beads.topology import BeadTopology


class StiffModes(NamedTuple):
    """Bonds and angles with their fluctuations in data, by bead; of several molecules in one flow, by type.

    Attributes
    ----------
    bonds, angles : list of list of int
        Two and three beads each; the middle one of an angle stands in the middle.
    bond_means, bond_stds : list of float
        Of lengths, in Å.
    angle_means, angle_stds : list of float
        Of cosines.
    toward : list of int
        Bead that a bead's first axis points to: a bonded one, or itself where there is none.
    references : list of int
        Another near bead, which shows the second axis; itself where there is none.
    """

    bonds: list[list[int]]
    bond_means: list[float]
    bond_stds: list[float]
    angles: list[list[int]]
    angle_means: list[float]
    angle_stds: list[float]
    toward: list[int]
    references: list[int]

    def joined(self, other: "StiffModes") -> "StiffModes":
        """Return both as one, the other's beads numbered after the own."""
        first = len(self.toward)

        def moved(values: list[Any]) -> list[Any]:
            return [[bead + first for bead in value] if isinstance(value, list) else value + first for value in values]

        beads = ("bonds", "angles", "toward", "references")
        later = {name: moved(part) if name in beads else part for name, part in other._asdict().items()}
        return StiffModes(**{name: part + later[name] for name, part in self._asdict().items()})


def stiff_modes(topology: BeadTopology, frames: Tensor, weights: Tensor | None = None) -> StiffModes:
    """Return the modes of a molecule.

    Parameters
    ----------
    topology : BeadTopology
    frames : Tensor, shape (F, N, 3)
        In Å, two or more.
    weights : Tensor, shape (F,), optional
        By default all frames count the same.
    """
    bonds, angles = ([list(beads) for beads in group] for group in (topology.bonds, topology.angles))
    counted = frames.new_ones(len(frames)) if weights is None else weights.to(frames)
    shares = (counted / counted.sum())[:, None]

    def moments(values: Tensor) -> tuple[list[float], list[float]]:
        mean = (shares * values).sum(0)
        spread = (shares * (values - mean).square()).sum(0).sqrt()
        return mean.tolist(), spread.tolist()

    near = topology.neighbors
    toward = [(near[bead] or [bead])[0] for bead in range(topology.n_beads)]
    references = [
        next((other for other in [*near[to], *near[bead]] if other not in (bead, to)), bead)
        for bead, to in enumerate(toward)
    ]
    return StiffModes(
        bonds,
        *moments(bond_lengths(frames, torch.tensor(bonds, dtype=torch.int64).reshape(-1, 2))[0]),
        angles,
        *moments(angle_cosines(frames, torch.tensor(angles, dtype=torch.int64).reshape(-1, 3))[0]),
        toward,
        references,
    )


def bond_lengths(x: Tensor, bonds: Tensor) -> tuple[Tensor, Tensor]:
    """Return lengths (B, K) in Å, and their derivatives by the two beads, (B, K, 2, 3), of bonds (K, 2)."""
    apart = x[:, bonds[:, 0]] - x[:, bonds[:, 1]]
    length = apart.norm(dim=-1)
    direction = apart / length[..., None]
    return length, torch.stack([direction, -direction], -2)


def angle_cosines(x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines (B, K), and their derivatives by the three beads in 1/Å, (B, K, 3, 3), of angles (K, 3)."""
    one, other = (x[:, angles[:, end]] - x[:, angles[:, 1]] for end in (0, 2))
    lengths = [side.norm(dim=-1, keepdim=True) for side in (one, other)]
    one, other = one / lengths[0], other / lengths[1]
    cosine = (one * other).sum(-1, keepdim=True)
    by_one, by_other = (other - cosine * one) / lengths[0], (one - cosine * other) / lengths[1]
    return cosine[..., 0], torch.stack([by_one, -by_one - by_other, by_other], -2)
