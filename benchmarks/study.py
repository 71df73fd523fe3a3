"""What the studies of accuracy share: molecules, and how one model is trained, simulated and judged.

Every result is a folder or a file of its own, so that a study that was stopped goes on where it was.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from judgement import judged

from ase_cg import CGModel, Dataset, PriorSet, Recipe, SimulationError, analyze, map_trajectory, simulate, train
from ase_cg.analysis import NativeStructure, dihedral_angles, radius_of_gyration

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
BATCH = 64
PRIOR_ONLY = ("prior only",)  # in place of the names of sharpened priors: the model without its network
TRAIN_SHARE = 0.9  # of the frames; a twentieth each for validation and test
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
    mapped: Path | None = None  # where there is a dataset already

    def dataset(self, folder: Path) -> Path:
        """Map the published arrays, as a user would."""
        if self.mapped is not None:
            return self.mapped
        return self._mapped(folder / "reference.h5", self.folder / self.coordinates, [self.folder / self.forces])

    def one_basin(self, folder: Path) -> Path:
        """Make the dataset of the frames in one basin, from which half of the replicas start."""
        found = folder / "one_basin.h5"
        if not found.is_file():
            x = np.load(self.folder / self.coordinates)
            np.save(folder / "one_basin.npy", x[self.in_starting_basin(x, self.dataset(folder))])
        return self._mapped(found, folder / "one_basin.npy", [])

    def _mapped(self, output: Path, coordinates: Path, forces: list[Path]) -> Path:
        if output.is_file():
            return output
        output.parent.mkdir(parents=True, exist_ok=True)
        return map_trajectory(
            coordinates,
            output,
            forces=forces,
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
    priors=["bonds", "angles", "dihedrals", {"name": "repulsion", "exclude": 3}],
    backbone={"name": "schnet", "cutoff": 12.0, "n_interactions": 2},
    time_step="4 fs",
    share="within 2.5 Å",
    native=DATA / "chignolin_ca_forces" / "chignolin_cln025.pdb",
    efforts={
        "smoke": Effort(6, 2, 6, "0.4 ps", "0.04 ps", 0.0, compiled=False),
        "quick": Effort(3_000, 1_000, 32, "400 ps", "1 ps", 0.5),
        "standard": Effort(100_000, 5_000, 100, "10 ns", "10 ps", 0.2),
    },
)
SYSTEMS = {system.name: system for system in (DIPEPTIDE, CHIGNOLIN)}


@dataclass(frozen=True)
class Case:
    """One training: a molecule, how much of its data, the labels, and a seed."""

    system: str
    fraction: float
    labels: str
    noise_std: float | None
    seed: int

    @property
    def folder(self) -> Path:
        """Where it lies below the folder of the study."""
        noise = "" if self.noise_std is None else f"_{self.noise_std:g}"
        return Path(self.system) / f"{self.fraction:g}_{self.labels}{noise}_seed_{self.seed}"


@dataclass(frozen=True)
class Study:
    """Where results are kept, and the effort that is spent on each."""

    folder: Path
    effort: str
    device: str = "cpu"

    def train(self, case: Case) -> Path:
        """Train the model of a case, or return the one that is there."""
        system = SYSTEMS[case.system]
        place = self.folder / case.folder
        dataset = system.dataset(self.folder / case.system)
        system.one_basin(self.folder / case.system)
        recipe = recipe_of(case, system, dataset, system.efforts[self.effort], self.device)
        place.mkdir(parents=True, exist_ok=True)
        written = place / "recipe.yaml"
        if not written.is_file():
            written.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
        return train(Recipe.read(written), place / "training", quiet=True)

    def result(self, case: Case, sharpened: Sequence[str] | None) -> Path:
        """Return the file of the figures of a case with some of its priors sharpened (None: all)."""
        return self.folder / case.folder / f"{variant_name(case, sharpened)}.json"

    def run(self, case: Case, sharpened: Sequence[str] | None) -> dict[str, Any]:
        """Train, simulate and judge, or return what is there."""
        found = self.result(case, sharpened)
        if found.is_file():
            return json.loads(found.read_text())
        started = time.perf_counter()
        model = self.train(case)
        trained = time.perf_counter()
        row = self._row(case, sharpened, model)
        row |= {"seconds": {"training": trained - started, "simulation": time.perf_counter() - trained}}
        part = found.with_suffix(".part")
        part.write_text(json.dumps(row, indent=1, ensure_ascii=False))
        part.rename(found)
        return row

    def _row(self, case: Case, sharpened: Sequence[str] | None, model: Path) -> dict[str, Any]:
        system, place = SYSTEMS[case.system], self.folder / case.folder
        effort = system.efforts[self.effort]
        name = variant_name(case, sharpened)
        card = CGModel.load(model).card
        row = asdict(case) | {"priors": name, "effort": asdict(effort), "training": card.provenance["metrics"]}
        try:
            written = _variant(model, place / f"{name}.safetensors", sharpened)
            simulation = self._simulate(case, written, name, prior_only=sharpened == PRIOR_ONLY)
        except SimulationError as error:
            return row | {"failed": str(error)}
        reference = self.folder / case.system / "reference.h5"
        options = {"bins": 30, "discard": effort.discard, "lag": 0, "native": system.native}
        comparison = analyze(simulation, reference, **options, quiet=True)
        return row | judged(comparison, lambda frames: system.counted(frames, reference))

    def _simulate(self, case: Case, model: Path, name: str, *, prior_only: bool) -> Path:
        system = SYSTEMS[case.system]
        effort = system.efforts[self.effort]
        return simulate(
            model,
            self.folder / case.folder / f"simulation_{name}",
            start=[self.folder / case.system / f"{start}.h5" for start in ("reference", "one_basin")],
            replicas=effort.replicas,
            time_step=system.time_step,
            duration=effort.duration,
            report_interval=effort.report_interval,
            seed=case.seed,
            device=self.device,
            prior_only=prior_only,
            compile=effort.compiled and not prior_only,
            resume=True,
            quiet=True,
        )


def variant_name(case: Case, sharpened: Sequence[str] | None) -> str:
    """Return what a choice of sharpened priors is called."""
    if sharpened == PRIOR_ONLY:
        return "prior_only"
    if case.noise_std is None:
        return "clean"
    if sharpened is None:
        return "sharpened"
    return "plain" if not sharpened else "sharpened_" + "_".join(sharpened)


def recipe_of(case: Case, system: System, dataset: Path, effort: Effort, device: str) -> dict[str, Any]:
    """Return the recipe of a case.

    Every network gets the same number of updates of its weights, whatever its data, but at most so many epochs.
    """
    with Dataset.open(dataset) as opened:
        frames = round(case.fraction * TRAIN_SHARE * opened.only_molecule().n_frames)
    epochs = min(effort.max_epochs, math.ceil(effort.updates / math.ceil(frames / BATCH)))
    recipe: dict[str, Any] = {
        "name": f"{case.system}_{case.labels}",
        "data": {"dataset": str(dataset.resolve())},
        "labels": case.labels,
        "priors": system.priors,
        "backbone": system.backbone,
        "training": {
            "epochs": epochs,
            "patience": max(10, epochs // 4),
            "batch_size": BATCH,
            "learning_rate": 2.0e-3,
            # Without warmup the first steps go so far that an average of the weights needs long to forget them.
            "warmup_steps": 100,
            "ema_decay": 0.99,
            "fraction": case.fraction,
            "validation_fraction": (1 - TRAIN_SHARE) / 2,
            "test_fraction": (1 - TRAIN_SHARE) / 2,
            "seeds": [case.seed],
            "device": device,
        },
    }
    return recipe if case.noise_std is None else recipe | {"noise_std": case.noise_std}


def _variant(model: Path, output: Path, sharpened: Sequence[str] | None) -> Path:
    """Write the model with only some of its priors sharpened; the network is the same for all."""
    loaded = CGModel.load(model)
    if sharpened is None or sharpened == PRIOR_ONLY or loaded.training_priors is None:
        return model
    terms = [
        (loaded.priors if name in sharpened else loaded.training_priors).terms[name] for name in loaded.priors.terms
    ]
    CGModel(
        loaded.vocabulary,
        PriorSet(terms),
        loaded.card,
        backbone=loaded.backbone,
        backbone_name=loaded.backbone_name,
        frames=loaded.frames,
    ).save(output, overwrite=True)
    return output
