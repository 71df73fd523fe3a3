"""A comparison as plain values, for ``metrics.json``."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ase_cg.analysis.convergence import relaxation_time
from ase_cg.analysis.surfaces import SURFACES, Plane

if TYPE_CHECKING:
    from ase_cg.analysis.compare import Comparison
    from ase_cg.analysis.ensembles import Ensemble


def record(comparison: "Comparison") -> dict[str, Any]:
    """Return everything but the frames."""
    ensembles = comparison.ensembles
    return {
        "definitions": definitions(comparison),
        "main_surface": comparison.main,
        "rows": comparison.rows,
        "features": _features(comparison),
        "pareto_front": comparison.pareto,
        "frames": {name: ensemble.frames for name, ensemble in ensembles.items()},
        "inverted_residues": {name: ensemble.inverted for name, ensemble in ensembles.items()},
        "averages": {name: averages(ensemble) for name, ensemble in ensembles.items()},
        "convergence": {
            name: None if ensemble.convergence is None else ensemble.convergence.to_dict()
            for name, ensemble in ensembles.items()
        },
        "radius_of_gyration_relaxation": {name: gyration_relaxation(ensemble) for name, ensemble in ensembles.items()},
        "kinetics": {name: found.to_dict() for name, found in comparison.kinetics.items()},
        "backmapping_kcal_per_mol": None if comparison.backmapping is None else comparison.backmapping.summary(),
        "surfaces": {
            name: {
                "labels": list(plane.labels),
                "ranges": [[float(e[0]), float(e[-1])] for e in (plane.x_edges, plane.y_edges)],
                "outside": {
                    key: float(ensemble.surfaces[name].probabilities()[-1]) for key, ensemble in ensembles.items()
                },
            }
            for name, plane in comparison.planes.items()
        },
        "notes": comparison.notes,
        "sources": comparison.sources,
    }


def definitions(comparison: "Comparison") -> dict[str, str]:
    """Return what the figures are, in words."""
    main = None if comparison.main is None else comparison.planes[comparison.main]
    return {
        "value": "corrected for the bias of finite samples by the jackknife over trajectories or blocks of time of "
        "both sides; a perfect model has 0",
        "plug_in": "of the samples as they are, too large by their noise; compare it only at equal numbers of "
        "independent frames, as plug_in_at_floor with the floor",
        "pmf_error_kT": "sqrt(sum w (F_p - F_q)^2), w = (p + q)/2, F = -ln(p^2 + e^2)/2; e is a tenth of a uniform "
        "distribution's probability, or 1/(2 n) of the side of fewer independent frames n if that is more",
        "pmf_error_common_kT": "the same over the bins in which both p and q are at least 5 e: without basins that one "
        "side lacks, and without rare bins",
        "jensen_shannon_nats": "of the distributions of the surface; of a figure of single frames on 50 bins",
        "bond_wasserstein_A": "1-D Wasserstein distance of bond lengths, mean over bonds",
        "interval": "95 %: the true values with which the measured one agrees, both sides sampled; none where "
        "independent frames are fewer than 5 a filled bin, or blocks of time shorter than the relaxation",
        "floor": "the same figures between two random halves of the reference, of its trajectories or blocks of time, "
        "as sampled: mean over 100 divisions, and the range of 95 % of them",
        "surface": "none" if main is None else f"{main.name}: {SURFACES[main.name]}",
        "grid": "none" if main is None else grid_of(main),
        "slow_coordinates": f"{comparison.slow.kind} of {comparison.slow.features.names}"
        + (f", lag {comparison.slow.lag} frames" if comparison.slow.lag else ""),
        "independent_frames": "Kish's number of equal weights over the statistical inefficiency of the first slow "
        "coordinate; converged: at least 100, and split R-hat at most 1.1",
        "kinetics": "Markov models of k-means clusters, macrostates of the reference by PCCA+; errors from ten draws "
        "of 90 % of the trajectories",
        "folding_free_energy": "-ln(p/(1 - p)) of the macrostate that holds the frame nearest to the native structure",
        "backmapping": "energies of rebuilt atoms, minimised around the beads",
        "native_contacts": "fraction of native contacts of Best, Hummer and Eaton, 8 Å, lambda 1.2",
        "gdt_ts": "mean fraction of beads within 1, 2, 4 and 8 Å of their native place after superposition",
    }


def grid_of(plane: Plane) -> str:
    """Return the size of a grid, ``80 x 80``."""
    return f"{plane.shape[0]} x {plane.shape[1]}"


def averages(ensemble: "Ensemble") -> dict[str, float]:
    """Return the mean of each figure of single frames, and with RMSD how many frames are within 2.5 Å."""
    found = {name: ensemble.mean(name) for name in ensemble.series}
    if "rmsd" in ensemble.series:
        near = np.concatenate(ensemble.series["rmsd"]) < NEAR_NATIVE
        weights = None if ensemble.weights is None else np.concatenate(ensemble.weights)
        found["fraction_within_2.5_A"] = float(np.average(near, weights=weights))
    return found


def gyration_relaxation(ensemble: "Ensemble") -> dict[str, float | None]:
    """Return the relaxation time of the radius of gyration, in frames, and in ps where the files say the times."""
    frames = relaxation_time(ensemble.series["radius_of_gyration"], ensemble.weights)
    interval = ensemble.source.frame_interval
    return {"frames": frames, "ps": None if interval is None else frames * interval}


NEAR_NATIVE = 2.5  # Å of Cα RMSD, the literature's mark for chignolin


def feature_names(comparison: "Comparison", kind: str) -> list[str]:
    """Return the beads of every bond, angle or dihedral, ``TYR1–TYR2``."""
    topology = comparison.topology
    groups = {"bonds": topology.bonds, "angles": topology.angles, "dihedrals": topology.dihedrals}[kind]
    names = [
        f"{residue}{number}" + (f":{name.partition(':')[2]}" if ":" in name else "")
        for residue, number, name in zip(topology.residue_names, topology.residue_numbers, topology.names, strict=True)
    ]
    return ["–".join(names[bead] for bead in group) for group in groups]


def _features(comparison: "Comparison") -> dict[str, Any]:
    return {
        row: {
            kind: {
                name: {
                    "value": value,
                    "interval": None if x["interval"] is None else [end[place] for end in x["interval"]],
                }
                for place, (name, value) in enumerate(zip(feature_names(comparison, kind), x["value"], strict=True))
            }
            for kind, x in kinds.items()
        }
        for row, kinds in comparison.features.items()
    }
