"""Internal coordinates of bonded beads, differentiable and finite everywhere."""

import torch
from torch import Tensor

from ase_cg.data.graph import BeadGraph

SMALL = 1e-12  # Å⁴; keeps gradients finite where three beads lie on a line
COLLINEAR = 0.014  # product of the sines of two angles, below which their dihedral fades out


def bond_lengths(graph: BeadGraph) -> Tensor:
    """Return bond lengths in Å, shape (b,)."""
    lengths: Tensor = torch.linalg.vector_norm(graph.bonded_vectors(*graph.bonds), dim=-1)
    return lengths


def angle_vectors(graph: BeadGraph) -> tuple[Tensor, Tensor]:
    """Return the vectors from the vertex of each angle to its ends, each of shape (a, 3)."""
    i, j, k = graph.angles
    return graph.bonded_vectors(j, i), graph.bonded_vectors(j, k)


def bond_angles(graph: BeadGraph) -> Tensor:
    """Return angles in rad, shape (a,)."""
    left, right = angle_vectors(graph)
    cross = torch.linalg.cross(left, right, dim=-1)
    # atan2 keeps its precision near 0 and π, where acos loses it; the floor keeps its gradient finite there.
    sine = torch.sqrt((cross * cross).sum(-1).clamp_min(SMALL))
    return torch.atan2(sine, (left * right).sum(-1))


def angle_cosines(graph: BeadGraph) -> Tensor:
    """Return the cosines of angles, shape (a,)."""
    left, right = angle_vectors(graph)
    lengths = torch.linalg.vector_norm(left, dim=-1) * torch.linalg.vector_norm(right, dim=-1)
    cosines: Tensor = (left * right).sum(-1) / lengths.clamp_min(SMALL)
    return cosines


def dihedral_cosine_and_sine(graph: BeadGraph) -> tuple[Tensor, Tensor]:
    """Return cos φ and sin φ of each dihedral (IUPAC sign), each of shape (d,).

    Where three of the four beads lie on a line φ is not defined and its gradient diverges. Both are therefore
    multiplied by q⁸/(q⁸ + q₀⁸), with q the product of the sines of the two angles and q₀ = 0.014: nearer to 1 than
    10⁻¹⁰ while both angles stay below 150°, and zero, with its gradient, on the line.
    """
    i, j, k, last = graph.dihedrals
    first, middle, third = graph.bonded_vectors(i, j), graph.bonded_vectors(j, k), graph.bonded_vectors(k, last)
    left, right = torch.linalg.cross(first, middle, dim=-1), torch.linalg.cross(middle, third, dim=-1)
    x = (left * right).sum(-1)
    y = torch.linalg.vector_norm(middle, dim=-1) * (first * right).sum(-1)
    squares = [(vector * vector).sum(-1) for vector in (first, middle, third)]
    squared = (x * x + y * y).clamp_min(SMALL)
    q8 = (squared / (squares[0] * squares[1] ** 2 * squares[2]).clamp_min(SMALL)) ** 4
    factor = q8 / (q8 + COLLINEAR**8) / torch.sqrt(squared)
    return x * factor, y * factor


def dihedral_angles(graph: BeadGraph) -> Tensor:
    """Return dihedral angles in rad between −π and π, shape (d,)."""
    cosine, sine = dihedral_cosine_and_sine(graph)
    return torch.atan2(sine, cosine)
