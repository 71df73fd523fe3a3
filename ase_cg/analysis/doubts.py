"""What of a comparison is in doubt."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.ensembles import Ensemble
from ase_cg.analysis.macrostates import Kinetics
from ase_cg.analysis.metrics import wasserstein_distances
from ase_cg.analysis.slow_coordinates import FeatureSet
from ase_cg.analysis.surfaces import RMSD_AND_SIZE, Plane

FRAMES_A_BIN = 5  # frames in a filled bin, on average, below which a surface is mostly noise
MIRRORED = 0.5  # of the distance from the reference: nearer than so to its mirror image is a mirror image
CONTRADICTED = 0.1  # difference of two populations
SIGNIFICANT = 3.0  # standard errors


def doubts(ensembles: Mapping[str, Ensemble], plane: Plane | None, coordinate: str) -> Iterator[str]:
    """Say which ensembles are not converged, and where frames are too few for the grid, one sentence each.

    Parameters
    ----------
    ensembles : mapping of str to Ensemble
    plane : Plane or None
        Of the free-energy surface that stands in the table.
    coordinate : str
        Name of the coordinate whose sampling is judged.
    """
    for name, ensemble in ensembles.items():
        judged = ensemble.convergence
        if judged is not None and not judged.converged:
            yield (
                f"{name} is not converged in {coordinate}: {' and '.join(judged.doubts)}; its figures may change with "
                "more sampling"
            )
        if plane is None:
            continue
        counts = ensemble.surfaces[plane.name].counts.sum(0)[:-1].reshape(plane.shape)
        filled = int((counts > 0).sum())
        frames = int(ensemble.equal_frames)
        if frames < FRAMES_A_BIN * filled:
            yield (
                f"{name} has too few frames for the grid of {plane.shape[0]} × {plane.shape[1]}, {frames} in "
                f"{filled} filled bins: PMF errors are mostly noise (compare the floor); --bins "
                f"{_bins_that_fill(counts, frames)} would suit"
            )


def mirror_doubts(ensembles: Mapping[str, Ensemble], main: str | None, features: FeatureSet) -> Iterator[str]:
    """Say that the surface of the table cannot see mirror images, and which ensembles look like one.

    Parameters
    ----------
    ensembles : mapping of str to Ensemble
    main : str or None
        The plane of the free-energy surface that stands in the table.
    features : FeatureSet
        Of the slow coordinates.
    """
    reference = ensembles["reference"]
    if main in {"tica", "pca"} and features.pairs:
        native = "" if "rmsd" in reference.series else ", with --native,"
        others = (
            "dihedrals (in the table of Wasserstein distances) and" if "dihedrals" in reference.distributions else ""
        )
        yield (
            f"the surface of the table ({main}) is one of distances, in which mirror images are the same: "
            f"look at {others}{native} --surface {RMSD_AND_SIZE}"
        )
    if "dihedrals" not in reference.distributions:
        return
    target = reference.distributions["dihedrals"].probabilities()
    mirrored = target[:, ::-1]  # the grid of −π … π is symmetric
    for name, ensemble in ensembles.items():
        own = ensemble.distributions["dihedrals"].probabilities()
        right, wrong = (
            wasserstein_distances(own, x, 2 * np.pi / own.shape[1], periodic=True).mean() for x in (target, mirrored)
        )
        if wrong < MIRRORED * right:
            yield (
                f"{name} looks like a mirror image: its dihedrals are {right:.2f} rad from those of the reference, and "
                f"{wrong:.2f} rad from those of the reference's mirror image"
            )


def contradicted_weights(name: str, found: Kinetics) -> Iterator[str]:
    """Say where the weights of frames and a Markov model of the same frames differ about the macrostates."""
    apart = np.abs(found.populations - found.counted)
    worst = int(apart.argmax())
    error = found.population_errors[worst]
    if apart[worst] > max(CONTRADICTED, SIGNIFICANT * (error if np.isfinite(error) else 0.0)):
        yield (
            f"{name}: by the weights of its frames macrostate {worst + 1} has a population of "
            f"{found.counted[worst]:.2f}, by its Markov model {found.populations[worst]:.2f} ± {error:.2f}; either the "
            "weights are not those of the equilibrium of this dynamics (those that undo a bias potential are not), or "
            "the lag is too short: do not trust the kinetics"
        )


def _bins_that_fill(counts: NDArray[np.float64], frames: int) -> int:
    """Return the finest grid, of those that join whole bins, whose filled bins hold enough frames on average."""
    for joined in range(2, len(counts) // 2):
        n = len(counts) // joined
        coarse = counts[: n * joined, : n * joined].reshape(n, joined, n, joined).sum((1, 3))
        if frames >= FRAMES_A_BIN * int((coarse > 0).sum()):
            return n
    return 2
