"""The learning rate over a training."""

import warnings
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
)

from ase_cg.training.training_settings import TrainingSection

PLATEAU_FACTOR = 0.5
WARMUP_START = 1e-3  # of the learning rate; 0 would waste the first step


def schedules(optimizer: Optimizer, settings: TrainingSection, steps: int) -> list[dict[str, Any]]:
    """Return the schedules of a recipe in Lightning's form.

    Parameters
    ----------
    optimizer : Optimizer
    settings : TrainingSection
    steps : int
        Of the whole training.
    """
    warmup = settings.warmup_steps
    linear = LinearLR(optimizer, WARMUP_START, total_iters=warmup) if warmup else None
    if settings.schedule == "plateau":
        falling = ReduceLROnPlateau(
            optimizer,
            factor=PLATEAU_FACTOR,
            patience=settings.plateau_patience,
            min_lr=min(settings.final_learning_rate, settings.learning_rate),
        )
        by_loss = {"scheduler": falling, "interval": "epoch", "monitor": "validation_loss"}
        return [by_loss] if linear is None else [{"scheduler": linear, "interval": "step"}, by_loss]
    after = _by_step(optimizer, settings, max(1, steps - warmup))
    by_step = after if linear is None else SequentialLR(optimizer, [linear, after], milestones=[warmup])
    return [{"scheduler": by_step, "interval": "step"}]


def warn_of_warmup(settings: TrainingSection, steps: int) -> None:
    """Warn where a training of so many steps ends before its learning rate has risen."""
    if settings.warmup_steps >= steps:
        warnings.warn(
            f"training.warmup_steps is {settings.warmup_steps}, and the whole training has {steps} steps: it ends "
            "before training.learning_rate is reached; give fewer, or more epochs",
            UserWarning,
            stacklevel=2,
        )


def _by_step(optimizer: Optimizer, settings: TrainingSection, steps: int) -> LRScheduler:
    first, last = settings.learning_rate, min(settings.final_learning_rate, settings.learning_rate)
    if settings.schedule == "constant":
        return ConstantLR(optimizer, factor=1.0)
    if settings.schedule == "exponential":
        return ExponentialLR(optimizer, gamma=(last / first) ** (1 / steps))
    return CosineAnnealingLR(optimizer, T_max=steps, eta_min=last)
