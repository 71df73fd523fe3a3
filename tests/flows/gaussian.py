"""The optimal field of Gaussian data, whose flow is known in closed form."""

import torch
from torch import Tensor

from ase_cg.flows.field import VectorField, centered


class GaussianField(VectorField):
    """v = (1 − t) Σ² ∇ ln p_t, Σ² = σ_n² + σ_p², of data N(0, C) in the mean-free subspace; not equivariant.

    p_t = N(0, C + (1 − t)² Σ² + s²). In a mode of variance c the path is x(t) ∝ √(c + (1 − t)² Σ² + s²).
    """

    def __init__(self, covariance: Tensor, *, noise_std: float, prior_std: float, path_std: float) -> None:
        super().__init__()
        n_coordinates = len(covariance)
        eye = torch.eye(n_coordinates, dtype=covariance.dtype)
        project = centered(eye.reshape(n_coordinates, -1, 3)).reshape(n_coordinates, n_coordinates)
        variances, modes = torch.linalg.eigh(project @ covariance @ project + 1e3 * (eye - project))
        self.variances, self.modes = variances[:-3], modes[:, :-3]  # the last three are translations
        self.taken, self.path = noise_std**2 + prior_std**2, path_std**2

    def forward(self, time: Tensor, x: Tensor, types: Tensor) -> Tensor:
        left = 1 - time.reshape(-1, 1)
        rate = -left * self.taken / (self.variances + left.square() * self.taken + self.path)
        return (((x.flatten(1) @ self.modes) * rate) @ self.modes.T).reshape(x.shape)

    def shrinkage(self) -> Tensor:
        """Return by what the path multiplies each mode, from t = 0 to t = 1."""
        return ((self.variances + self.path) / (self.variances + self.taken + self.path)).sqrt()


def spread_covariance(n_beads: int) -> Tensor:
    """Return a covariance in Å² whose modes lie between a stiff bond's and a soft one's."""
    random = torch.randn(3 * n_beads, 3 * n_beads, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    modes, _ = torch.linalg.qr(random)
    return modes @ torch.diag(torch.logspace(-3, 0, 3 * n_beads, dtype=torch.float64)) @ modes.T
