"""Callbacks of the trainer."""

import lightning

from ase_cg.progress import Progress


class EpochProgress(lightning.Callback):
    """Shows epochs, with the losses, in ase-cg's own progress display."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Count the epochs that a resumed training has done before."""
        self._progress.advance(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Show the losses in (kcal/mol/Å)²."""
        metrics = trainer.callback_metrics
        shown = [
            f"{name.removesuffix('_loss')} {float(metrics[name]):.2f}"
            for name in ("train_loss", "validation_loss")
            if name in metrics
        ]
        self._progress.advance(note="loss " + ", ".join(shown) + " (kcal/mol/Å)²")
