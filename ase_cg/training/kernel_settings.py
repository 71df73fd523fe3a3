"""The generative kernel of labels: the section `kernel` of a recipe."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ase_cg.settings import Section, Time
from ase_cg.training.training_settings import TrainingSection
from ase_cg.units import quantity

CNF_KEYS = frozenset({"path_std", "field", "features", "layers", "solver", "steps", "nodes", "tolerance", "probes"})
COUPLING_KEYS = frozenset({"coupling_layers", "blocks", "embedding", "length_scales", "start"})
TRANSITION_KEYS = frozenset({"flow", "lag", "labels_at"})
PRIOR_STD = 0.07  # Å; all noise of the publication's flow, there divided between σ_n and σ_p
COUPLING_STD = 0.05  # Å
# Labels that are enough, of all training frames together, by what they cost; and of one frame.
ENOUGH_LABELS = {"coupling": 30_000, "cnf": 10_000}
MOST_DRAWS = 10
WIDEST = 1.0  # Å; noise as wide as that leaves no molecule


def _no_wider(value: float) -> float:
    if value > WIDEST:
        raise ValueError(f"it is a standard deviation in Å, of at most {WIDEST:g} Å")
    return value


Width = Annotated[float, AfterValidator(_no_wider)]  # in Å


class KernelSection(Section):
    """A kernel by name, how its flow is trained, and how it is integrated."""

    name: Literal["cnf", "coupling", "transition"] = "cnf"
    flow: Literal["cnf", "coupling"] = "cnf"  # of transitions
    lag: Time | None = None
    labels_at: Literal["samples", "frames"] = "samples"
    # Standard deviations in Å. Without one, the width of transitions is fitted to the data.
    noise_std: Width | None = Field(default=None, ge=0)
    prior_std: Width | None = Field(default=None, gt=0)
    path_std: Width = Field(default=0.01, gt=0)
    field: Literal["egnn", "mace"] = "egnn"
    features: int | None = Field(default=None, ge=1)
    layers: int | None = Field(default=None, ge=1)
    distinct_beads: bool = True
    draws: int | None = Field(default=None, ge=1)  # labels of a training frame; see labels_of_each
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

    start: Literal["harmonic", "noise"] | None = None  # of coupling flows; see harmonic_start

    @model_validator(mode="after")
    def _keys_of_this_kernel(self) -> Self:
        for owner, keys in self._foreign():
            # Defaults are no mistake: a recipe that a model keeps says them all.
            fields = type(self).model_fields
            foreign = sorted(key for key in keys if getattr(self, key) != fields[key].default)
            if foreign:
                told = self.name if self.name == self.family else f"{self.name} with flow: {self.family}"
                raise ValueError(f"has {foreign[0]!r}, which is a key of the kernel {owner!r} and not of {told!r}")
        return self

    @model_validator(mode="after")
    def _lag_of_transitions(self) -> Self:
        if self.name == "transition":
            if self.lag is None:
                raise ValueError("needs 'lag', the time between the two frames of a transition, such as '10 ps'")
            if not quantity(self.lag, "time") > 0:
                raise ValueError(f"needs a positive 'lag', not {self.lag!r}")
        return self

    @model_validator(mode="after")
    def _coupling_begins_with_noise(self) -> Self:
        if self.name == "coupling" and self.noise_std == 0:
            raise ValueError("needs a 'noise_std' above 0: its samples begin with that noise")
        return self

    @model_validator(mode="after")
    def _harmonic_bonds_of_distinct_beads(self) -> Self:
        if self.start == "harmonic" and not self.distinct_beads:
            raise ValueError("needs 'distinct_beads' with 'start: harmonic': types must tell which beads are bonded")
        return self

    def _foreign(self) -> list[tuple[str, frozenset[str]]]:
        """Return keys that this kernel does not have, and whose they are."""
        of_noise = frozenset({"noise_std"})
        found = [("coupling", COUPLING_KEYS)] if self.family == "cnf" else [("cnf", CNF_KEYS)]
        if self.name == "transition":
            return [*found, ("cnf", of_noise)]
        prior = [("cnf", frozenset({"prior_std"}))] if self.name == "coupling" else []
        return [*found, *prior, ("transition", TRANSITION_KEYS)]

    @property
    def conditioning_std(self) -> float:
        """σ_n in Å; not of transitions."""
        if self.noise_std is not None:
            return self.noise_std
        return COUPLING_STD if self.name == "coupling" else 0.0

    @property
    def start_std(self) -> float:
        """σ_p in Å, where it is not fitted."""
        return PRIOR_STD if self.prior_std is None else self.prior_std

    @property
    def harmonic_start(self) -> bool:
        """Whether displacements begin as those of harmonic bonds and angles, which suits noise but not long ways."""
        if self.start is not None:
            return self.start == "harmonic"
        return self.name == "coupling" and self.distinct_beads

    def labels_of_each(self, n_frames: int) -> int:
        """Return how many labels each of so many training frames has: several where frames are few."""
        if self.draws is not None:
            return self.draws
        if self.labels_at == "frames":
            return 1
        return max(1, min(MOST_DRAWS, ENOUGH_LABELS[self.family] // max(1, n_frames)))

    @property
    def family(self) -> str:
        """The kind of flow: ``cnf`` or ``coupling``."""
        return self.flow if self.name == "transition" else self.name

    @property
    def finer(self) -> str:
        """What makes the integration of labels more accurate, in words of a recipe; empty where nothing integrates."""
        if self.family == "coupling":
            return ""
        return "take more kernel.steps and kernel.nodes" if self.solver == "rk4" else "take a smaller kernel.tolerance"

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
