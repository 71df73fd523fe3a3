"""How two conformations are turned towards each other, and what turning leaves of labels."""

import torch
from torch import Tensor, nn

from ase_cg.flows.field import Normal, centered

SMALLEST_INERTIA = 1e-6  # Å²; about the axis of a straight molecule any angle is as good
STRAIGHT = 1e-5  # of the largest moment of inertia: what rounding leaves of the smallest one of a straight molecule


def oriented(x: Tensor, z: Tensor, normal: Normal, *, width: float) -> tuple[Tensor, Tensor]:
    """Superpose conformations on others, and turn them by small random rotations.

    Let (z, x) be pairs whose density does not change where both are turned together. Any rule that turns x by a
    rotation R(x, z, noise), and turns with z, gives pairs (z, Rx) with the same property; then Rx given the shape of x
    is uniform in orientation, so that its density is that of x where the density of x is invariant. The rule may
    therefore be chosen so that the tumbling of the molecule is gone. The optimal superposition alone leaves no density
    in the space of positions: Σ zᵢ × (Rx)ᵢ = 0 always. A random rotation after it does, exp(ω) with
    ω ~ N(0, σ² I⁻¹), I being the tensor of inertia of z at unit masses: it moves beads by σ in each of the
    directions of rotation. About the axis of molecules so slender that they would turn by more than 1 rad, it is 1 rad,
    and of straight ones nothing: the rotation about one axis would else take those about the others back.

    Parameters
    ----------
    x, z : Tensor, shape (B, N, 3)
        In Å.
    normal : callable
        Draws all that is random.
    width : float
        σ in Å.

    Returns
    -------
    tuple of Tensor
        Turned x, and z, both mean-free.
    """
    x, z = centered(x), centered(z)
    spread, axes = torch.linalg.eigh(inertia(z))
    # The symmetric root: whichever signs the axes come with, the same numbers give the same rotation.
    turn = torch.einsum("bik,bi->bk", axes, normal(z[:, 0])) / spread.clamp(min=width**2).sqrt()
    turn = turn.masked_fill(spread < STRAIGHT * spread[:, 2:], 0.0)
    angle = width * torch.einsum("bik,bk->bi", axes, turn)
    half = angle.norm(dim=1, keepdim=True) / 2
    small = rotations(torch.cat([half.cos(), torch.sinc(half / torch.pi) * angle / 2], 1))
    return superposed(x, z) @ small.transpose(1, 2), z


def superposed(x: Tensor, z: Tensor) -> Tensor:
    """Return mean-free conformations x turned onto z, both (B, N, 3), with the least mean square distance.

    Source: Kabsch, Acta Crystallographica A 34, 827 (1978).
    """
    left, right = torch.linalg.svd(x.transpose(1, 2) @ z)[::2]
    sign = torch.linalg.det(left) * torch.linalg.det(right)
    flip = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], 1)
    turn: Tensor = (left * flip[:, None]) @ right
    return x @ turn


def without_torque(forces: Tensor, x: Tensor) -> Tensor:
    """Return forces less what turns the molecule as a whole, both (B, N, 3), of mean-free x and forces.

    The force of a free energy that no rotation changes has no torque. Labels at x have it as mean, so that their torque
    is noise alone, and may be taken out.
    """
    torque = torch.linalg.cross(x, forces).sum(1)
    spread, axes = torch.linalg.eigh(inertia(x))
    turn = torch.einsum("bik,bi->bk", axes, torque) / spread.clamp(min=SMALLEST_INERTIA)
    turn = turn.masked_fill(spread < SMALLEST_INERTIA, 0.0)
    omega = torch.einsum("bik,bk->bi", axes, turn)
    turning: Tensor = torch.linalg.cross(omega[:, None].expand_as(x), x)
    return forces - turning


def inertia(x: Tensor) -> Tensor:
    """Return Σ (|x|² 1 − x xᵀ), shape (B, 3, 3) in Å², of mean-free positions (B, N, 3)."""
    second = x.transpose(1, 2) @ x
    trace = second.diagonal(dim1=1, dim2=2).sum(1)
    return trace[:, None, None] * torch.eye(3, dtype=x.dtype, device=x.device) - second


def rotations(numbers: Tensor) -> Tensor:
    """Return rotations, (B, 3, 3), from quaternions of any length; of normal numbers they are uniform."""
    w, x, y, z = nn.functional.normalize(numbers, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
