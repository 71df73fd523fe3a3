"""Whether a flow's samples have the bonds of the data."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.flows.base import ConditionalFlow
from ase_cg.flows.field import Normal

BATCH = 512
TOLERANCE = 0.1  # of a bond's standard deviation: what shifts it by that, or broadens it by an eighth
SMALLEST = 0.002  # Å; what nobody feels
FLOORS = 4  # by how much two parts of the data may differ from each other


class BondCheck(NamedTuple):
    """How a bond of samples compares with that of the data; all in Å.

    Attributes
    ----------
    beads : tuple of int
    wasserstein : float
        Between samples and data.
    floor : float
        Between two halves of the data.
    std : float
        Of the data.
    noise : float
        Wasserstein distance between the noised data and the data: what the flow had to undo. Of transitions 0 but for
        the floor, because earlier frames are data.
    """

    beads: tuple[int, int]
    wasserstein: float
    floor: float
    std: float
    noise: float

    @property
    def reproduced(self) -> bool:
        """Whether the samples have this bond of the data."""
        return self.wasserstein <= max(FLOORS * self.floor, TOLERANCE * self.std, SMALLEST)


def check_bonds(
    flow: ConditionalFlow,
    types: Tensor,
    frames: NDArray[np.float32],
    topology: BeadTopology,
    normal: Normal,
    earlier: NDArray[np.float32] | None = None,
) -> list[BondCheck]:
    """Add noise to frames, let the flow take it away, and compare the length of every bond.

    Parameters
    ----------
    flow : ConditionalFlow
    types : Tensor of int64, shape (N,)
    frames : ndarray, shape (F, N, 3)
        In Å, best such as training has not seen.
    topology : BeadTopology
    normal : callable
        Draws all that is random, for all frames at once.
    earlier : ndarray, shape (F, N, 3), optional
        Of a flow of transitions, one lag before: the flow draws from there.
    """
    from scipy.stats import wasserstein_distance

    if not topology.bonds or len(frames) < 2:
        return []
    first = next(flow.parameters())
    x = torch.from_numpy(frames).to(first)
    z = flow.add_noise(x, normal) if earlier is None else flow.pair(x, torch.from_numpy(earlier).to(x), normal)[1]
    numbers = [normal(x), normal(x)]  # for all frames at once, so that they do not depend on the batches
    drawn = []
    for at in range(0, len(z), BATCH):
        rows = slice(at, at + BATCH)
        drawn.append(flow.draw(z[rows], types.to(x.device), _given([part[rows] for part in numbers])))
    of_data, of_noise, of_samples = (_lengths(part, topology) for part in (x, z, torch.cat(drawn)))
    checks = []
    for number, beads in enumerate(topology.bonds):
        data, noised, found = of_data[:, number], of_noise[:, number], of_samples[:, number]
        finite = found[np.isfinite(found)]
        checks.append(
            BondCheck(
                beads=beads,
                wasserstein=float(wasserstein_distance(finite, data)) if len(finite) else float("inf"),
                floor=float(wasserstein_distance(data[::2], data[1::2])),
                std=float(data.std()),
                noise=float(wasserstein_distance(noised, data)),
            )
        )
    return checks


def describe_failures(checks: list[BondCheck], topology: BeadTopology) -> str:
    """Return which bonds do not reproduce the data, in words; empty where all do."""
    worst = sorted(
        (check for check in checks if not check.reproduced),
        key=lambda check: -check.wasserstein / max(check.std, SMALLEST),
    )
    named = [
        f"{i}–{j} ({topology.names[i]}–{topology.names[j]}: {check.wasserstein:.2g} Å of Wasserstein distance, the "
        f"data's deviation {check.std:.2g} Å, floor {check.floor:.1g} Å)"
        for check in worst[:5]
        for i, j in [check.beads]
    ]
    more = [f"and {len(worst) - 5} more"] if len(worst) > 5 else []
    return ", ".join([*named, *more])


def _given(drawn: list[Tensor]) -> Normal:
    """Return what gives numbers that were drawn before: first for positions, then perhaps for velocities."""
    parts = iter(drawn)
    return lambda like: next(parts).reshape(like.shape)


def _lengths(x: Tensor, topology: BeadTopology) -> NDArray[np.float64]:
    i, j = np.array(topology.bonds).T
    positions = x.detach().cpu().double().numpy()
    return np.asarray(np.linalg.norm(positions[:, i] - positions[:, j], axis=-1))
