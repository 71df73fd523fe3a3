"""Train the flow of a recipe, and label the frames of its model with it."""

import warnings
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ase_cg.data.dataset import Dataset
from ase_cg.data.splits import Split, drawn_by_weight, spread_frames
from ase_cg.errors import InputError
from ase_cg.files import file_hash
from ase_cg.flows.base import ConditionalFlow
from ase_cg.flows.check import BondCheck, check_bonds, describe_failures
from ase_cg.flows.field import drawn_by
from ase_cg.flows.kernel import FlowKernel, bead_types
from ase_cg.flows.label_set import LabelSet, Share
from ase_cg.flows.stiff_modes import StiffModes, stiff_modes
from ase_cg.training.checks import warn_of_noise
from ase_cg.training.data import MoleculeData, TrainingData
from ase_cg.training.distributed import on_first_process, process_count, process_rank, wait_for_all
from ase_cg.training.fit import Place, fit
from ase_cg.training.flow_objective import make_objective
from ase_cg.training.kernel_settings import KernelSection
from ase_cg.training.mixed_labels import with_recorded_forces
from ase_cg.training.recipe import Recipe
from ase_cg.training.session import FLOW_FOLDER, Session, prepare_folder
from ase_cg.training.transitions import displacement_std, with_transitions

FLOW_NAME = "flow.safetensors"
LABELS_NAME = "labels.h5"
CHECKED_FRAMES = 4096  # of each molecule, whose bonds are compared
FITTED_TO = 20_000  # frames of each molecule that give the fluctuations of bonds and angles
LEAST_VALIDATION = 500  # frames labelled for validation and for test
MANY_DROPPED = 0.01
VIRIAL_SIGNIFICANT, VIRIAL_TOLERANCE = 5.0, 0.1  # as of recorded forces


def labelled_by_flow(
    recipe: Recipe, kernel: KernelSection, data: TrainingData, folder: Path, session: Session
) -> tuple[TrainingData, dict[str, Any]]:
    """Train the flow, label frames with it, and return the labels as training data; each step resumes.

    All is kept in ``flow`` of the folder: the kernel, its checkpoints, and the label set, which is a dataset.

    Returns
    -------
    TrainingData
        With the label set's frames in memory.
    dict
        What is known of flow and labels, JSON-safe.

    Raises
    ------
    InputError
        If the training diverges, or no frame can be labelled.
    """
    place, recorded = folder / FLOW_FOLDER, data.molecules
    if kernel.lag is not None:
        data = with_transitions(data, kernel.lag, recipe.data.frame_interval)
    trained = _train_flow(recipe, kernel, data, place, session)
    draws = kernel.labels_of_each(sum(len(molecule.split.train) for molecule in data.molecules))
    frames = {molecule.name: _frames_to_label(molecule.split, draws) for molecule in data.molecules}
    lags = {molecule.name: molecule.lag for molecule in data.molecules if molecule.lag}
    options: dict[str, Any] = {"seed": recipe.training.seed, "lags": lags, "at_frames": kernel.labels_at == "frames"}
    labels = LabelSet(trained, data.path, frames, place / LABELS_NAME, **options)
    if not on_first_process(lambda: labels.finished):
        on_first_process(labels.prepare)
        labels.make(session.device, share=Share(process_rank(), process_count()), quiet=session.quiet)
        wait_for_all()
        on_first_process(labels.gather)
    report = labels.report()
    found = data._replace(molecules=tuple(_read(molecule, labels.output) for molecule in data.molecules))
    on_first_process(lambda: _warn_of_labels(report, found, kernel))
    if recipe.labels == "flow_and_forces":
        pairs = zip(found.molecules, recorded, strict=True)
        both = [
            pair[0] if pair[1].label_forces is None else with_recorded_forces(*pair, data.priors, data.vocabulary)
            for pair in pairs
        ]
        found = found._replace(molecules=tuple(both))
    record = {
        "flow_sha256": file_hash(trained),
        "labels": {name: {key: of[key] for key in ("labelled", "dropped")} for name, of in report.items()},
        **FlowKernel.load(trained).provenance,
    }
    return found, record


def _train_flow(recipe: Recipe, kernel: KernelSection, data: TrainingData, folder: Path, session: Session) -> Path:
    """Train the flow on the frames that the model is trained on."""
    settings = kernel.training(recipe.training)
    identity = {
        "dataset": data.hash,
        "kernel": kernel.model_dump(mode="json"),
        "training": settings.model_dump(mode="json"),
        **({} if kernel.lag is None else {"lags": {molecule.name: molecule.lag for molecule in data.molecules}}),
    }
    path = folder / FLOW_NAME
    if prepare_folder(folder, identity, FLOW_NAME, session._replace(overwrite=False)):
        return path
    if kernel.lag is None:
        on_first_process(lambda: _warn_of_widths(kernel, data))
    topologies = {molecule.name: molecule.topology for molecule in data.molecules}
    types, n_types = bead_types(topologies, distinct=kernel.distinct_beads)
    fitted = None if kernel.lag is None else displacement_std(data)
    modes = _modes(data) if kernel.harmonic_start else None
    objective = make_objective(kernel, list(types.values()), n_types, settings, fitted, modes)
    metrics = fit(
        objective,
        data,
        settings,
        Place(folder, session.device, session.launch),
        title=f"Training the flow of {recipe.name}",
        simulation=None,
        quiet=session.quiet,
    )
    flow: ConditionalFlow = objective.flow.cpu()
    known: dict[str, Any] = {"temperature": data.temperature, "lag": kernel.lag, "provenance": {"metrics": metrics}}
    made = FlowKernel(flow, types, **known)

    def check_and_save() -> None:
        made.provenance["bonds"] = check_distribution(made, data)
        made.save(path, overwrite=True)

    on_first_process(check_and_save)
    return path


def _modes(data: TrainingData) -> StiffModes:
    """Return bonds and angles of all molecules, as they fluctuate in training frames."""
    found = []
    with Dataset.open(data.path) as dataset:
        for molecule in data.molecules:
            train = molecule.split.train
            if molecule.weights is not None:
                train = train[drawn_by_weight(molecule.weights[train])]
            x = dataset.molecules[molecule.name].coordinates(spread_frames(train, FITTED_TO))
            found.append(stiff_modes(molecule.topology, torch.from_numpy(x).double()))
    return reduce(StiffModes.joined, found)


def check_distribution(kernel: FlowKernel, data: TrainingData) -> dict[str, list[dict[str, Any]]]:
    """Compare bonds of samples with those of validation frames; warn of those that are not reproduced.

    Returns
    -------
    dict
        Of each molecule a row for each bond, lengths in Å.
    """
    found = {}
    with Dataset.open(data.path) as dataset:
        for molecule in data.molecules:
            frames = spread_frames(molecule.split.validation, CHECKED_FRAMES)
            stored, types = dataset.molecules[molecule.name], kernel.types_of(molecule.name)
            x = stored.coordinates(frames)
            earlier = stored.coordinates(frames - molecule.lag) if molecule.lag else None
            normal = drawn_by(torch.Generator().manual_seed(0))
            checks = check_bonds(kernel.flow, types, x, molecule.topology, normal, earlier)
            found[molecule.name] = [_row(check) for check in checks]
            failures = describe_failures(checks, molecule.topology)
            if failures:
                warnings.warn(
                    f"the flow does not reproduce all bonds of molecule {molecule.name!r}: {failures}; labels belong "
                    "to the distribution of its samples: train it longer (kernel.epochs), or on more frames",
                    UserWarning,
                    stacklevel=2,
                )
    return found


def _row(check: BondCheck) -> dict[str, Any]:
    return check._asdict() | {"beads": list(check.beads), "reproduced": check.reproduced}


def _frames_to_label(split: Split, draws: int) -> NDArray[np.int64]:
    """Return training frames, each as often as it is labelled, and of the others not many more than of those."""
    limit = max(LEAST_VALIDATION, len(split.train))
    others = [spread_frames(part, limit) for part in (split.validation, split.test)]
    return np.sort(np.concatenate([np.repeat(split.train, draws), *others]))


def _read(molecule: MoleculeData, labels: Path) -> MoleculeData:
    """Return a molecule's data with the label set in the place of its frames."""
    with Dataset.open(labels) as dataset:
        found = dataset.molecules[molecule.name]
        coordinates, forces, weights, sources = (
            found.coordinates(),
            found.forces(),
            found.weights(),
            found.source_frames(),
        )
    if sources is None:
        raise InputError(f"{labels} does not say which frames it labels; discard it with --overwrite")
    split = Split(*(np.flatnonzero(np.isin(sources, part)) for part in molecule.split))
    if not all(len(part) for part in split):
        raise InputError(
            f"molecule {molecule.name!r}: too few frames could be labelled to train, validate and test; train the flow "
            "longer (kernel.epochs), or on more frames"
        )
    return molecule._replace(
        split=split,
        lag=0,
        coordinates=coordinates,
        forces=forces,
        label_forces=forces[split.train],
        weights=weights,
        label_weights=None if weights is None else weights[split.train],
    )


def _warn_of_widths(kernel: KernelSection, data: TrainingData) -> None:
    for molecule in data.molecules:
        if kernel.conditioning_std > 0:
            warn_of_noise(data.path, molecule, kernel.conditioning_std, "kernel.noise_std")
        if kernel.name == "cnf":
            warn_of_noise(data.path, molecule, kernel.start_std, "kernel.prior_std")


def _warn_of_labels(report: dict[str, Any], data: TrainingData, kernel: KernelSection) -> None:
    """Warn of frames that failed, and of labels that are not the forces of the density of their positions."""
    from ase_cg.analysis.diagnose import virial_ratio

    # Labels of samples obey the virial theorem whatever the flow has learned; those of frames where it has.
    remedy = kernel.finer or "train the flow longer"
    if kernel.labels_at == "frames":
        remedy = "train the flow longer or on more frames, or take kernel.labels_at: samples"
    for molecule in data.molecules:
        dropped, labelled = report[molecule.name]["dropped"], report[molecule.name]["labelled"]
        if dropped > MANY_DROPPED * (dropped + labelled):
            warnings.warn(
                f"{dropped} of {dropped + labelled} frames of molecule {molecule.name!r} could not be labelled and "
                "were dropped: likelihoods or labels are no numbers or too large, or samples flew away; train the flow "
                f"longer{kernel.finer and ', or '}{kernel.finer}",
                UserWarning,
                stacklevel=2,
            )
        if molecule.topology.n_beads < 2 or molecule.coordinates is None or molecule.forces is None:
            continue
        ratio, error = virial_ratio(molecule.coordinates.astype(float), molecule.forces.astype(float), data.temperature)
        if abs(ratio - 1) > max(VIRIAL_SIGNIFICANT * error, VIRIAL_TOLERANCE):
            warnings.warn(
                f"labels of molecule {molecule.name!r} are biased: −⟨x·f⟩ is {ratio:.3g} ± {error:.1g} times its exact "
                f"value (3N − 3) kT; {remedy}",
                UserWarning,
                stacklevel=2,
            )
