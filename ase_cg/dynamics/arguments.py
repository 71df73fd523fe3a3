"""What each replica is given: one value for all, or one for each, checked at the door."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_cg.beads.topology import BeadTopology
from ase_cg.dynamics.noise import random_key
from ase_cg.errors import InputError
from ase_cg.seeds import checked_seed


def starting_array(positions: ArrayLike, topology: BeadTopology) -> NDArray[np.float64]:
    """Return starting positions as an array (R, N, 3).

    Raises
    ------
    InputError
        If replicas are of different sizes, the shape does not fit the topology, or a position is not finite.
    """
    n = topology.n_beads
    try:
        start = np.array(positions, dtype=float)
    except ValueError:
        sizes = [len(replica) for replica in positions]  # type: ignore[union-attr, arg-type]
        wrong = next((place for place, size in enumerate(sizes) if size != n), 0)
        raise InputError(
            f"replicas of one simulation are of one molecule: replica {wrong} has {sizes[wrong]} beads, "
            f"the topology {n}; simulate other molecules apart"
        ) from None
    if start.ndim != 3 or start.shape[1:] != (n, 3) or not len(start):
        raise InputError(f"starting positions of shape {start.shape} do not fit (replicas, {n}, 3)")
    lost = np.argwhere(~np.isfinite(start).all(-1))
    if len(lost):
        replica, bead = lost[0]
        raise InputError(
            f"the start of replica {replica} has no finite position of bead {bead} ({topology.names[bead]})"
        )
    return start


def per_replica(value: ArrayLike, n_replicas: int, what: str) -> NDArray[np.float64]:
    """Return one number for each replica, shape (R,).

    Raises
    ------
    InputError
        If there are neither one nor R of them.
    """
    try:
        return np.broadcast_to(np.asarray(value, dtype=float), (n_replicas,))
    except ValueError as error:
        raise InputError(f"{what} must be one number or one for each of {n_replicas} replicas") from error


def check_form(form: object, topology: BeadTopology, n_replicas: int) -> None:
    """Raise :class:`InputError` if a compiled model says that it is of other beads or another number of replicas."""
    if getattr(form, "replicas", n_replicas) != n_replicas:
        raise InputError(
            f"the model is compiled for {form.replicas} replicas and there are {n_replicas}; "  # type: ignore[attr-defined]
            f"compile it with replicas={n_replicas}"
        )
    if getattr(form, "topology", topology) != topology:
        raise InputError("the model is compiled for another molecule; give its topology to model.compile")


def friction_of_each(friction: ArrayLike | None, n_replicas: int, integrator: str) -> NDArray[np.float64]:
    """Return the friction of each replica, shape (R,); velocity Verlet has none.

    Raises
    ------
    InputError
        If it is missing, negative or not finite.
    """
    if friction is None and integrator != "verlet":
        raise InputError(f"{integrator} dynamics need a friction")
    frictions = per_replica(0.0 if friction is None else friction, n_replicas, "friction")
    if not ((frictions >= 0) & np.isfinite(frictions)).all():
        raise InputError("the friction must be finite and not negative")
    return frictions


def replica_keys(seed: ArrayLike, numbers: NDArray[np.int64]) -> list[NDArray[np.uint64]]:
    """Return the key of each replica's random numbers: of one seed and its number, or of a seed of its own.

    Raises
    ------
    InputError
        If a seed is no whole number from 0 to 2⁶⁴ − 1, or there are neither one nor R of them.
    """
    # Not as an array of numbers, which would hold seeds above 2⁵³ as others.
    seeds = np.asarray(seed, dtype=object)
    if seeds.ndim == 0:
        return [random_key(checked_seed(seeds.item()), int(number)) for number in numbers]
    try:
        each = np.broadcast_to(seeds, (len(numbers),))
    except ValueError as error:
        raise InputError(f"seed must be one number or one for each of {len(numbers)} replicas") from error
    return [random_key(checked_seed(one)) for one in each]
