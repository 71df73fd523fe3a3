"""How the network is fitted: the section `training` of a recipe."""

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from ase_cg.seeds import Seed
from ase_cg.settings import Rate, Section, Time, relative
from ase_cg.units import quantity, whole_ratio

Index = Annotated[int, Field(ge=0)]


class ValidationSimulationSection(Section):
    """Short simulations during the training, whose distributions are compared with those of validation frames."""

    every: int = Field(default=5, ge=1)  # epochs
    replicas: int = Field(default=32, ge=1)
    duration: Time = "5 ps"
    time_step: Time = "2 fs"
    friction: Rate = "1 /ps"
    report_interval: Time = "0.1 ps"
    discard: float = Field(default=0.1, ge=0, lt=1)
    dihedrals: list[tuple[Index, Index, Index, Index]] | None = Field(default=None, min_length=1)
    pairs: list[tuple[Index, Index]] | None = Field(default=None, min_length=1)
    bins: int = Field(default=30, ge=2)
    reference: Path | None = None
    seed: Seed = 0
    compile: bool = False  # anew for every simulation, whose weights are others

    @field_validator("friction")
    @classmethod
    def _not_negative(cls, friction: str) -> str:
        if not 0 <= quantity(friction, "rate") < math.inf:
            raise ValueError("it must be finite and not negative")
        return friction

    @model_validator(mode="after")
    def _whole_multiples(self) -> Self:
        whole_ratio(self.duration, self.report_interval, ("duration", "report_interval"))
        whole_ratio(self.report_interval, self.time_step, ("report_interval", "time_step"))
        return self


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
    seed: Seed = 0
    seeds: list[Seed] | None = Field(default=None, min_length=1)
    select: Literal["validation_loss", "simulation"] = "validation_loss"
    validation_simulation: ValidationSimulationSection | None = None
    device: str = "cpu"
    balance: Literal["molecules", "frames"] = "molecules"
    allow_inconsistent_forces: bool = False  # train on forces that fail their check all the same
    memory_limit: float = Field(default=4.0, gt=0)  # GB of frames; larger data are streamed from disk

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: list[int] | None) -> list[int] | None:
        if seeds is not None and len(set(seeds)) < len(seeds):
            raise ValueError("each seed is listed once")
        return seeds

    @model_validator(mode="after")
    def _simulation_where_used(self) -> Self:
        simulated = self.validation_simulation
        if simulated is None:
            if self.select == "simulation":
                raise ValueError("needs 'validation_simulation' for 'select: simulation'")
        elif simulated.every > self.epochs:
            raise ValueError(f"has {self.epochs} epochs, and a validation simulation every {simulated.every}: never")
        elif self.select == "simulation" and self.patience is not None and self.patience < simulated.every:
            raise ValueError(
                f"stops after {self.patience} epochs without a better simulation, and simulates every "
                f"{simulated.every}; give a longer 'patience'"
            )
        return self

    @property
    def network_seeds(self) -> tuple[int, ...]:
        """One for each network that is trained: of its first weights, the order of its frames, and its noise."""
        return (self.seed,) if self.seeds is None else tuple(self.seeds)

    def relative_to(self, folder: Path) -> Self:
        """Return the section with its paths taken relative to a folder."""
        simulated = self.validation_simulation
        if simulated is None:
            return self
        moved = simulated.model_copy(update={"reference": relative(simulated.reference, folder)})
        return self.model_copy(update={"validation_simulation": moved})
