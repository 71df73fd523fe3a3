"""Callbacks of the trainer."""

import io
import signal
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from ase_cg.errors import InputError
from ase_cg.files import plain_name, written_whole
from ase_cg.progress import Progress


class EpochProgress(lightning.Callback):
    """Shows epochs, with the losses, in ase-cg's own progress display.

    Parameters
    ----------
    progress : Progress
    unit : str
        Of the losses.
    """

    def __init__(self, progress: Progress, unit: str) -> None:
        self._progress, self._unit = progress, unit

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Count the epochs that a resumed training has done before."""
        self._progress.advance(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Show the losses."""
        metrics = trainer.callback_metrics
        shown = [
            f"{name.removesuffix('_loss')} {float(metrics[name]):.4g}"
            for name in ("train_loss", "validation_loss")
            if name in metrics
        ]
        self._progress.advance(note="loss " + ", ".join(shown) + f" {self._unit}")


class EpochRecord(lightning.Callback):
    """Keeps what is known of an epoch in its checkpoint, so that a resumed training reports what it would have.

    Parameters
    ----------
    averages : tuple of str
        Those of the training frames, which Lightning makes known only after the checkpoint.
    metrics : tuple of str
        Those of validation; some may be missing.
    """

    def __init__(self, averages: tuple[str, ...], metrics: tuple[str, ...]) -> None:
        self._averages, self._metrics = averages, metrics
        self._values: dict[str, float] = {}

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the values, before the checkpoint is written."""
        if trainer.state.fn != "fit":
            return
        averages: Any = pl_module.averages
        known = trainer.callback_metrics
        self._values = {name: float(averages[name].compute()) for name in self._averages}
        self._values |= {name: float(known[name]) for name in self._metrics if name in known}

    def state_dict(self) -> dict[str, Any]:
        """Return the values."""
        return dict(self._values)

    def of(self, checkpoint: dict[str, Any]) -> dict[str, float]:
        """Return the values that a checkpoint holds."""
        return dict(checkpoint["callbacks"][self.state_key])


class Interruption(lightning.Callback):
    """Ends the training after a batch where Ctrl-C asked for it.

    At any other place it may strike while a logger holds a lock that its end waits for, and the training hangs.
    """

    def __init__(self) -> None:
        self._asked = False

    def ask(self, number: int, frame: Any) -> None:
        """Handle the signal; the second one does not wait for the batch."""
        if self._asked:
            signal.default_int_handler(number, frame)
        self._asked = True

    def stop_if_asked(self) -> None:
        """Raise KeyboardInterrupt where it was asked for."""
        if self._asked:
            raise KeyboardInterrupt

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop here if it was asked for."""
        self.stop_if_asked()

    def on_validation_batch_end(self, *_: Any) -> None:
        """Stop here if it was asked for."""
        self.stop_if_asked()


class Patience(EarlyStopping):
    """Early stopping that remembers, after a stop and resume, that it had stopped the training already."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Stop at once where patience had run out."""
        trainer.should_stop = self.wait_count >= self.patience


class RelocatableCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint whose folder may be moved between a stop and a resume.

    Lightning keeps absolute paths, and forgets the best score where they have changed.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state, with its paths where the folder is now."""

        def here(path: str) -> str:
            if not path:
                return path
            # Lightning removes files by these names.
            name = plain_name(Path(path).name, Path(str(self.dirpath)))
            if not name.endswith(".ckpt"):
                raise InputError(f"a checkpoint in {self.dirpath} names a file {name!r}, which is no checkpoint")
            return str(Path(str(self.dirpath)) / name)

        moved = dict(state_dict)
        moved["dirpath"] = str(self.dirpath)
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            moved[key] = here(moved.get(key, ""))
        moved["best_k_models"] = {here(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        super().load_state_dict(moved)


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their place, and gives them their name when they are whole and on the disk.

    Lightning writes them to the temporary folder, which may be another disk, and copies them over the last one: a kill
    in between leaves neither.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write a checkpoint, whole or not at all."""
        content = io.BytesIO()  # PyTorch hides why it could not write a file
        torch.save(checkpoint, content)
        with written_whole(path, overwrite=True) as partial:
            partial.write_bytes(content.getbuffer())
