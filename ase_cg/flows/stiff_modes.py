"""Which bonds and angles a molecule has, how far they fluctuate, and what axes its beads are seen in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError

SHORTEST = 0.01  # Å; beads nearer to each other than that show no direction
CHUNK = 1000  # frames at a time


Mode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


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

    def check(self, n_types: int) -> None:
        """Raise :class:`InputError` if the lists do not fit each other, or name a type that is not there."""
        beads = [*self.bonds, *self.angles, self.toward, self.references]
        fit = len(self.bonds) == len(self.bond_means) == len(self.bond_stds)
        fit &= len(self.angles) == len(self.angle_means) == len(self.angle_stds)
        fit &= len(self.toward) == len(self.references) == n_types
        fit &= all(0 <= bead < n_types for group in beads for bead in group)
        if not fit:
            raise InputError(f"bonds and angles of a flow do not fit its {n_types} types of beads")

    def joined(self, other: "StiffModes") -> "StiffModes":
        """Return both as one, the other's beads numbered after the own."""
        first = len(self.toward)

        def moved(values: list[Any]) -> list[Any]:
            return [[bead + first for bead in value] if isinstance(value, list) else value + first for value in values]

        beads = ("bonds", "angles", "toward", "references")
        later = {name: moved(part) if name in beads else part for name, part in other._asdict().items()}
        return StiffModes(**{name: part + later[name] for name, part in self._asdict().items()})


def stiff_modes(topology: BeadTopology, frames: Tensor) -> StiffModes:
    """Return the modes of a molecule.

    Parameters
    ----------
    topology : BeadTopology
    frames : Tensor, shape (F, N, 3)
        In Å, two or more.
    """
    bonds, angles = ([list(beads) for beads in group] for group in (topology.bonds, topology.angles))

    def moments(function: Mode, beads: list[list[int]], size: int) -> tuple[list[float], list[float]]:
        index = torch.tensor(beads, dtype=torch.int64).reshape(-1, size)
        chunks = range(0, len(frames), CHUNK)
        values = torch.cat([function(frames[start : start + CHUNK], index)[0] for start in chunks])
        mean = values.mean(0)
        return mean.tolist(), (values - mean).square().mean(0).sqrt().tolist()

    near = topology.neighbors
    toward = [(near[bead] or [bead])[0] for bead in range(topology.n_beads)]
    references = [
        next((other for other in [*near[to], *near[bead]] if other not in (bead, to)), bead)
        for bead, to in enumerate(toward)
    ]
    return StiffModes(
        bonds,
        *moments(bond_lengths, bonds, 2),
        angles,
        *moments(angle_cosines, angles, 3),
        toward,
        references,
    )


def bond_lengths(x: Tensor, bonds: Tensor) -> tuple[Tensor, Tensor]:
    """Return lengths (B, K) in Å, and their derivatives by the two beads, (B, K, 2, 3), of bonds (K, 2)."""
    apart = x[:, bonds[:, 0]] - x[:, bonds[:, 1]]
    length = apart.norm(dim=-1)
    direction = apart / length.clamp_min(SHORTEST)[..., None]
    return length, torch.stack([direction, -direction], -2)


def angle_cosines(x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines (B, K), and their derivatives by the three beads in 1/Å, (B, K, 3, 3), of angles (K, 3)."""
    one, other = (x[:, angles[:, end]] - x[:, angles[:, 1]] for end in (0, 2))
    lengths = [side.norm(dim=-1, keepdim=True).clamp_min(SHORTEST) for side in (one, other)]
    one, other = one / lengths[0], other / lengths[1]
    cosine = (one * other).sum(-1, keepdim=True)
    by_one, by_other = (other - cosine * one) / lengths[0], (one - cosine * other) / lengths[1]
    return cosine[..., 0], torch.stack([by_one, -by_one - by_other, by_other], -2)
