"""The molecules of the studies of accuracy: published beads, and how much is spent on a model of each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ase_cg import Dataset, map_trajectory
from ase_cg.analysis import NativeStructure, dihedral_angles, radius_of_gyration
from ase_cg.analysis.markov_weights import weigh

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
PHI, PSI = (0, 1, 2, 4), (1, 2, 4, 5)  # beads of the dipeptide
NATIVE_RMSD = 2.5  # Å of Cα beads, the literature's mark for chignolin


@dataclass(frozen=True)
class Effort:
    """How much is spent on a model: updates of its weights, and its simulation."""

    updates: int
    max_epochs: int
    replicas: int  # from each kind of start; 100 at most, so that each is a block of the bootstrap
    duration: str
    report_interval: str
    discard: float
    compiled: bool = True


@dataclass(frozen=True)
class System:
    """A molecule with published coordinates and forces of its beads, in Å and kcal/mol/Å."""

    name: str
    folder: Path
    coordinates: str
    forces: str
    topology: Path
    resolution: str | list[str]
    temperature: float
    priors: list[str | dict[str, Any]]
    backbone: dict[str, Any]
    time_step: str
    share: str  # what is counted in one basin
    native: Path | None
    efforts: dict[str, Effort]
    surface: str  # whose figures are those of the tables
    mapped: Path | None = None  # where there is a dataset already
    trajectory_starts: str | None = None  # first frames of the trajectories of adaptive sampling
    weights: dict[str, Any] | None = None  # settings of the Markov model that weighs its frames

    def dataset(self, folder: Path) -> Path:
        """Map the published arrays, as a user would: what models are trained on, not weighted."""
        if self.mapped is not None:
            return self.mapped
        starts = None if self.trajectory_starts is None else self.folder / self.trajectory_starts
        return self.map_beads(
            folder / "reference.h5", self.folder / self.coordinates, [self.folder / self.forces], starts
        )

    def reference(self, folder: Path) -> Path:
        """Return what models are compared with: the dataset, weighted where its density is that of the sampling."""
        dataset, weighted = self.dataset(folder), folder / "weighted.h5"
        if self.weights is None:
            return dataset
        if not weighted.is_file():
            with Dataset.open(dataset) as opened:
                if len(opened.only_molecule().trajectory_lengths) == 1:
                    raise SystemExit(f"{dataset} does not know its trajectories; remove it, to have it made again")
            weigh(dataset, weighted, native=self.native, quiet=True, **self.weights)
        return weighted

    def one_basin(self, folder: Path) -> Path:
        """Make the dataset of the frames in one basin, from which half of the replicas start."""
        found = folder / "one_basin.h5"
        if not found.is_file():
            x = np.load(self.folder / self.coordinates)
            np.save(folder / "one_basin.npy", x[self.in_starting_basin(x, self.dataset(folder))])
        return self.map_beads(found, folder / "one_basin.npy", [])

    def map_beads(self, output: Path, coordinates: Path, forces: list[Path], starts: Path | None = None) -> Path:
        """Map arrays of the beads, unless it is done."""
        if output.is_file():
            return output
        output.parent.mkdir(parents=True, exist_ok=True)
        return map_trajectory(
            coordinates,
            output,
            forces=forces,
            trajectory_starts=starts,
            topology=self.topology,
            resolution=self.resolution,
            temperature=self.temperature,
            length_unit="Å",
            force_unit="kcal/mol/Å" if forces else None,
            quiet=True,
        )

    def counted(self, frames: np.ndarray, dataset: Path) -> np.ndarray:
        """Return which frames (F, N, 3) in Å have φ > 0, or are within 2.5 Å of the native structure."""
        if self.native is None:
            return dihedral_angles(frames, [PHI])[:, 0] > 0
        return self.native_coordinates(frames, dataset)[:, 0] < NATIVE_RMSD

    def native_coordinates(self, frames: np.ndarray, dataset: Path) -> np.ndarray:
        """Return the RMSD from the native structure and the radius of gyration in Å, shape (F, 2)."""
        with Dataset.open(dataset) as opened:
            topology = opened.only_molecule().topology
        rmsd = NativeStructure.read(self.native, topology, self.resolution).rmsd(frames)
        return np.stack([rmsd, radius_of_gyration(frames, topology.masses)], axis=1)

    def in_starting_basin(self, frames: np.ndarray, dataset: Path) -> np.ndarray:
        """Return which frames may be the start of replicas in one basin: right-handed helical, or native ones.

        From φ > 0 a replica of the dipeptide needs some 35 ps to leave, and half of the replicas begin there.
        """
        if self.native is not None:
            return self.counted(frames, dataset)
        phi, psi = np.degrees(dihedral_angles(frames, [PHI, PSI])).T
        return (phi > -135) & (phi < -30) & (psi > -90) & (psi < 0)


DIPEPTIDE = System(
    name="dipeptide",
    folder=DATA / "ala2_cg_forces",
    coordinates="ala2_cacb_coordinates.npy",
    forces="ala2_cacb_forces.npy",
    topology=ROOT / "examples" / "data" / "ala2.pdb",
    resolution=["ACE:C", "ALA:N", "ALA:CA", "ALA:CB", "ALA:C", "NME:N"],
    temperature=300.0,
    priors=["bonds", "angles"],
    backbone={"name": "schnet"},
    time_step="4 fs",
    share="φ > 0",
    native=None,
    surface="ramachandran",
    efforts={
        "smoke": Effort(6, 2, 6, "0.4 ps", "0.04 ps", 0.0, compiled=False),
        "quick": Effort(5_000, 500, 64, "100 ps", "0.2 ps", 0.4),
        "standard": Effort(40_000, 5_000, 100, "500 ps", "0.5 ps", 0.2),
    },
)
CHIGNOLIN = System(
    name="chignolin",
    folder=DATA / "chignolin_ca_forces",
    coordinates="chignolin_ca_coords.npy",
    forces="chignolin_ca_forces.npy",
    topology=DATA / "chignolin_ca_forces" / "chignolin_ca_top.psf",
    resolution="calpha",
    temperature=350.0,
    priors=["bonds", "angles", "dihedrals", "repulsion"],
    backbone={"name": "schnet", "cutoff": 12.0, "n_interactions": 2, "n_basis": 50},
    time_step="4 fs",
    share="within 2.5 Å",
    native=DATA / "chignolin_ca_forces" / "chignolin_cln025.pdb",
    surface="rmsd_radius_of_gyration",  # distances alone cannot see mirror images
    trajectory_starts="chignolin_trajectory_starts.npy",
    weights={"lag": 1, "clusters": 60},
    efforts={
        "smoke": Effort(6, 2, 6, "0.4 ps", "0.04 ps", 0.0, compiled=False),
        "quick": Effort(3_000, 1_000, 32, "400 ps", "1 ps", 0.5),
        "standard": Effort(100_000, 5_000, 100, "10 ns", "10 ps", 0.2),
    },
)
SYSTEMS = {system.name: system for system in (DIPEPTIDE, CHIGNOLIN)}
