"""The generative kernel of labels: the section `kernel` of a recipe."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ase_cg.settings import Section
from ase_cg.training.training_settings import TrainingSection

OWN_KEYS = {
    "cnf": frozenset(
        {"prior_std", "path_std", "features", "layers", "solver", "steps", "nodes", "tolerance", "probes"}
    ),
    "coupling": frozenset({"coupling_layers", "blocks", "embedding", "length_scales"}),
}
WIDEST = 1.0  # Å; noise as wide as that leaves no molecule


class KernelSection(Section):
    """A kernel by name, how its flow is trained, and how it is integrated."""

    name: Literal["cnf", "coupling"] = "cnf"
    # Standard deviations in Å, as published.
    noise_std: float = Field(default=0.05, gt=0, le=WIDEST)
    prior_std: float = Field(default=0.05, gt=0, le=WIDEST)
    path_std: float = Field(default=0.01, gt=0, le=WIDEST)
    features: int = Field(default=64, ge=1)
    layers: int = Field(default=5, ge=1)
    distinct_beads: bool = True
    epochs: int = Field(default=40, ge=1)
    batch_size: int = Field(default=512, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    final_learning_rate: float = Field(default=5e-5, gt=0)
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    solver: Literal["rk4", "dopri5", "dopri8"] = "rk4"
    steps: int = Field(default=1, ge=1)
    nodes: int = Field(default=5, ge=1)
    tolerance: float = Field(default=1e-6, gt=0)
    probes: int | None = Field(default=None, ge=1)

    coupling_layers: int = Field(default=8, ge=1)
    blocks: int = Field(default=3, ge=1)
    embedding: int = Field(default=32, ge=1)
    length_scales: list[Annotated[float, Field(gt=0)]] = Field(default=[1.0, 2.0, 4.0, 8.0], min_length=1)  # Å

    @model_validator(mode="after")
    def _keys_of_this_kernel(self) -> Self:
        for name, keys in OWN_KEYS.items():
            # Defaults are no mistake: a recipe that a model keeps says them all.
            fields = type(self).model_fields
            foreign = sorted(key for key in keys if getattr(self, key) != fields[key].default)
            if name != self.name and foreign:
                raise ValueError(f"has {foreign[0]!r}, which is a key of the kernel {name!r} and not of {self.name!r}")
        return self

    def training(self, of_model: TrainingSection) -> TrainingSection:
        """Return how the flow is trained, on the same frames and device as the model."""
        return of_model.model_copy(
            update={
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "learning_rate": self.learning_rate,
                "final_learning_rate": self.final_learning_rate,
                "ema_decay": self.ema_decay,
                "schedule": "cosine",
                "warmup_steps": 0,
                "weight_decay": 0.0,
                "gradient_clip": 1.0,
                "patience": None,
                "seeds": None,
                "select": "validation_loss",
                "validation_simulation": None,
            }
        )
