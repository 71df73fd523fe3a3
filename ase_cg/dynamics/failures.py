"""What counts as an exploded replica, and what is kept of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_cg.beads.topology import BeadTopology
from ase_cg.data.neighbors import coincident_pair
from ase_cg.dynamics.forms import Step
from ase_cg.dynamics.noise import NoiseBlocks
from ase_cg.dynamics.state import State, on_host
from ase_cg.keys import COINCIDENT, MAX_BEAD_ENERGY, MAX_FORCE
from ase_cg.units import FEMTOSECOND

BOND_FACTOR, BOND_MARGIN = 3.0, 3.0  # a bond is torn beyond 3 times its longest starting length and 3 Å more
DISTANCES_AT_ONCE = 4_000_000
LAST_STEPS = 10  # frames, one a step, that are kept of the end of an exploded replica


class End(NamedTuple):
    """How an exploded replica ended.

    Attributes
    ----------
    step : int
        The first step at which it was beyond a limit.
    reason : str
        Which bead, and which limit.
    last_steps : tuple of int
    last_frames : ndarray, shape (k, N, 3)
        Where it was at those steps, the last before the end, in Å.
    """

    step: int
    reason: str
    last_steps: tuple[int, ...] = ()
    last_frames: NDArray[np.float64] = np.zeros((0, 0, 3))


class Stop(NamedTuple):
    """A replica that was stopped because it exploded.

    Attributes
    ----------
    replica : int
        Its number.
    last_good_step : int
        The last step at which all was looked at, and good: there its trajectory ends.
    step, reason, last_steps, last_frames
        See :class:`End`.
    """

    replica: int
    last_good_step: int
    step: int
    reason: str
    last_steps: tuple[int, ...] = ()
    last_frames: NDArray[np.float64] = np.zeros((0, 0, 3))

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON keeps, without the frames."""
        return {name: value for name, value in self._asdict().items() if name != "last_frames"}

    @classmethod
    def from_dict(cls, data: dict[str, Any], frames: NDArray[np.float64]) -> Self:
        """Make it from what :meth:`to_dict` returned and the frames."""
        return cls(**(data | {"last_steps": tuple(data["last_steps"]), "last_frames": frames}))


def stop_sentence(stops: Sequence[Stop], time_step: float, allowed: float) -> str:
    """Say which replicas stopped; `allowed` is the time step that the fastest motion of the first of them allows."""
    first = stops[0]
    others = f" (and {len(stops) - 1} more)" if len(stops) > 1 else ""
    advice = "other starts, or more data for the model, may help"
    if allowed < time_step:
        advice = f"try a time step of {allowed / FEMTOSECOND:.2g} fs"
    return (
        f"the simulation left the model's range: replica {first.replica}{others} stopped at step {first.step}, where "
        f"{first.reason}; the last good frame is step {first.last_good_step}; {advice}"
    )


class Limits:
    """Finds replicas that have left the region where a model means anything.

    A replica has exploded when a number of it is not finite, a force is beyond 10⁴ eV/Å, the energy beyond 10⁵ eV for
    each bead, two beads lie on one spot, or a bond is longer than three times its longest starting length and 3 Å more.

    Parameters
    ----------
    topology : BeadTopology
    start : Tensor, shape (R, N, 3)
        In Å.
    """

    def __init__(self, topology: BeadTopology, start: Tensor) -> None:
        self.topology = topology
        pairs = torch.tensor(topology.bonds, dtype=torch.long, device=start.device).reshape(-1, 2).T
        self._i: Tensor = pairs[0]
        self._j: Tensor = pairs[1]
        self._longest = BOND_FACTOR * self._lengths(start).amax(0) + BOND_MARGIN

    def _lengths(self, positions: Tensor) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(positions[:, self._j] - positions[:, self._i], dim=-1)
        return lengths

    def exceeded(self, state: State) -> Tensor:
        """Return which replicas are beyond a limit, shape (R,); nothing is read on the host."""
        # Written so that NaN counts as beyond.
        good = (state.forces.abs().amax((1, 2)) <= MAX_FORCE) & self._sane(state.energies)
        good &= state.velocities.isfinite().all(2).all(1) & state.positions.isfinite().all(2).all(1)
        good &= (self._shortest(state.positions) >= COINCIDENT).all(1)
        return ~(good & (self._lengths(state.positions) <= self._longest).all(1))

    def _sane(self, energies: Tensor) -> Tensor:
        return energies.abs() <= MAX_BEAD_ENERGY * self.topology.n_beads

    def _shortest(self, positions: Tensor) -> Tensor:
        """Return the distance in Å of each bead to its nearest, shape (R, N)."""
        n = positions.shape[1]
        itself = torch.diag(torch.full((n,), torch.inf, dtype=positions.dtype, device=positions.device))
        # As products of matrices, which is quick, and in double precision exact to 10⁻⁵ Å near the origin.
        parts = torch.split(positions - positions.mean(1, keepdim=True), max(1, DISTANCES_AT_ONCE // n**2))
        mode = "use_mm_for_euclid_dist"
        return torch.cat([(torch.cdist(x, x, compute_mode=mode) + itself).amin(-1) for x in parts])

    def reason(self, state: State, replica: int) -> str:
        """Say what is wrong with a replica that is beyond a limit."""
        names = self.topology.names
        positions, velocities, forces = (tensor[replica].cpu() for tensor in state[:3])
        pair = coincident_pair(positions.double().numpy()) if bool(positions.isfinite().all()) else None
        if pair is not None:
            return f"beads {pair[0]} ({names[pair[0]]}) and {pair[1]} ({names[pair[1]]}) are on one spot"
        problems = (
            (~positions.isfinite(), "no finite position"),
            (~forces.isfinite(), "no finite force"),
            (forces.abs() > MAX_FORCE, f"a force beyond {MAX_FORCE:g} eV/Å"),
            (~velocities.isfinite(), "no finite velocity"),
        )
        for where, what in problems:
            beads = torch.nonzero(where.any(-1))
            if len(beads):
                return f"bead {int(beads[0])} ({names[int(beads[0])]}) has {what}"
        length, longest = self._lengths(positions[None])[0], self._longest.cpu()
        torn = torch.nonzero(length > longest)
        if not len(torn):
            return f"the energy is {float(state.energies[replica]):g} eV, NaN or beyond {MAX_BEAD_ENERGY:g} eV a bead"
        bond = int(torn[0])
        i, j = self.topology.bonds[bond]
        return f"the bond of beads {i} ({names[i]}) and {j} ({names[j]}) is {float(length[bond]):.1f} Å long"


def replayed(
    step: Step, noise: NoiseBlocks, limits: Limits, bad: Tensor, good: tuple[State, int], until: int
) -> dict[int, End]:
    """Run again from a good state and its step, looking at every step, to see how replicas ended.

    Returns
    -------
    dict of int to End
        By place in the batch. A replica may be missing where the device does not repeat itself bit by bit.
    """
    found: dict[int, End] = {}
    missing = bad.clone()
    state, number = good
    steps: tuple[int, ...] = ()
    frames: list[NDArray[np.float64]] = []
    while number < until and bool(missing.any()):
        steps, frames = (*steps, number)[-LAST_STEPS:], [*frames, on_host(state.positions)][-LAST_STEPS:]
        (drawn,) = noise.steps(number, 1)
        state, number = State(*step(state.positions, state.velocities, state.forces, drawn)), number + 1
        lost = limits.exceeded(state) & missing
        for place in torch.nonzero(lost)[:, 0].tolist():
            found[place] = End(number, limits.reason(state, place), steps, np.stack([f[place] for f in frames]))
        missing &= ~lost
    return found
