"""Short simulations of the model while it is trained, compared with frames of the data."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np

from ase_cg.data.dataset import Dataset, Molecule
from ase_cg.data.splits import drawn_by_weight, spread_frames
from ase_cg.errors import InputError, SimulationError, StartError
from ase_cg.models.base import Backbone
from ase_cg.models.model import CGModel
from ase_cg.training.data import TrainingData
from ase_cg.training.distributed import on_first_process
from ase_cg.training.simulation_distances import Frames, Reference, distances, features
from ase_cg.training.training_settings import ValidationSimulationSection
from ase_cg.units import quantity, whole_ratio

SIMULATION_METRICS = ("simulation_js", "simulation_bond_wasserstein")
MAX_FRAMES = 50_000  # of a reference


def read_references(data: TrainingData, settings: ValidationSimulationSection) -> tuple[Reference, ...]:
    """Return the validation frames of each molecule, or the frames of the reference that the settings name.

    Raises
    ------
    InputError
        If the reference has other beads, or a molecule is too large to be compiled.
    """
    if settings.compile:
        from ase_cg.inference.compiled import check_size

        for molecule in data.molecules:
            check_size(molecule.topology)
    path = settings.reference or data.path
    found = []
    with Dataset.open(path) as dataset:
        for molecule in data.molecules:
            if settings.reference is None:
                stored, frames = dataset.molecules[molecule.name], molecule.split.validation
            else:
                stored = _same_beads(dataset, path, molecule.name, molecule.topology.names)
                frames = np.arange(stored.n_frames)
            frames = spread_frames(frames, MAX_FRAMES)
            weights = stored.weights()
            found.append(
                Reference(molecule.topology, stored.coordinates(frames), None if weights is None else weights[frames])
            )
    return tuple(found)


def _same_beads(dataset: Dataset, path: Path, name: str, beads: tuple[str, ...]) -> Molecule:
    fitting = [m for m in dataset.molecules.values() if m.topology.names == beads]
    named = [m for m in fitting if m.name == name]
    if not fitting:
        raise InputError(f"reference {path} of the validation simulation has no molecule with the beads of {name!r}")
    return (named or fitting)[0]


class ValidationSimulation(lightning.Callback):
    """Simulates every few epochs and logs how far its distributions are from those of the references.

    Parameters
    ----------
    settings : ValidationSimulationSection
    references : tuple of Reference
        One for each molecule; distances are averaged over them.
    make_model : callable
        Makes the model of a backbone, with the priors of simulation.
    device : str

    Raises
    ------
    InputError
        If a dihedral or pair names beads that a molecule lacks, or there is nothing to compare.
    """

    def __init__(
        self,
        settings: ValidationSimulationSection,
        references: tuple[Reference, ...],
        make_model: Callable[[Backbone], CGModel],
        device: str,
    ) -> None:
        self._settings, self._references = settings, references
        self._make_model, self._device = make_model, device
        self._features = [features(reference.topology, settings) for reference in references]
        # Those of the last simulation; until the first they are worse than all.
        self._distances = dict.fromkeys(SIMULATION_METRICS, float("inf"))

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Simulate if it is time, and log the distances of the last simulation."""
        if trainer.state.fn != "fit":
            return
        if (trainer.current_epoch + 1) % self._settings.every == 0:
            self._distances = on_first_process(lambda: self.measure(pl_module.backbone))
        for name, value in self._distances.items():
            # The same on all processes; their average keeps Lightning from asking.
            pl_module.log(name, value, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the distances of the last simulation."""
        return dict(self._distances)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the distances of the last simulation."""
        self._distances = dict(state_dict)

    def measure(self, backbone: Backbone) -> dict[str, float]:
        """Simulate and return the distances; all infinite if positions or forces of all replicas explode.

        Frames of a replica that explodes count as being nowhere in the data. The divergence is then at most
        (1 − f) JS + f ln 2, with f the share of such replicas and JS that of the others, because it is convex.
        """
        model = self._make_model(backbone)
        found = []
        for reference, compared in zip(self._references, self._features, strict=True):
            try:
                frames, stopped = simulated(model, reference, self._settings, self._device)
            except (SimulationError, StartError):
                return dict.fromkeys(SIMULATION_METRICS, float("inf"))
            divergence, bonds = distances(frames, reference, compared, self._settings.bins)
            found.append(((1 - stopped) * divergence + stopped * math.log(2), bonds))
        return dict(zip(SIMULATION_METRICS, np.mean(found, axis=0).tolist(), strict=True))


def simulated(
    model: CGModel, reference: Reference, settings: ValidationSimulationSection, device: str
) -> tuple[Frames, float]:
    """Simulate replicas that start from frames of a reference.

    Returns
    -------
    ndarray, shape (F, N, 3)
        Frames in Å of the replicas that did not explode.
    float
        The share of those that did.

    Raises
    ------
    SimulationError
        If positions of all replicas explode.
    StartError
        If forces are beyond the limit at the start already.
    """
    from ase_cg.dynamics.replicas import ReplicaSimulation

    weights = np.ones(len(reference.frames)) if reference.weights is None else reference.weights
    starts = reference.frames[drawn_by_weight(weights, settings.replicas)]
    compiled = None
    if settings.compile:
        options: dict[str, Any] = {"replicas": len(starts), "device": device, "frames": starts, "quiet": True}
        try:
            compiled = model.compile(reference.topology, **options)
        except InputError as error:  # of these weights, which may be better later on
            warnings.warn(f"this validation simulation is not compiled: {error}", UserWarning, stacklevel=2)
    simulation = ReplicaSimulation(
        model,
        starts,
        topology=reference.topology,
        compiled=compiled,
        time_step=quantity(settings.time_step, "time"),
        friction=quantity(settings.friction, "rate"),
        seed=settings.seed,
        device=device,
    )
    steps = whole_ratio(settings.report_interval, settings.time_step, ("report_interval", "time_step"))
    reports = whole_ratio(settings.duration, settings.report_interval, ("duration", "report_interval"))
    kept = []
    for report in range(reports):
        simulation.step(steps)
        if report >= int(settings.discard * reports):
            kept.append(simulation.positions)
    good = np.delete(np.stack(kept, 1), list(simulation.stopped), axis=0)
    return good.reshape(-1, *good.shape[2:]), len(simulation.stopped) / settings.replicas
