"""The kernel of harmonic bonds and angles: what a coupling flow begins as, and the axes that it works in."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ase_cg.errors import InputError
from ase_cg.flows.stiff_modes import StiffModes, angle_cosines, bond_lengths

Mode = tuple[Tensor, Tensor, Tensor]  # beads of modes of a kind, means, and standard deviations

NEARLY_STRAIGHT = 1e-3  # sine of the angle below which a neighbour shows no direction across the bond
LEAST = 1e-6  # Å or of a cosine, where a mode does not move at all
NARROWEST = 1e-2  # times the noise: a mode that fluctuates less is as good as rigid


class Place(NamedTuple):
    """The harmonic kernel at given conditionings.

    Attributes
    ----------
    axes : Tensor, shape (B, N, 3, 3)
        Rows are the axes of each bead, orthonormal.
    shift : Tensor, shape (B, 3N)
        Mean displacement of the kernel along these axes, in Å.
    factor : Tensor, shape (B, 3N, 3N)
        Cholesky factor L of its precision L Lᵀ, in 1/Å.
    log_det : Tensor, shape (B,)
        Of :meth:`into`.
    heads : Tensor, shape (B, H + 2, N, N)
        How much of each other bead's vectors a bead gathers.
    context : Tensor, shape (B, N, C)
        What is seen of the conditioning.
    """

    axes: Tensor
    shift: Tensor
    factor: Tensor
    log_det: Tensor
    heads: Tensor
    context: Tensor

    def into(self, displacements: Tensor) -> Tensor:
        """Return numbers that are N(0, 1) where displacements (B, N, 3) are those of the harmonic kernel."""
        own = torch.einsum("bikx,bix->bik", self.axes, displacements).flatten(1) - self.shift
        return torch.einsum("bji,bj->bi", self.factor, own).view(displacements.shape)

    def out_of(self, numbers: Tensor) -> Tensor:
        """Return displacements in Å of such numbers; the way back of :meth:`into`."""
        solved = torch.linalg.solve_triangular(self.factor.mT, numbers.flatten(1)[..., None], upper=True)[..., 0]
        return torch.einsum("bikx,bik->bix", self.axes, (solved + self.shift).view(numbers.shape))

    def seen(self, given: Tensor) -> Tensor:
        """Return vectors of each bead, with what all heads gather of those of others, along the bead's own axes."""
        vectors = torch.einsum("bjkx,bjk->bjx", self.axes, given)
        gathered = torch.einsum("bhij,bjx->bihx", self.heads, vectors)
        return torch.cat([given, torch.einsum("bikx,bihx->bihk", self.axes, gathered).flatten(2)], -1)


class HarmonicStart(nn.Module):
    """Displacements u = x − z of data with harmonic bonds and angles ξ, given z with noise of σ.

    To first order in u, ln k(x | z) = −u²/(2σ²) − Σ (ξ(z) + u·∇ξ(z) − ξ̄)²/(2 var ξ): a Gaussian of the precision
    P = 1/σ² + Σ ∇ξ ∇ξᵀ/var ξ and the mean −P⁻¹ Σ (ξ(z) − ξ̄) ∇ξ/var ξ. It depends on the conditioning only, and is taken
    along axes of each bead: towards a bonded one, across that bond towards a neighbour, and across both. Axes turn with
    the molecule, but for beads without bonds, pairs and straight chains: axes of the laboratory stand in for theirs.

    Parameters
    ----------
    modes : StiffModes
        By type.
    noise_std : float
        In Å.
    n_heads : int
        Of attention.
    """

    def __init__(self, modes: StiffModes, noise_std: float, n_heads: int) -> None:
        super().__init__()
        self.modes, self.noise_std = modes, noise_std
        self.given_size = 3 * (n_heads + 3)
        self.context_size = 3 * (1 + n_heads) + self.given_size

    def at(self, z: Tensor, types: Tensor, attention: Tensor) -> Place:
        """Return the kernel at conditionings (B, N, 3) in Å, given attention (B, H, N, N).

        Raises
        ------
        InputError
            If beads share a type: then types do not tell which beads are bonded.
        """
        toward, reference, groups = self._of(types, z)
        bonds, others = z[:, toward] - z, z[:, reference] - z
        axes = bead_axes(bonds, others)
        around = torch.einsum("bhij,bjx->bhix", attention, z) - z[:, None]
        near = torch.einsum("bikx,bhix->bihk", axes, torch.cat([others[:, None], around], 1))
        precision, pull = self._precision(z, axes, groups)
        # Frames that are no numbers stay so, and are dropped as others that fail.
        factor, failed = torch.linalg.cholesky_ex(precision)
        factor = torch.where(failed[:, None, None] == 0, factor, torch.nan)
        shift = -torch.cholesky_solve(pull[..., None], factor)[..., 0]
        log_det = factor.diagonal(dim1=1, dim2=2).log().sum(-1)
        next_to = torch.nn.functional.one_hot(toward, len(types)).to(z)
        tree = torch.stack([next_to, next_to.T]).expand(len(z), -1, -1, -1)
        place = Place(axes, shift, factor, log_det, torch.cat([attention, tree], 1), z)
        moved = place.seen(shift.view(z.shape) / self.noise_std)
        return place._replace(context=torch.cat([near.flatten(2), moved], -1))

    def _precision(self, z: Tensor, axes: Tensor, groups: list[Mode]) -> tuple[Tensor, Tensor]:
        """Return P, (B, 3N, 3N), and Σ (ξ − ξ̄) ∇ξ/var ξ, (B, 3N), along the axes."""
        count, found = z.shape[1], []
        for (beads, mean, std), function in zip(groups, (bond_lengths, angle_cosines), strict=True):
            value, slopes = function(z, beads)
            along = torch.einsum("bmskx,bmsx->bmsk", axes[:, beads], slopes)
            # A mode as narrow as rounding would make the matrix singular.
            smallest = NARROWEST * self.noise_std * slopes.square().sum((2, 3)).sqrt()
            width = std.expand_as(value).maximum(smallest).clamp_min(LEAST)
            spread = along.new_zeros(*along.shape[:2], count, 3)
            spread.scatter_(2, beads[None, :, :, None].expand_as(along), along)
            found.append((spread.flatten(2) / width[..., None], (value - mean) / width))
        rows, misses = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        identity = torch.eye(3 * count, dtype=z.dtype, device=z.device) / self.noise_std**2
        return identity + rows.mT @ rows, torch.einsum("bm,bmk->bk", misses, rows)

    def _of(self, types: Tensor, z: Tensor) -> tuple[Tensor, Tensor, list[Mode]]:
        """Return by bead where axes come from, and the bonds and the angles of this molecule."""
        modes, own = self.modes, {kind: bead for bead, kind in enumerate(types.tolist())}
        if len(own) < len(types):
            raise InputError("a flow that begins with harmonic bonds needs beads that are types of their own")
        ends = [[own[kinds[kind]] for kind in own] for kinds in (modes.toward, modes.references)]
        toward, references = torch.tensor(ends, device=z.device)
        found: list[Mode] = []
        for size, *group in (
            (2, modes.bonds, modes.bond_means, modes.bond_stds),
            (3, modes.angles, modes.angle_means, modes.angle_stds),
        ):
            rows = [row for row in zip(*group, strict=True) if all(kind in own for kind in row[0])]
            beads = torch.tensor([[own[kind] for kind in row[0]] for row in rows], dtype=torch.int64, device=z.device)
            numbers = torch.tensor([row[1:] for row in rows]).to(z).reshape(-1, 2)
            found.append((beads.reshape(-1, size), numbers[:, 0], numbers[:, 1]))
        return toward, references, found


def bead_axes(bonds: Tensor, others: Tensor) -> Tensor:
    """Return orthonormal axes, rows (…, 3, 3): along bonds, across them towards others, and across both.

    Where there is no bond, or the other lies along it, an axis of the laboratory takes its place.
    """
    laboratory = torch.eye(3, dtype=bonds.dtype, device=bonds.device)
    tiny = torch.finfo(bonds.dtype).tiny
    length = bonds.norm(dim=-1, keepdim=True)
    first = torch.where(length > tiny, bonds / length.clamp_min(tiny), laboratory[0])
    across = others - (others * first).sum(-1, keepdim=True) * first
    substitute = laboratory[first.abs().argmin(-1)]
    substitute = substitute - (substitute * first).sum(-1, keepdim=True) * first
    straight = across.norm(dim=-1, keepdim=True) <= NEARLY_STRAIGHT * others.norm(dim=-1, keepdim=True)
    across = torch.where(straight, substitute, across)
    second = across / across.norm(dim=-1, keepdim=True)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -2)
