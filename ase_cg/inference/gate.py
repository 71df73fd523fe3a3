"""How far a fast form may be from the model itself."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError
from ase_cg.models.base import energy_and_forces
from ase_cg.models.model import CGModel, prepared_copy

GATE = 1e-5  # relative error of the forces
CHECKED_FRAMES = 8
# Two beads of a frame are brought to these shares of the least distance in the frames, one after the other.
SHARES = (0.85, 0.7, 0.5, 0.35, 0.25, 0.15)
PROBES = 4  # pairs for each of them


class Gate:
    """The model's own forces on frames of its data, and with beads closer than in these, to compare others with.

    Parameters
    ----------
    model : CGModel
    topology : BeadTopology
        Of N beads.
    frames : ndarray, shape (F, N, 3)
        In Å.
    limit : float
        Greatest root-mean-square error of forces, relative to that of the forces.
    device : torch.device

    Raises
    ------
    InputError
        If the model's forces on the frames are not finite.

    Attributes
    ----------
    least : float
        Least distance between two beads in the frames, in Å; infinite of a single bead.
    """

    def __init__(
        self,
        model: CGModel,
        topology: BeadTopology,
        frames: NDArray[np.float64],
        limit: float,
        device: torch.device,
    ) -> None:
        self.limit = limit
        self.frames = torch.as_tensor(frames[:CHECKED_FRAMES], dtype=torch.float64, device=device)
        self._exact = prepared_copy(model, device, "float64")
        self._graph = self._exact.graph(topology)
        self.forces = self._forces(self.frames)
        self.least = float(pair_distances(self.frames).min()) if topology.n_beads > 1 else math.inf
        self._closer: dict[float, tuple[Tensor, Tensor]] = {}
        if not bool(torch.isfinite(self.forces).all()):
            raise InputError("the model's forces on the frames it is checked with are not finite; give other frames")

    def error(self, function: Callable[[Tensor], tuple[Tensor, ...]], replicas: int) -> float:
        """Return the relative error of the forces of a function of positions (replicas, N, 3)."""
        found = _evaluated(function, self.frames, replicas)
        # Relative to the thermal scale where there are no forces at all.
        scale = self.forces.norm().clamp_min(torch.finfo(torch.float64).tiny)
        return float((found - self.forces).norm() / scale)

    def error_closer(self, function: Callable[[Tensor], tuple[Tensor, ...]], replicas: int, share: float) -> float:
        """Return the greatest relative error of a frame in which two beads are closer than in all frames.

        Parameters
        ----------
        function : callable
            Of positions (replicas, N, 3).
        replicas : int
        share : float
            Of the least distance in the frames.
        """
        if math.isinf(self.least):
            return 0.0
        if share not in self._closer:
            probes = _with_close_pairs(self.frames, share * self.least)
            self._closer[share] = (probes, self._forces(probes))
        probes, forces = self._closer[share]
        difference = _evaluated(function, probes, replicas) - forces
        error = float((difference.norm(dim=(1, 2)) / forces.norm(dim=(1, 2))).max())
        return error if error == error else math.inf  # noqa: PLR0124 - NaN differs from itself

    def closest(self, function: Callable[[Tensor], tuple[Tensor, ...]], replicas: int) -> float:
        """Return down to which distance between two beads, in Å, forces of a function are within the limit."""
        reached = 1.0
        for share in SHARES:
            if not self.error_closer(function, replicas, share) <= self.limit:
                break
            reached = share
        return 0.0 if math.isinf(self.least) else reached * self.least

    def _forces(self, frames: Tensor) -> Tensor:
        return torch.stack([energy_and_forces(self._exact, self._graph._replace(positions=x))[1] for x in frames])


def pair_distances(positions: Tensor) -> Tensor:
    """Return the distances of all pairs of N beads, shape (R, N(N−1)/2), at positions (R, N, 3)."""
    i, j = torch.triu_indices(positions.shape[1], positions.shape[1], offset=1, device=positions.device)
    distances: Tensor = torch.linalg.vector_norm(positions[:, i] - positions[:, j], dim=-1)
    return distances


def _with_close_pairs(frames: Tensor, distance: float) -> Tensor:
    """Return frames (4, N, 3), in each of which the beads of a pair are moved towards each other to a distance."""
    random = np.random.default_rng(0)
    probes = frames[torch.arange(PROBES, device=frames.device) % len(frames)].clone()
    for number, probe in enumerate(probes):
        apart = pair_distances(probe[None])[0]
        i, j = torch.triu_indices(len(probe), len(probe), offset=1)
        # The nearest pair, which a run brings together first, and others at random.
        pair = int(apart.argmin()) if number == 0 else int(random.integers(len(apart)))
        first, second = int(i[pair]), int(j[pair])
        middle, half = (probe[first] + probe[second]) / 2, (probe[second] - probe[first]) / 2
        reduced = half * (distance / apart[pair]).clamp_max(1.0)
        probe[first], probe[second] = middle - reduced, middle + reduced
    return probes


def _evaluated(function: Callable[[Tensor], tuple[Tensor, ...]], frames: Tensor, replicas: int) -> Tensor:
    """Return the forces of a function of positions (replicas, N, 3) on any number of frames, in double precision."""
    found = []
    for start in range(0, len(frames), replicas):
        part = frames[start : start + replicas]
        padded = torch.cat([part, part[:1].expand(replicas - len(part), -1, -1)])
        found.append(function(padded)[1][: len(part)])
    return torch.cat(found).to(frames)


def frames_to_check(model: CGModel, topology: BeadTopology, frames: ArrayLike | None) -> NDArray[np.float64]:
    """Return frames (F, N, 3) in Å: those given, or those the model keeps.

    Raises
    ------
    InputError
        If there are none, or they do not fit the molecule.
    """
    if frames is None:
        frames = model.frames_of(topology)
    if frames is None:
        raise InputError(
            "the model's file holds no frames of its data to check the compiled forces with; give frames=…, positions "
            "of shape (F, N, 3) in Å"
        )
    found = np.asarray(frames, dtype=float)
    if found.ndim == 2:
        found = found[None]
    if found.ndim != 3 or found.shape[1:] != (topology.n_beads, 3) or not len(found):
        raise InputError(f"frames of shape {found.shape} do not fit (F, {topology.n_beads}, 3)")
    if not np.isfinite(found).all():
        raise InputError("the frames to check the compiled forces with have positions that are no numbers")
    return found
