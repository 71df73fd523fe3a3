"""Train a recipe: priors, labels, network, and the model file; resumable."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ase_cg.devices import find_device
from ase_cg.errors import InputError
from ase_cg.files import read_record, write_record
from ase_cg.labels import label_source
from ase_cg.labels.base import LabelSource
from ase_cg.models.backbones import make_backbone
from ase_cg.models.base import Backbone
from ase_cg.models.model import CGModel, ModelCard
from ase_cg.training.checks import warn_of_suspicious_data
from ase_cg.training.data import TrainingData, as_tensor, kept_frames, read_training_data
from ase_cg.training.distributed import Launch, on_first_process, training_together
from ase_cg.training.fit import Place, fit
from ase_cg.training.objective import ForceMatching
from ase_cg.training.provenance import provenance
from ase_cg.training.recipe import Recipe
from ase_cg.training.table import Row, best_row, network_name, write_table
from ase_cg.training.validation_simulation import ValidationSimulation, read_references
from ase_cg.units import thermal_energy

MODEL_NAME = "model.safetensors"


class Session(NamedTuple):
    """What all networks of a call share."""

    device: torch.device
    launch: Launch | None
    overwrite: bool
    quiet: bool


def train(
    recipe: Recipe | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    dataset: str | os.PathLike[str] | None = None,
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
        If the recipe or the dataset is wrong, or the folder holds another training.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    device = find_device(recipe.training.device)
    path = dataset or recipe.data.dataset
    if path is None:
        raise InputError(
            f"recipe {recipe.name!r} names trajectories but no dataset; map them first with `ase-cg map` and give the "
            "result with --dataset, or use `ase-cg run`"
        )
    with training_together(device) as launch:
        session = Session(device, launch, overwrite, quiet)
        if len(recipe.noise_levels) * len(recipe.training.network_seeds) > 1:
            return _train_several(recipe, Path(path), Path(output), session)
        only = recipe.only(recipe.noise_levels[0], recipe.training.network_seeds[0])
        return _train_one(only, read_training_data(only, Path(path)), Path(output), session)


def _train_several(recipe: Recipe, path: Path, folder: Path, session: Session) -> Path:
    """Train a network for each noise level and seed, and choose among them."""
    rows: list[Row] = []
    for noise_std in recipe.noise_levels:
        data = None
        for seed in recipe.training.network_seeds:
            only = recipe.only(noise_std, seed)
            # The priors differ between noise levels, and nothing between seeds.
            data = read_training_data(only, path) if data is None else data
            if not rows:
                several = recipe.model_copy(update={"noise_std": list(recipe.noise_levels)})
                identity = {"dataset": data.hash, "recipe": _dumped(several)}
                _prepare(folder, identity, session)
            name = network_name(noise_std, seed)
            model = _train_one(only, data, folder / name, session)
            rows.append(Row(name, noise_std, seed, CGModel.load(model).card.provenance["metrics"]))
    chosen = best_row(rows, recipe.training.select)

    def finish() -> None:
        if write_table(rows, chosen, recipe.training.select, folder) or not (folder / MODEL_NAME).is_file():
            CGModel.load(folder / chosen.name / MODEL_NAME).save(folder / MODEL_NAME, overwrite=True)

    on_first_process(finish)
    return folder / MODEL_NAME


def _train_one(recipe: Recipe, data: TrainingData, folder: Path, session: Session) -> Path:
    """Train one network."""
    noise_std, seed = recipe.noise_levels[0], recipe.training.network_seeds[0]
    labels = _labels(recipe.labels, data, noise_std)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        backbone = make_backbone(recipe.backbone.name, len(data.vocabulary), recipe.backbone.hyper_parameters)
    simulation = _simulation(recipe, data)
    if _prepare(folder, {"dataset": data.hash, "recipe": _dumped(recipe)}, session):
        return folder / MODEL_NAME
    on_first_process(lambda: warn_of_suspicious_data(data, noise_std))
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
        data,
        recipe.training,
        Place(folder, session.device, session.launch),
        title=title,
        simulation=simulation,
        quiet=session.quiet,
    )
    model = _model(backbone.cpu(), recipe, data, provenance(recipe, data, metrics))
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
    return recipe.model_dump(mode="json", exclude={"data", "simulation", "analysis"})


def _prepare(folder: Path, identity: dict[str, Any], session: Session) -> bool:
    """Make the folder ready, or return True if the same training is already finished there."""
    return on_first_process(lambda: _prepare_folder(folder, identity, overwrite=session.overwrite))


def _prepare_folder(folder: Path, identity: dict[str, Any], *, overwrite: bool) -> bool:
    record = folder / "training.json"
    if record.is_file() and not overwrite:
        if read_record(record) != identity:
            raise InputError(
                f"{folder} holds a training with another recipe or dataset; choose another folder, or discard it with "
                "--overwrite (overwrite=True)"
            )
        return (folder / MODEL_NAME).is_file()
    if folder.exists() and any(folder.iterdir()) and not record.is_file():
        raise InputError(f"{folder} is not empty and holds no training; choose another folder")
    (folder / MODEL_NAME).unlink(missing_ok=True)
    for checkpoint in (folder / "checkpoints").glob("*.ckpt"):
        checkpoint.unlink()
    write_record(record, identity)
    return False
