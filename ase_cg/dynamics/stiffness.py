"""The fastest motion of a molecule, and the time step it allows."""

import torch
from torch import Tensor

from ase_cg.dynamics.integrators import EnergyAndForces

ITERATIONS = 20
DISPLACEMENT = 0.005  # Å, of the bead that moves most: forces are linear there, and far above rounding


def fastest_frequency(energy_and_forces: EnergyAndForces, positions: Tensor, masses: Tensor) -> Tensor:
    """Return the highest angular frequency of each replica about where it is.

    It is √λ of the largest eigenvalue λ of the mass-weighted Hessian, by power iteration on differences of forces;
    two force evaluations an iteration.

    Parameters
    ----------
    energy_and_forces : callable
        See :class:`ase_cg.dynamics.integrators.Integrator`.
    positions : Tensor, shape (R, N, 3)
        In Å.
    masses : Tensor, shape (N, 1)
        In amu.

    Returns
    -------
    Tensor, shape (R,)
        In radians per ASE time unit.
    """
    root = torch.sqrt(masses)
    source = torch.Generator().manual_seed(0)
    vector = torch.randn(positions.shape, generator=source, dtype=torch.float64).to(positions.device)
    eigenvalue = positions.new_zeros(len(positions), 1, 1)
    for _ in range(ITERATIONS):
        direction = vector / root
        small = DISPLACEMENT / torch.linalg.vector_norm(direction, dim=2, keepdim=True).amax(1, keepdim=True)
        # A form may use its results' memory again.
        ahead = energy_and_forces(positions + small * direction)[1].clone()
        behind = energy_and_forces(positions - small * direction)[1]
        image = (behind - ahead) / (2 * small * root)
        norm = torch.sqrt((vector * vector).sum((1, 2), keepdim=True))
        length = torch.sqrt((image * image).sum((1, 2), keepdim=True))
        eigenvalue = length / norm
        vector = torch.where(length > 0, image / length.clamp_min(1e-300), vector / norm)
    return torch.sqrt(eigenvalue)[:, 0, 0]
