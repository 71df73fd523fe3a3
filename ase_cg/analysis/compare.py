"""Compare simulations with the all-atom reference."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.features import bond_lengths, inverted_fraction, ramachandran_angles, ramachandran_beads
from ase_cg.analysis.metrics import jensen_shannon, pmf_error, wasserstein
from ase_cg.analysis.surfaces import Histogram, ramachandran_histogram
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset import Dataset
from ase_cg.dynamics.trajectory import bead_labels, read_simulation
from ase_cg.errors import InputError
from ase_cg.files import file_hash, read_record, write_record, written_whole
from ase_cg.progress import announced

PathLike = str | os.PathLike[str]
Trajectories = list[NDArray[np.float32]]

BOND_BIN = 0.0005  # Å; a tenth of the smallest distance that is reported
RESAMPLES = 200
NORMAL_95 = 1.96  # standard errors to either side of a 95 % interval
MIN_BLOCKS = 10


@dataclass(frozen=True)
class Ensemble:
    """The distributions of one simulation or reference.

    Parameters
    ----------
    surface : Histogram or None
        Of (φ, ψ), where the beads have them.
    bonds : list of Histogram
        Of each bond's length.
    frames : int
    inverted : float or None
        Fraction of residues that are D.
    """

    surface: Histogram | None
    bonds: list[Histogram]
    frames: int
    inverted: float | None


@dataclass(frozen=True)
class Comparison:
    """Everything that :func:`analyze` found.

    Parameters
    ----------
    rows : dict
        ``"model"``, perhaps ``"prior"``, and ``"floor"``; each maps a figure's name to ``value`` and ``interval``.
    reference, model, prior : Ensemble
    topology : BeadTopology
    bins : int
    bond_edges : ndarray
    sources : dict
    """

    rows: dict[str, dict[str, Any]]
    reference: Ensemble
    model: Ensemble
    prior: Ensemble | None
    topology: BeadTopology
    bins: int
    bond_edges: NDArray[np.float64]
    sources: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        ensembles = {"reference": self.reference, "model": self.model, "prior": self.prior}
        return {
            "definitions": {
                "pmf_error_kT": "sqrt(sum w (ln p - ln q)^2), w = (p + q)/2, over filled bins; empty ones 1e-6",
                "jensen_shannon_nats": "of the (phi, psi) distributions",
                "bond_wasserstein_A": "1-D Wasserstein distance of bond lengths, mean over bonds",
                "interval": "value ± 1.96 standard errors: bootstrap over replicas; for the floor over random halves",
                "grid": f"{self.bins} x {self.bins}",
            },
            "rows": self.rows,
            "frames": {name: ensemble.frames for name, ensemble in ensembles.items() if ensemble},
            "inverted_residues": {name: ensemble.inverted for name, ensemble in ensembles.items() if ensemble},
            "sources": self.sources,
        }


def analyze(
    simulation: PathLike,
    reference: PathLike,
    output: PathLike,
    *,
    prior_simulation: PathLike | None = None,
    bins: int = 30,
    discard: float = 0.1,
    overwrite: bool = False,
    quiet: bool = False,
) -> Comparison:
    """Compare a simulation with its all-atom reference.

    Parameters
    ----------
    simulation : path
        Folder that :func:`simulate` wrote.
    reference : path
        Dataset of the all-atom reference, mapped to the same beads.
    output : path
        Folder for ``ramachandran.png``, ``bonds.png``, ``table.md`` and ``metrics.json``.
    prior_simulation : path, optional
        Folder of the same model without its network, for comparison.
    bins : int
        Of each dihedral.
    discard : float
        Fraction of each simulated trajectory dropped from its beginning.
    overwrite, quiet : bool

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If something is missing or the beads differ.
    """
    if not 0 <= discard < 1:
        raise InputError(f"discard is a fraction from 0 to below 1, not {discard}")
    if bins < 2:
        raise InputError(f"a surface needs at least 2 bins, not {bins}")
    folder = Path(output)
    if (folder / "metrics.json").exists() and not overwrite:
        raise InputError(f"{folder} holds an analysis already; choose another folder, or --overwrite (overwrite=True)")
    topology, reference_frames = _read_reference(reference)
    if not topology.bonds and not ramachandran_beads(topology):
        raise InputError(f"{reference} has neither bonds nor φ/ψ beads: there is nothing to compare")
    if sum(len(frames) for frames in reference_frames) < MIN_BLOCKS:
        raise InputError(f"reference {reference} has fewer than {MIN_BLOCKS} frames: too few to compare with")
    simulated = {"model": _kept_frames(Path(simulation), topology, discard)}
    if prior_simulation is not None:
        simulated["prior"] = _kept_frames(Path(prior_simulation), topology, discard)
        if not read_record(Path(prior_simulation) / "simulation.json").get("prior_only", True):
            raise InputError(f"{prior_simulation} was simulated with the network; give one of `simulate --prior-only`")
    sources = {"reference": {"file": Path(reference).name, "sha256": file_hash(Path(reference))}}
    for name, path in (("model", simulation), ("prior", prior_simulation)):
        if path is not None:
            sources[name] = read_record(Path(path) / "simulation.json")
    with announced("Comparing with the reference", quiet=quiet):
        edges = _bond_edges([*reference_frames, *[x for frames in simulated.values() for x in frames]], topology)
        target = ensemble(_blocks(reference_frames), topology, bins, edges)
        ensembles = {name: ensemble(frames, topology, bins, edges) for name, frames in simulated.items()}
        rows = {name: _bootstrapped(found, target) for name, found in ensembles.items()} | {"floor": _floor(target)}
        comparison = Comparison(
            rows, target, ensembles["model"], ensembles.get("prior"), topology, bins, edges, sources
        )
        _write(comparison, folder)
    return comparison


def _kept_frames(folder: Path, topology: BeadTopology, discard: float) -> Trajectories:
    frames, settings = read_simulation(folder)
    if settings["beads"] != bead_labels(topology):
        raise InputError(
            f"{folder} has the beads {', '.join(settings['beads'])}, the reference {', '.join(bead_labels(topology))}"
        )
    kept = frames[:, int(discard * frames.shape[1]) :]
    return list(kept)


def _read_reference(reference: PathLike) -> tuple[BeadTopology, list[NDArray[np.float32]]]:
    """Return the topology and the trajectories of the reference."""
    with Dataset.open(reference) as dataset:
        molecule = dataset.only_molecule()
        if molecule.has_weights:
            raise InputError(
                f"reference {reference} has frame weights, which the comparison does not use yet; give frames "
                "resampled by weight"
            )
        return molecule.topology, [molecule.coordinates(frames) for frames in molecule.trajectories()]


def _blocks(trajectories: Trajectories) -> Trajectories:
    """Return the trajectories, cut into blocks of time where they are too few to be divided."""
    if len(trajectories) >= MIN_BLOCKS:
        return trajectories
    pieces = -(-MIN_BLOCKS // len(trajectories))
    blocks = [block for trajectory in trajectories for block in np.array_split(trajectory, pieces)]
    return [block for block in blocks if len(block)]


def _bond_edges(trajectories: Trajectories, topology: BeadTopology) -> NDArray[np.float64]:
    lengths = [bond_lengths(frames, topology.bonds) for frames in trajectories] if topology.bonds else []
    if not lengths:
        return np.array([0.0, 1.0])
    low, high = min(x.min() for x in lengths), max(x.max() for x in lengths)
    n_bins = int(np.ceil((high - low) / BOND_BIN)) + 2
    return np.asarray(low - BOND_BIN / 2 + BOND_BIN * np.arange(n_bins + 1))


def ensemble(
    trajectories: Trajectories, topology: BeadTopology, bins: int, bond_edges: NDArray[np.float64]
) -> Ensemble:
    """Collect the distributions of trajectories, each (F, N, 3) in Å."""
    angles = [ramachandran_angles(frames, topology) for frames in trajectories]
    present = [a for a in angles if a is not None]
    lengths = [bond_lengths(frames, topology.bonds) for frames in trajectories]
    return Ensemble(
        surface=ramachandran_histogram(present, bins) if present else None,
        bonds=[
            Histogram(np.stack([np.histogram(x[:, bond], bond_edges)[0] for x in lengths]).astype(float))
            for bond in range(len(topology.bonds))
        ],
        frames=sum(len(frames) for frames in trajectories),
        inverted=inverted_fraction(np.concatenate(trajectories), topology),
    )


def _figures(
    one: Ensemble, other: Ensemble, one_weights: Any = None, other_weights: Any = None
) -> dict[str, float | None]:
    """Return all figures between two ensembles, their trajectories weighted."""
    surfaces: tuple[Any, Any] | None = None
    if one.surface is not None and other.surface is not None:
        surfaces = one.surface.probabilities(one_weights), other.surface.probabilities(other_weights)
    distances = [
        wasserstein(a.probabilities(one_weights), b.probabilities(other_weights), BOND_BIN)
        for a, b in zip(one.bonds, other.bonds, strict=True)
    ]

    def of_surfaces(metric: Callable[[Any, Any], float]) -> float | None:
        return None if surfaces is None else metric(*surfaces)

    return {
        "pmf_error_kT": of_surfaces(pmf_error),
        "pmf_error_squared_kT2": of_surfaces(lambda p, q: pmf_error(p, q) ** 2),
        "jensen_shannon_nats": of_surfaces(jensen_shannon),
        "bond_wasserstein_A": float(np.mean(distances)) if distances else None,
    }


def _bootstrapped(simulated: Ensemble, reference: Ensemble) -> dict[str, Any]:
    """Return the figures with intervals from resampling the simulated trajectories."""
    n = _n_trajectories(simulated)
    rng = np.random.default_rng(0)
    samples = [
        _figures(simulated, reference, rng.multinomial(n, np.full(n, 1 / n)).astype(float)) for _ in range(RESAMPLES)
    ]
    return _with_intervals(_figures(simulated, reference), samples if n > 1 else [])


def _floor(reference: Ensemble) -> dict[str, Any]:
    """Return the figures between two halves of the reference: the mean over random halves, and their spread."""
    n = _n_trajectories(reference)
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(RESAMPLES):
        half = np.zeros(n)
        half[rng.permutation(n)[: n // 2]] = 1.0
        samples.append(_figures(reference, reference, half, 1.0 - half))
    means = {
        name: None if samples[0][name] is None else float(np.mean([s[name] for s in samples])) for name in samples[0]
    }
    return _with_intervals(means, samples)


def _n_trajectories(ensemble: Ensemble) -> int:
    histogram = ensemble.surface or ensemble.bonds[0]
    return len(histogram.counts)


def _with_intervals(values: dict[str, float | None], samples: list[dict[str, float | None]]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, value in values.items():
        interval = None
        if value is not None and samples:
            # Not percentiles: resampling adds noise, which raises every distance, so they would miss the value.
            error = float(np.std(np.array([s[name] for s in samples], dtype=float)))
            interval = [max(0.0, value - NORMAL_95 * error), value + NORMAL_95 * error]
        rows[name] = {"value": value, "interval": interval}
    return rows


def _write(comparison: Comparison, folder: Path) -> None:
    from ase_cg.analysis.figures import plot_bonds, plot_surfaces, saved
    from ase_cg.analysis.table import markdown_table

    if comparison.reference.surface is not None:
        saved(plot_surfaces(comparison), folder / "ramachandran.png")
    if comparison.topology.bonds:
        saved(plot_bonds(comparison), folder / "bonds.png")
    with written_whole(folder / "table.md", overwrite=True) as partial:
        partial.write_text(markdown_table(comparison) + "\n", encoding="utf-8")
    write_record(folder / "metrics.json", comparison.to_dict())
