"""Train a recipe: priors, labels, network, and the model file; resumable."""

import os
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ase_cg.devices import find_device
from ase_cg.errors import DivergenceError, InputError
from ase_cg.labels import label_source
from ase_cg.labels.base import LabelSource
from ase_cg.models.backbones import make_backbone
from ase_cg.models.base import Backbone
from ase_cg.models.model import CGModel, ModelCard
from ase_cg.seeds import torch_seed
from ase_cg.training.checks import check_recorded_forces, warn_of_suspicious_data
from ase_cg.training.data import TrainingData, as_tensor, kept_frames, read_training_data
from ase_cg.training.distributed import on_first_process, training_together
from ase_cg.training.fit import Place, fit
from ase_cg.training.flow_labels import labelled_by_flow
from ase_cg.training.objective import ForceMatching
from ase_cg.training.provenance import provenance
from ase_cg.training.recipe import Recipe
from ase_cg.training.session import Session, prepare_folder
from ase_cg.training.table import Row, best_row, network_name, write_table
from ase_cg.training.transitions import with_transitions
from ase_cg.training.validation_simulation import ValidationSimulation, read_references
from ase_cg.units import thermal_energy

MODEL_NAME = "model.safetensors"


def train(
    recipe: Recipe | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    dataset: str | os.PathLike[str] | None = None,
    allow_inconsistent_forces: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Train a model; the same call again continues a training that was stopped.

    Parameters
    ----------
    recipe : Recipe or path
        With several seeds or noise levels a network is trained for each, in a folder of its own; ``trainings.md`` and
        ``trainings.json`` compare them, and the best becomes the model.
    output : path
        Folder for ``model.safetensors``, checkpoints (best and last), and logs (CSV and TensorBoard).
    dataset : path, optional
        By default the recipe's.
    allow_inconsistent_forces : bool
        Train on forces that do not belong to the density of their positions (see
        :func:`ase_cg.data.force_check.check_forces`); the same as ``training.allow_inconsistent_forces`` of the recipe.
    overwrite : bool
        Discard what the folder holds of another training.
    quiet : bool

    Returns
    -------
    Path
        Of the model file.

    Raises
    ------
    InputError
        If the recipe or the dataset is wrong, forces that the labels use are inconsistent, or the folder holds another
        training, or one of another process.
    DivergenceError
        If the training diverged; of several, if all did.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    if allow_inconsistent_forces:
        training = recipe.training.model_copy(update={"allow_inconsistent_forces": True})
        recipe = recipe.model_copy(update={"training": training})
    device = find_device(recipe.training.device)
    path = dataset or recipe.data.dataset
    if path is None:
        raise InputError(
            f"recipe {recipe.name!r} names trajectories but no dataset; map them first with `ase-cg map` and give the "
            "result with --dataset, or use `ase-cg run`"
        )
    with training_together(device) as launch, ExitStack() as held:
        session = Session(device, launch, overwrite, quiet, held)
        check_recorded_forces(recipe, Path(path))
        if len(recipe.noise_levels) * len(recipe.training.network_seeds) > 1:
            return _train_several(recipe, Path(path), Path(output), session)
        only = recipe.only(recipe.noise_levels[0], recipe.training.network_seeds[0])
        return _train_one(only, _read(only, Path(path)), Path(output), session)


def _read(recipe: Recipe, path: Path) -> TrainingData:
    """Read the data; those without the transitions that a recipe asks for are refused before a folder is made."""
    data, flow = read_training_data(recipe, path), recipe.flow_kernel
    if flow is not None and flow.lag is not None:
        with_transitions(data, flow.lag, recipe.data.frame_interval)
    return data


def _train_several(recipe: Recipe, path: Path, folder: Path, session: Session) -> Path:
    """Train a network for each noise level and seed, and choose among them."""
    rows: list[Row] = []
    for noise_std in recipe.noise_levels:
        data = None
        for seed in recipe.training.network_seeds:
            only = recipe.only(noise_std, seed)
            # The priors differ between noise levels, and nothing between seeds.
            data = _read(only, path) if data is None else data
            if not rows:
                several = recipe.model_copy(update={"noise_std": list(recipe.noise_levels)})
                identity = {"dataset": data.hash, "recipe": _dumped(several)}
                prepare_folder(folder, identity, MODEL_NAME, session)
            rows.append(Row(network_name(noise_std, seed), noise_std, seed, _metrics(only, data, folder, session)))
    chosen = best_row(rows, recipe.training.select)

    def finish() -> None:
        if write_table(rows, chosen, recipe.training.select, folder) or not (folder / MODEL_NAME).is_file():
            CGModel.load(folder / chosen.name / MODEL_NAME).save(folder / MODEL_NAME, overwrite=True)

    on_first_process(finish)
    return folder / MODEL_NAME


def _metrics(recipe: Recipe, data: TrainingData, folder: Path, session: Session) -> dict[str, Any]:
    """Train one of several networks; what it came to, and nothing if it diverged: the others may not."""
    name = network_name(recipe.noise_levels[0], recipe.training.network_seeds[0])
    try:
        model = _train_one(recipe, data, folder / name, session, labels_in=folder)
    except DivergenceError as error:
        on_first_process(partial(warnings.warn, f"{name}: {error}", UserWarning, stacklevel=2))
        return {}
    metrics: dict[str, Any] = CGModel.load(model).card.provenance["metrics"]
    return metrics


def _train_one(
    recipe: Recipe, data: TrainingData, folder: Path, session: Session, *, labels_in: Path | None = None
) -> Path:
    """Train one network; flows and their labels are in its folder, or in that of several networks."""
    noise_std, seed = recipe.noise_levels[0], recipe.training.network_seeds[0]
    flow = recipe.flow_kernel
    labels = _labels(recipe.labels, data, noise_std) if flow is None else []
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch_seed(seed))
        backbone = make_backbone(recipe.backbone.name, len(data.vocabulary), recipe.backbone.hyper_parameters)
    simulation = _simulation(recipe, data)
    identity = {"dataset": data.hash, "recipe": _dumped(recipe)}
    if flow is not None and flow.lag is not None and recipe.data.frame_interval is not None:
        identity["frame_interval"] = recipe.data.frame_interval  # which frames the lag reaches back to
    if prepare_folder(folder, identity, MODEL_NAME, session):
        return folder / MODEL_NAME
    on_first_process(lambda: warn_of_suspicious_data(data, noise_std))
    fitted, made = data, None
    if flow is not None:
        fitted, made = labelled_by_flow(recipe, flow, data, labels_in or folder, session)
        labels = _labels(recipe.labels, fitted, noise_std)
    objective = ForceMatching(
        backbone,
        data.training_priors or data.priors,
        labels,
        data.topologies,
        data.vocabulary,
        recipe.training,
        seed,
    )
    title = f"Training {recipe.name}" + (f", seed {seed}" if recipe.training.seeds else "")
    metrics = fit(
        objective,
        fitted,
        recipe.training,
        Place(folder, session.device, session.launch),
        title=title,
        simulation=simulation,
        quiet=session.quiet,
    )
    origin = provenance(recipe, data, metrics) | ({} if made is None else {"flow": made})
    model = _model(backbone.cpu(), recipe, data, origin)
    on_first_process(lambda: model.save(folder / MODEL_NAME, overwrite=True))
    return folder / MODEL_NAME


def _labels(name: str, data: TrainingData, noise_std: float | None) -> list[LabelSource]:
    return [
        label_source(name).fit(
            as_tensor(molecule.label_forces),
            kT=thermal_energy(data.temperature),
            noise_std=noise_std,
            weights=as_tensor(molecule.label_weights),
        )
        for molecule in data.molecules
    ]


def _model(backbone: Backbone, recipe: Recipe, data: TrainingData, origin: dict[str, Any]) -> CGModel:
    card = ModelCard(
        temperature=data.temperature,
        resolution=data.resolution,
        topologies=data.topologies,
        labels=recipe.labels,
        noise_std=recipe.noise_levels[0] or 0.0,
        provenance=origin,
    )
    return CGModel(
        data.vocabulary,
        data.priors,
        card,
        backbone=backbone,
        backbone_name=recipe.backbone.name,
        training_priors=data.training_priors,
        frames=kept_frames(data),
    )


def _simulation(recipe: Recipe, data: TrainingData) -> ValidationSimulation | None:
    settings = recipe.training.validation_simulation
    if settings is None:
        return None
    return ValidationSimulation(
        settings,
        read_references(data, settings),
        lambda backbone: _model(backbone, recipe, data, {}),
        recipe.training.device,
    )


def _dumped(recipe: Recipe) -> dict[str, Any]:
    """Return what decides the trained network; to allow inconsistent forces does not change it."""
    left_out: dict[str, Any] = dict.fromkeys(("data", "simulation", "analysis"), True)
    left_out |= {"training": {"allow_inconsistent_forces"}} | ({} if recipe.flow_kernel else {"kernel": True})
    return recipe.model_dump(mode="json", exclude=left_out)
