"""Train a recipe: priors, labels, network, and the model file; resumable."""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ase_cg.data.graph import n_pairs
from ase_cg.devices import find_device
from ase_cg.errors import InputError, reason
from ase_cg.files import read_record, write_record
from ase_cg.labels import label_source
from ase_cg.models.backbones import make_backbone
from ase_cg.models.model import CGModel, ModelCard
from ase_cg.progress import Progress
from ase_cg.threads import threads_for
from ase_cg.training.data import TrainingData, as_tensor, read_training_data
from ase_cg.training.objective import ForceMatching
from ase_cg.training.provenance import provenance
from ase_cg.training.recipe import Recipe
from ase_cg.units import thermal_energy

MODEL_NAME = "model.safetensors"


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
    data = read_training_data(recipe, Path(path))
    kT = thermal_energy(data.temperature)
    labels = [
        label_source(recipe.labels).fit(
            as_tensor(molecule.label_forces),
            kT=kT,
            noise_std=recipe.noise_std,
            weights=as_tensor(molecule.label_weights),
        )
        for molecule in data.molecules
    ]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.training.seed)
        backbone = make_backbone(recipe.backbone.name, len(data.vocabulary), recipe.backbone.hyper_parameters)
    folder = Path(output)
    if _prepare_folder(folder, recipe, data.hash, overwrite=overwrite):
        return folder / MODEL_NAME
    objective = ForceMatching(
        backbone,
        data.training_priors or data.priors,
        labels,
        data.topologies,
        data.vocabulary,
        recipe.training,
        recipe.training.seed,
    )
    metrics = _fit(objective, data, recipe, folder, device, quiet=quiet)
    card = ModelCard(
        temperature=data.temperature,
        resolution=data.resolution,
        topologies=data.topologies,
        labels=recipe.labels,
        noise_std=labels[0].noise_std,
        provenance=provenance(recipe, data.hash, metrics),
    )
    model = CGModel(
        data.vocabulary,
        data.priors,
        card,
        backbone=backbone.cpu(),
        backbone_name=recipe.backbone.name,
        training_priors=data.training_priors,
    )
    model.save(folder / MODEL_NAME, overwrite=True)
    return folder / MODEL_NAME


def _prepare_folder(folder: Path, recipe: Recipe, data_hash: str, *, overwrite: bool) -> bool:
    """Make the folder ready, or return True if the same training is already finished there."""
    record = folder / "training.json"
    identity = {
        "dataset": data_hash,
        "recipe": recipe.model_dump(mode="json", exclude={"data", "simulation", "analysis"}),
    }
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


def _fit(
    objective: ForceMatching, data: TrainingData, recipe: Recipe, folder: Path, device: torch.device, *, quiet: bool
) -> dict[str, float]:
    """Fit the backbone in place to its best epoch and return the metrics."""
    import lightning
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    from ase_cg.training.callbacks import EpochProgress, RelocatableCheckpoint

    settings = recipe.training

    checkpoints = RelocatableCheckpoint(
        folder / "checkpoints", filename="best", monitor="validation_loss", save_last=True, enable_version_counter=False
    )
    with (
        Progress(f"Training {recipe.name}", settings.epochs, quiet=quiet) as progress,
        threads_for(settings.batch_size * max(n_pairs(topology.n_beads) for topology in data.topologies)),
        _quiet_lightning(),
    ):
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1 if device.index is None else [device.index],
            max_epochs=settings.epochs,
            gradient_clip_val=settings.gradient_clip,
            callbacks=[checkpoints, EpochProgress(progress)],
            logger=[CSVLogger(folder, "csv"), TensorBoardLogger(folder, "tensorboard")],
            inference_mode=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        last = folder / "checkpoints" / "last.ckpt"
        if last.is_file():
            _read_checkpoint(last)
        with _interruptible():
            trainer.fit(
                objective,
                data.loader("train", settings, settings.seed),
                data.loader("validation", settings, settings.seed),
                ckpt_path=last if last.is_file() else None,
                weights_only=True,
            )
        if not checkpoints.best_model_path:
            raise InputError("training diverged: no epoch had a finite validation loss; lower training.learning_rate")
        objective.load_state_dict(_read_checkpoint(Path(checkpoints.best_model_path))["state_dict"])
        tested = trainer.test(objective, data.loader("test", settings, settings.seed), verbose=False)[0]
    losses = {
        "validation_loss": float("nan" if checkpoints.best_model_score is None else checkpoints.best_model_score),
        "test_loss": float(tested["test_loss"]),
    }
    if not np.isfinite(list(losses.values())).all():
        raise InputError(f"training diverged: {losses}; lower training.learning_rate and train again with --overwrite")
    return {
        **losses,
        "train_frames": sum(len(molecule.split.train) for molecule in data.molecules),
        "epochs": settings.epochs,
    }


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:
        # A truncated archive raises whatever its reader meets first.
        raise InputError(
            f"checkpoint {path} is missing or damaged ({reason(error)}); discard the training with --overwrite"
        ) from error
    return found


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C be a KeyboardInterrupt: Lightning makes it an exit and then ignores the signal for good."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as ended:
        raise KeyboardInterrupt from ended
    finally:
        if in_main_thread and signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advertisements and its advice on workers off the screen, for this block only."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Frames are in memory: more workers would only copy them.
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            warnings.filterwarnings("ignore", ".*logging interval.*")
            warnings.filterwarnings("ignore", ".*exists and is not empty.*")
            warnings.filterwarnings("ignore", category=FutureWarning, module="lightning.*")
            warnings.filterwarnings("ignore", ".*LeafSpec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
