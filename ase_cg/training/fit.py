"""Fit the network with Lightning: callbacks, checkpoints, processes; and what came out."""

import logging
import shutil
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ase_cg.data.graph import n_pairs
from ase_cg.errors import DivergenceError, InputError, reason
from ase_cg.files import written_whole
from ase_cg.progress import Progress
from ase_cg.threads import threads_for
from ase_cg.training.callbacks import (
    EpochProgress,
    EpochRecord,
    Interruption,
    Patience,
    RelocatableCheckpoint,
    WholeCheckpointIO,
)
from ase_cg.training.data import TrainingData
from ase_cg.training.distributed import Launch, on_first_process, process_rank
from ase_cg.training.flow_objective import FlowObjective
from ase_cg.training.objective import ForceMatching
from ase_cg.training.session import CSV_FOLDER, TENSORBOARD_FOLDER
from ase_cg.training.training_settings import TrainingSection
from ase_cg.training.validation_simulation import SIMULATION_METRICS, ValidationSimulation

MONITORED = {"validation_loss": "validation_loss", "simulation": SIMULATION_METRICS[0]}


class Place(NamedTuple):
    """Where a network is trained.

    Attributes
    ----------
    folder : Path
        For checkpoints and logs; those that are there are continued.
    device : torch.device
    launch : Launch or None
        The processes that train together.
    """

    folder: Path
    device: torch.device
    launch: Launch | None

    @property
    def last(self) -> Path:
        """Checkpoint of the last epoch."""
        return self.folder / "checkpoints" / "last.ckpt"


def fit(
    objective: ForceMatching | FlowObjective,
    data: TrainingData,
    settings: TrainingSection,
    place: Place,
    *,
    title: str,
    simulation: ValidationSimulation | None,
    quiet: bool,
) -> dict[str, float]:
    """Fit the network in place to the epoch that the settings choose, and return the metrics.

    Parameters
    ----------
    objective, data, place, simulation
        What is trained, on what, where, and what it is validated by besides its loss.
    settings : TrainingSection
        Of one network.
    title : str
        Of the progress.
    quiet : bool

    Returns
    -------
    dict
        Losses (and variances of labels) in the unit of the objective, epochs counted from 0, and what simulations gave.

    Raises
    ------
    DivergenceError
        If there is no epoch to choose.
    InputError
        If a checkpoint is damaged.
    """
    seed = settings.network_seeds[0]
    with (
        Progress(title, settings.epochs, quiet=quiet or process_rank() > 0) as progress,
        threads_for(settings.batch_size * max(n_pairs(topology.n_beads) for topology in data.topologies)),
        _quiet_lightning(),
    ):
        best = _best_checkpoint(settings, place)
        record = EpochRecord(objective.recorded, ("validation_loss", *SIMULATION_METRICS))
        callbacks = [*_callbacks(settings, place, simulation), record, best, _last_checkpoint(place)]
        interruption = Interruption()
        trainer = _trainer(settings, place, [EpochProgress(progress, objective.loss_unit), interruption, *callbacks])
        resumed = on_first_process(lambda: _resumable(place.last))
        with _interruptible(interruption), _disk_errors(place):
            trainer.fit(
                objective,
                data.loader("train", settings, seed),
                data.loader("validation", settings, seed),
                ckpt_path=place.last if resumed else None,
                weights_only=True,
            )
        chosen = _chosen(best, settings)
        objective.load_state_dict(chosen["state_dict"])
        tested = trainer.test(objective, data.loader("test", settings, seed), verbose=False)[0]
    metrics = {**record.of(chosen), "test_loss": float(tested["test_loss"])}
    if not np.isfinite([metrics["validation_loss"], metrics["test_loss"]]).all():
        raise DivergenceError(_failure(settings))
    return {
        **metrics,
        "best_epoch": int(chosen["epoch"]),
        "epochs": int(_read_checkpoint(place.last)["epoch"]) + 1,
        "train_frames": sum(len(molecule.split.train) for molecule in data.molecules),
    }


def _chosen(best: ModelCheckpoint, settings: TrainingSection) -> dict[str, Any]:
    """Return the checkpoint that was chosen."""
    if best.best_model_score is None or not np.isfinite(float(best.best_model_score)):
        raise DivergenceError(_failure(settings))
    return _read_checkpoint(Path(best.best_model_path))


def _failure(settings: TrainingSection) -> str:
    if settings.select == "simulation":
        return (
            "no validation simulation ended with finite positions; train longer, lower training.learning_rate, shorten "
            "the time_step of validation_simulation, or take stiffer priors"
        )
    return (
        "training diverged: no epoch had a finite validation loss; lower training.learning_rate and train again with "
        "--overwrite"
    )


def _callbacks(
    settings: TrainingSection, place: Place, simulation: ValidationSimulation | None
) -> Iterator[lightning.Callback]:
    """Give callbacks in their order: the simulation runs while averaged weights are in the model's place."""
    if simulation is not None:
        yield simulation
    if settings.ema_decay is not None:
        # Buffers are copied: all of them are constants.
        average = get_ema_multi_avg_fn(settings.ema_decay)  # type: ignore[no-untyped-call] # of torch
        yield WeightAveraging(device=place.device, use_buffers=False, multi_avg_fn=average)
    if settings.patience is not None:
        by_loss = settings.select == "validation_loss"
        yield Patience(MONITORED[settings.select], patience=settings.patience, check_finite=by_loss)


def _best_checkpoint(settings: TrainingSection, place: Place) -> ModelCheckpoint:
    return RelocatableCheckpoint(
        place.last.parent, filename="best", monitor=MONITORED[settings.select], enable_version_counter=False
    )


def _last_checkpoint(place: Place) -> ModelCheckpoint:
    """Make what a stopped training continues from; written after the best one, whose state is in it."""
    return RelocatableCheckpoint(place.last.parent, filename=place.last.stem, enable_version_counter=False)


def _trainer(settings: TrainingSection, place: Place, callbacks: list[lightning.Callback]) -> lightning.Trainer:
    device, launch = place.device, place.launch
    together: dict[str, Any] = {
        "devices": 1 if device.index is None else [device.index],
        "plugins": [WholeCheckpointIO()],
    }
    if launch is not None:
        together = {
            "devices": launch.processes_a_node,
            "num_nodes": launch.nodes,
            "plugins": [launch.environment, WholeCheckpointIO()],
            # Constants of the energy, such as the last bias, have no gradient of forces.
            "strategy": DDPStrategy(find_unused_parameters=True),
            "use_distributed_sampler": False,
        }
    return lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        max_epochs=settings.epochs,
        gradient_clip_val=settings.gradient_clip,
        callbacks=callbacks,
        logger=[CSVLogger(place.folder, CSV_FOLDER), TensorBoardLogger(place.folder, TENSORBOARD_FOLDER)],
        inference_mode=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **together,
    )


def _resumable(last: Path) -> bool:
    """Return whether there is a checkpoint to go on from; where the last is damaged or missing, the best becomes it.

    Raises
    ------
    InputError
        If there are damaged ones only.
    """
    best = last.with_name("best.ckpt")
    if not last.is_file() and not best.is_file():
        return False
    try:
        _read_checkpoint(last)
    except InputError as error:
        if not best.is_file():
            raise
        epoch = int(_read_checkpoint(best)["epoch"]) + 1
        with written_whole(last, overwrite=True) as partial:
            shutil.copyfile(best, partial)
        warnings.warn(
            f"{error.args[0].partition(';')[0]}; the training goes on from the best one, after epoch {epoch}",
            UserWarning,
            stacklevel=2,
        )
    return True


@contextmanager
def _disk_errors(place: Place) -> Iterator[None]:
    """Say of a full disk what is kept, and what to do."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or place.folder} could not be written ({error.strerror or error}); the last checkpoint "
            "in the folder is kept: make room, and give the same command again, which goes on from it"
        ) from error


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
def _interruptible(interruption: Interruption) -> Iterator[None]:
    """Let Ctrl-C be a KeyboardInterrupt after a batch: Lightning makes it an exit and ignores the signal for good."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if in_main_thread and before is signal.default_int_handler:
        signal.signal(signal.SIGINT, interruption.ask)
    try:
        yield
        interruption.stop_if_asked()
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
