"""Energies of rebuilt atoms: minimised in OpenMM with the atoms of the beads held, beside the reference."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.backmap import Backmapping, backmapping
from ase_cg.analysis.bead_frames import beads_of, spread_frames
from ase_cg.analysis.ensembles import Ensemble
from ase_cg.analysis.sources import FrameSource
from ase_cg.errors import InputError, reason

Floats = NDArray[np.float64]

FORCE_FIELD = ("amber14/protein.ff14SB.xml", "implicit/obc2.xml")
ITERATIONS = 300
TOLERANCE = 5.0  # kJ/mol/nm, root mean square
NANOMETER = 10.0  # Å
KJ_PER_KCAL = 4.184


@dataclass(frozen=True)
class BackmapEnergies:
    """Energies of rebuilt and minimised frames.

    Parameters
    ----------
    energies : dict
        Of the reference and each simulation by name: shape (F,), in kcal/mol.
    """

    energies: dict[str, Floats]

    def summary(self) -> dict[str, dict[str, float | None]]:
        """Return mean, its standard error, standard deviation, and what differs from the reference, in kcal/mol.

        ``above_reference`` is the difference of the means, ``wasserstein`` the distance of the distributions.
        """
        from scipy.stats import wasserstein_distance

        target = self.energies["reference"]
        error = _standard_error(target)
        return {
            name: {
                "frames": len(x),
                "median": float(np.median(x)),
                "mean": float(x.mean()),
                "mean_error": _standard_error(x),
                "std": float(x.std()),
                "above_reference": float(x.mean() - target.mean()),
                "above_reference_error": float(np.hypot(_standard_error(x), error)) if name != "reference" else 0.0,
                "wasserstein": float(wasserstein_distance(x, target)),
            }
            for name, x in self.energies.items()
        }


def _standard_error(x: Floats) -> float:
    return float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else 0.0


class Relaxation:
    """An OpenMM system of atoms some of which have no mass, and so do not move.

    Parameters
    ----------
    topology : mdtraj.Topology
        Of n atoms.
    held : ndarray of int
        Atoms that do not move.
    force_field : sequence of str
        Files of OpenMM's force fields.

    Raises
    ------
    InputError
        If OpenMM is not installed, or the force field does not know the molecule.
    """

    def __init__(self, topology: Any, held: NDArray[np.int64], force_field: Sequence[str] = FORCE_FIELD) -> None:
        try:
            import openmm
            from openmm import app
        except ImportError as error:
            raise InputError(
                "energies of rebuilt atoms need OpenMM; install it with `python -m pip install '.[openmm]'`"
            ) from error
        try:
            system = app.ForceField(*force_field).createSystem(
                topology.to_openmm(), nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False
            )
        except Exception as error:
            # OpenMM raises ValueError or a plain Exception; the sentence is what helps.
            raise InputError(f"no system can be made with {', '.join(force_field)}: {reason(error)}") from error
        for atom in held:
            system.setParticleMass(int(atom), 0.0)
        self._openmm = openmm
        platform = openmm.Platform.getPlatformByName("CPU")
        self._context: Any = openmm.Context(
            system, openmm.VerletIntegrator(0.001), platform, {"Threads": "1", "DeterministicForces": "true"}
        )

    def relaxed(self, atoms: Floats) -> tuple[Floats, Floats]:
        """Minimise frames of atoms (F, n, 3) in Å.

        Returns
        -------
        positions : ndarray, shape (F, n, 3)
            In Å.
        energies : ndarray, shape (F,)
            In kcal/mol.
        """
        found, energies = np.empty(atoms.shape), np.empty(len(atoms))
        for number, x in enumerate(atoms):
            self._context.setPositions(x / NANOMETER)
            self._openmm.LocalEnergyMinimizer.minimize(self._context, TOLERANCE, ITERATIONS)
            state = self._context.getState(positions=True, energy=True)
            found[number] = state.getPositions(asNumpy=True)._value * NANOMETER  # noqa: SLF001 - without its unit
            energies[number] = state.getPotentialEnergy()._value / KJ_PER_KCAL  # noqa: SLF001
        return found, energies


class Minimizer:
    """What rebuilds atoms and minimises them around the beads, which do not move.

    Parameters
    ----------
    backmapping : Backmapping

    Raises
    ------
    InputError
        As :class:`Relaxation` says.
    """

    def __init__(self, backmapping: Backmapping) -> None:
        self.backmapping = backmapping
        self._relaxation = Relaxation(backmapping.topology, backmapping.held)

    def minimized(self, frames: NDArray[Any]) -> tuple[Floats, Floats]:
        """Rebuild and minimise frames of beads (F, N, 3) in Å; see :meth:`Relaxation.relaxed`."""
        return self._relaxation.relaxed(self.backmapping.build(frames))


def minimizer_for(source: FrameSource, structure: str | os.PathLike[str] | None = None) -> Minimizer:
    """Return what rebuilds and minimises the atoms of a source's frames.

    Parameters
    ----------
    source : FrameSource
    structure : path, optional
        See :func:`ase_cg.analysis.backmap.backmapping`.

    Raises
    ------
    InputError
        If the beads cannot be turned into atoms, or OpenMM is missing or does not know the molecule.
    """
    return Minimizer(backmapping(*beads_of(source), structure))


def backmap_test(ensembles: Mapping[str, Ensemble], count: int, minimizer: Minimizer) -> BackmapEnergies:
    """Rebuild and minimise frames of every ensemble, all in the same way, and return their energies.

    The CG atoms stay as they are, all others are rebuilt and relaxed around them (the backmapping test of Klein et
    al., 2025): it tells how well the beads' conformations suit the all-atom force field. Frames are drawn with their
    weights.

    Parameters
    ----------
    ensembles : mapping of str to Ensemble
        With ``"reference"``.
    count : int
        Frames of each.
    minimizer : Minimizer
    """
    return BackmapEnergies(
        {
            name: minimizer.minimized(spread_frames(ensemble.source, count, ensemble.weights))[1]
            for name, ensemble in ensembles.items()
        }
    )
