"""What a dataset looks like, and what is suspicious about it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.features import bond_lengths
from ase_cg.data.dataset import Molecule
from ase_cg.data.force_check import known_check
from ase_cg.data.splits import drawn_by_weight, spread_frames
from ase_cg.units import KCAL_PER_MOL, thermal_energy

MAX_FRAMES = 50_000  # statistics are known well enough from so many
MAX_NUMBERS = 12_000_000  # in an array in memory
COMPARED_FRAMES = 1_000_000  # frames among which duplicates are looked for
CHUNK = 4096
CALPHA_BONDS = (2.0, 6.0)  # Å; trans peptides have 3.8, cis peptides 2.9
ATOM_BONDS = (0.8, 5.0)  # Å, mean length where every bead is an atom: 1 to 2 of atoms, 3.8 between CA atoms
PLAUSIBLE_BONDS = (0.8, 15.0)  # Å, mean length over all bonds, of beads of any size
FAR = 2000.0  # Å from the origin, where single precision keeps 0.0001 Å
BLOCKS = 20
SIGNIFICANT = 5.0  # standard errors
FACTORS = {
    10.0: "10, as between nm and Å",
    4.184: "4.184, as between kJ and kcal",
    41.84: "41.84, as between kJ/nm and kcal/Å",
    23.06: "23.06, as between kcal/mol and eV",
    96.49: "96.49, as between kJ/mol and eV",
    2.306: "2.306, as between kcal/mol/nm and eV/Å",
}
SLICE_LIKE = ("slice", "as published")
TOLERANCE = 0.2  # of the logarithm of a factor
NET_FORCE = 0.01  # of the root mean square force component


@dataclass(frozen=True)
class Diagnosis:
    """Statistics of a molecule of a dataset, and warnings.

    Attributes
    ----------
    frames_used : int
        Evenly spread frames that statistics were taken from.
    bonds : dict
        For each pair of bead names: ``mean``, ``std``, ``min`` and ``max`` in Å.
    force_rms : dict
        Root mean square force component in kcal/mol/Å of each bead name; empty without forces.
    virial_ratio, virial_error : float or None
        −⟨x·F⟩ / ((3N − 3) kT), x from the centroid, and its standard error. It is 1 for any unbiased force map in the
        right units (virial theorem).
    force_check : dict or None
        What :func:`ase_cg.data.force_check.check_forces` found: virials of bonded pairs and Stein's check, each bead on
        its own, so that errors do not cancel as in the virial ratio; None without forces.
    effective_frames : float
        (Σw)²/Σw², the number of equally weighted frames that would know as much.
    warnings : list of str
        One sentence each.
    """

    frames_used: int
    bonds: dict[str, dict[str, float]]
    force_rms: dict[str, float]
    virial_ratio: float | None
    virial_error: float | None
    force_check: dict[str, Any] | None
    effective_frames: float
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def diagnose(molecule: Molecule) -> Diagnosis:
    """Look at the frames of a molecule.

    Parameters
    ----------
    molecule : Molecule
    """
    limit = min(MAX_FRAMES, MAX_NUMBERS // (3 * molecule.topology.n_beads))
    weights = molecule.weights()
    # Drawn by weight where there are weights: a frame may come several times, and counts so often.
    everything = np.arange(molecule.n_frames) if weights is None else drawn_by_weight(weights)
    frames = spread_frames(everything, limit)
    read, again = np.unique(frames, return_inverse=True)
    positions = molecule.coordinates(read)[again].astype(float)
    forces = molecule.forces(read)[again].astype(float) if molecule.has_forces else None
    lengths = bond_lengths(positions, molecule.topology.bonds)
    warnings = [*_bond_warnings(molecule, lengths), *_place_warnings(positions), *_duplicate_warnings(molecule)]
    ratio = error = check = None
    if forces is not None:
        if molecule.topology.n_beads > 1:
            ratio, error = virial_ratio(positions, forces, molecule.temperature)
        check = known_check(molecule)
        warnings += [*_virial_warnings(ratio, error, molecule.force_map), *_drift_warnings(forces)]
        warnings += [check.message(molecule.name, molecule.topology.names)] if check.suspicious else []
    return Diagnosis(
        frames_used=len(frames),
        bonds=_bond_statistics(molecule, lengths),
        force_rms={} if forces is None else _force_rms(molecule, forces),
        virial_ratio=ratio,
        virial_error=error,
        force_check=None if check is None else check.to_dict(),
        effective_frames=molecule.n_frames if weights is None else float(weights.sum() ** 2 / (weights**2).sum()),
        warnings=warnings,
    )


def virial_ratio(
    positions: NDArray[np.float64], forces: NDArray[np.float64], temperature: float
) -> tuple[float, float]:
    """Return −⟨x·F⟩ / ((3N − 3) kT) and its standard error from blocks of frames.

    Parameters
    ----------
    positions, forces : ndarray, shape (F, N, 3)
        In Å and eV/Å; N ≥ 2.
    temperature : float
        In K.
    """
    n_beads = positions.shape[1]
    centered = positions - positions.mean(1, keepdims=True)
    virial = -(centered * forces).sum((1, 2)) / ((3 * n_beads - 3) * thermal_energy(temperature))
    blocks = [block.mean() for block in np.array_split(virial, BLOCKS) if len(block)]
    error = float(np.std(blocks, ddof=1) / np.sqrt(len(blocks))) if len(blocks) > 1 else float("nan")
    return float(virial.mean()), error


def _bond_names(molecule: Molecule) -> list[str]:
    names = molecule.topology.names
    return ["–".join(sorted((names[i], names[j]))) for i, j in molecule.topology.bonds]


def _bond_statistics(molecule: Molecule, lengths: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    kinds = np.array(_bond_names(molecule))
    found = {}
    for kind in sorted(set(kinds.tolist())):
        values = lengths[:, kinds == kind]
        found[kind] = {
            "mean": float(values.mean()),
            "std": float(values.std()),
            "min": float(values.min()),
            "max": float(values.max()),
        }
    return found


def _force_rms(molecule: Molecule, forces: NDArray[np.float64]) -> dict[str, float]:
    names = np.array(molecule.topology.names)
    return {
        name: float(np.sqrt((forces[:, names == name] ** 2).mean()) / KCAL_PER_MOL)
        for name in sorted(set(names.tolist()))
    }


def _bond_warnings(molecule: Molecule, lengths: NDArray[np.float64]) -> Iterator[str]:
    if not lengths.size:
        yield "no beads are bonded: priors on bonds will have nothing to hold the molecule together"
        return
    mean, kind = float(lengths.mean()), molecule.resolution
    of_atoms = isinstance(kind, tuple) or kind in {"heavy", "backbone", "calpha_cbeta"}
    low, high = CALPHA_BONDS if kind == "calpha" else ATOM_BONDS if of_atoms else PLAUSIBLE_BONDS
    if not low <= mean <= high:
        side = "short" if mean < low else "long"
        if low <= 10 * mean <= high or low <= mean / 10 <= high:
            yield f"bonds are {mean:.3g} Å long on average, 10 times too {side}: is the unit of length right?"
        else:
            yield f"bonds are {mean:.3g} Å long on average, too {side} for {kind}: are these the right beads?"
        return
    outside = (lengths < low) | (lengths > high)
    if kind == "calpha" and outside.any():
        worst = int(outside.sum(0).argmax())
        i, j = molecule.topology.bonds[worst]
        names = molecule.topology.names
        yield (
            f"{outside.any(1).mean():.2%} of frames have bonds outside {low:g}–{high:g} Å, most often between bead {i} "
            f"({names[i]}) and bead {j} ({names[j]}), {lengths[:, worst].min():.1f} to {lengths[:, worst].max():.1f} Å"
        )


def _place_warnings(positions: NDArray[np.float64]) -> Iterator[str]:
    farthest = float(np.abs(positions).max())
    if farthest > FAR:
        yield (
            f"beads are up to {farthest:.0f} Å from the origin, where single precision is lost: the molecule drifts; "
            "centre it before mapping"
        )


def _duplicate_warnings(molecule: Molecule) -> Iterator[str]:
    count = min(molecule.n_frames, COMPARED_FRAMES)
    keys = np.empty(count, dtype=np.uint64)
    odd = np.random.default_rng(0).integers(1, 2**63, 3 * molecule.topology.n_beads, dtype=np.uint64) | np.uint64(1)
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        bits = molecule.coordinates(slice(start, stop)).reshape(stop - start, -1).view(np.uint32).astype(np.uint64)
        keys[start:stop] = (bits * odd).sum(1, dtype=np.uint64)  # modulo 2⁶⁴: equal frames have equal keys
    copies = count - len(np.unique(keys))
    if copies:
        yield f"{copies} of {count} frames are copies of another: were trajectories given twice, or do they overlap?"


def _virial_warnings(ratio: float | None, error: float | None, force_map: str | None) -> Iterator[str]:
    if ratio is None or error is None or abs(ratio - 1) < SIGNIFICANT * error:
        return
    shown = f"−⟨x·F⟩ is {ratio:.3g} ± {error:.1g} times its exact value (3N − 3) kT"
    factor = _wrong_factor(ratio, error)
    if ratio <= 0:
        yield f"{shown}: forces have the wrong sign, or do not belong to these positions"
    elif factor is not None:
        yield f"{shown}: forces are too {'large' if ratio > 1 else 'small'} by about {factor}; is their unit right?"
    elif force_map in SLICE_LIKE:
        yield f"{shown}: forces of single atoms are biased where those have rigid bonds; use the force map 'optimal'"
    elif abs(ratio - 1) > TOLERANCE:
        yield f"{shown}: are constraints, temperature and units right?"


def _wrong_factor(ratio: float, error: float) -> str | None:
    """Return which confusion of units a ratio comes from, if it comes from one."""
    if ratio <= 0:
        return None
    near = max(TOLERANCE / 2, min(TOLERANCE, 2 * error / ratio))
    return next((words for factor, words in FACTORS.items() if abs(abs(np.log(ratio)) - np.log(factor)) < near), None)


def _drift_warnings(forces: NDArray[np.float64]) -> Iterator[str]:
    total = forces.sum(1)
    blocks = np.stack([block.mean(0) for block in np.array_split(total, BLOCKS) if len(block)])
    if len(blocks) < 2:
        return
    mean, error = total.mean(0), blocks.std(0, ddof=1) / np.sqrt(len(blocks))
    size = float(np.sqrt((forces**2).mean()))
    if (np.abs(mean) > SIGNIFICANT * error).any() and np.abs(mean).max() > NET_FORCE * size:
        pull = np.linalg.norm(mean) / KCAL_PER_MOL
        yield f"a net force of {pull:.3g} kcal/mol/Å pulls the molecule: a drift, which a free energy cannot have"
