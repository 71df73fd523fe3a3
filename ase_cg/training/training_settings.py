"""How the network is fitted: the section `training` of a recipe."""

from typing import Literal

from pydantic import Field

from ase_cg.settings import Section


class TrainingSection(Section):
    """How the network is fitted."""

    epochs: int = Field(default=40, ge=1)
    patience: int | None = Field(default=None, ge=1)  # epochs
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    final_learning_rate: float = Field(default=1e-5, gt=0)
    schedule: Literal["cosine", "constant", "exponential", "plateau"] = "cosine"
    plateau_patience: int = Field(default=5, ge=0)  # epochs
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    # Norm of the gradient, the loss being in (kcal/mol/Å)²: far above what training meets after its first steps.
    gradient_clip: float | None = Field(default=1000.0, gt=0)
    fraction: float = Field(default=1.0, gt=0, le=1)
    subset: Literal["contiguous", "strided"] = "strided"
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    test_fraction: float = Field(default=0.1, gt=0, lt=1)
    blocks: int = Field(default=20, ge=3)
    seed: int = Field(default=0, ge=0)
    device: str = "cpu"
    balance: Literal["molecules", "frames"] = "molecules"
    memory_limit: float = Field(default=4.0, gt=0)  # GB of frames; larger data are streamed from disk
