"""Recipes: YAML files, validated, that say everything about a model from its data to its analysis."""

import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, field_validator, model_validator

from ase_cg.data.mapping_settings import MappingSettings
from ase_cg.errors import hint
from ase_cg.keys import NAME_PATTERN
from ase_cg.models.prior_options import read_prior
from ase_cg.seeds import Seed
from ase_cg.settings import Rate, Section, Time, read_yaml, relative, validated
from ase_cg.training.kernel_settings import KernelSection
from ase_cg.training.training_settings import TrainingSection
from ase_cg.units import whole_ratio


def _one_or_several(value: Any, meaning: str) -> float | list[float] | None:
    if value is None:
        return None
    try:
        given = value if isinstance(value, list) else [value]
        numbers = [] if any(isinstance(number, bool) for number in given) else [float(number) for number in given]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or not all(number > SMALLEST and math.isfinite(number) for number in numbers):
        raise ValueError(f"it must be a positive {meaning}, or a list of them")
    return numbers if isinstance(value, list) else numbers[0]


def _noise_std(value: Any) -> float | list[float] | None:
    levels = _one_or_several(value, "standard deviation in Å")
    # Six digits tell levels apart in the names of folders.
    if isinstance(levels, list) and len({f"{level:g}" for level in levels}) < len(levels):
        raise ValueError("each noise_std is listed once")
    return levels


def _temperature(value: Any) -> float | list[float] | None:
    return _one_or_several(value, "temperature in K")


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _sharpened(value: Any) -> Any:
    if not isinstance(value, bool | list) or (
        isinstance(value, list) and not all(isinstance(name, str) for name in value)
    ):
        raise ValueError("it must be true, false, or a list of names of priors, such as [bonds]")
    return value


def _prior(spec: Any) -> Any:
    read_prior(spec)
    return spec


SMALLEST = 1e-9  # Å or K; what is not zero, but whose square underflows, is no sensible value either
FLOW_LABELS = ("flow", "flow_and_forces")
NoiseStd = Annotated[float | list[float] | None, PlainValidator(_noise_std)]
Temperature = Annotated[float | list[float] | None, PlainValidator(_temperature)]
SharpenedPriors = Annotated[bool | list[str], BeforeValidator(_sharpened)]
Prior = Annotated[str | dict[str, Any], BeforeValidator(_prior)]


class DataSection(MappingSettings):
    """Where the data come from: all-atom trajectories to map, or a dataset already mapped."""

    dataset: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.dataset is None) == (not self.trajectories):
            raise ValueError("needs either 'dataset' or 'trajectories'")
        if self.trajectories and (self.topology is None or self.temperature is None):
            raise ValueError("needs 'topology' and 'temperature' beside 'trajectories'")
        return self

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        """Refuse what a dataset has already decided, such as its temperature."""
        if self.dataset is not None:
            for name, field in MappingSettings.model_fields.items():
                if name != "frame_interval" and getattr(self, name) != field.get_default():
                    raise ValueError(
                        f"has a dataset, which is mapped already: {name!r} would have no effect; leave it out, or map "
                        "the trajectories again"
                    )
        return self


class BackboneSection(Section):
    """The network by name, with hyper-parameters of its own."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "schnet"

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class SimulationSection(Section):
    """How the model is run."""

    replicas: int = Field(default=128, ge=1)
    temperature: Temperature = None
    integrator: Literal["langevin", "overdamped"] = "langevin"  # what is compared needs a thermostat
    time_step: Time = "2 fs"
    friction: Rate = "1 /ps"
    duration: Time = "20 ps"
    report_interval: Time = "0.1 ps"
    exchange_interval: Time | None = None
    checkpoint_interval: Time | None = None
    start: Path | None = None
    minimize: bool = False
    seed: Seed = 0
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"
    compile: bool = False

    @model_validator(mode="after")
    def _whole_multiples(self) -> Self:
        whole_ratio(self.duration, self.report_interval, ("duration", "report_interval"))
        whole_ratio(self.report_interval, self.time_step, ("report_interval", "time_step"))
        if self.checkpoint_interval is not None:
            whole_ratio(self.checkpoint_interval, self.time_step, ("checkpoint_interval", "time_step"))
        return self


class AnalysisSection(Section):
    """What the model is compared with, and how: the options of :func:`ase_cg.analyze`."""

    reference: Path | None = None
    native: Path | None = None
    bins: int = Field(default=30, ge=2)
    discard: float = Field(default=0.1, ge=0, lt=1)
    lag: int = Field(default=10, ge=0)
    model_lag: int | None = Field(default=None, ge=1)
    clusters: int = Field(default=100, ge=2)
    macrostates: int = Field(default=2, ge=2)
    reweight: Literal["none", "reference", "all"] = "none"
    surface: Literal["ramachandran", "tica", "pca", "rmsd_radius_of_gyration"] | None = None
    backmap: int = Field(default=0, ge=0)
    structure: Path | None = None

    @model_validator(mode="after")
    def _that_fit_together(self) -> Self:
        if self.macrostates > self.clusters:
            raise ValueError(f"has more macrostates ({self.macrostates}) than clusters ({self.clusters})")
        if self.structure is not None and not self.backmap:
            raise ValueError("has a structure, which only backmap uses; give backmap a number of frames")
        if self.surface == "rmsd_radius_of_gyration" and self.native is None:
            raise ValueError("has the surface rmsd_radius_of_gyration, which needs a native structure; give native")
        return self

    def relative_to(self, folder: Path) -> Self:
        """Return the section with its paths taken relative to a folder."""
        paths = ("reference", "native", "structure")
        return self.model_copy(update={name: relative(getattr(self, name), folder) for name in paths})


class Recipe(Section):
    """Everything about a model, from its data to its analysis.

    Read one with :meth:`read`; paths in it are relative to its file.
    """

    model_config = ConfigDict(title="a recipe")

    name: str = Field(pattern=NAME_PATTERN)
    data: DataSection
    labels: Literal["atomistic", "noise", "forces_and_noise", "flow", "flow_and_forces"] = "atomistic"
    kernel: Annotated[KernelSection | None, BeforeValidator(_named)] = None
    noise_std: NoiseStd = None
    priors: list[Prior] = Field(default=["bonds", "angles"], min_length=1)
    sharpened_priors: SharpenedPriors = True
    backbone: Annotated[BackboneSection, BeforeValidator(_named)] = BackboneSection()
    training: TrainingSection = TrainingSection()
    simulation: SimulationSection = SimulationSection()
    analysis: AnalysisSection = AnalysisSection()

    @field_validator("priors")
    @classmethod
    def _known_and_each_once(cls, priors: list[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
        names = [read_prior(prior)[0] for prior in priors]
        if len(set(names)) < len(names):
            raise ValueError("each prior is listed once")
        return priors

    @model_validator(mode="after")
    def _sharpened_are_priors(self) -> Self:
        if not isinstance(self.sharpened_priors, bool):
            known = [read_prior(prior)[0] for prior in self.priors]
            unknown = next((name for name in self.sharpened_priors if name not in known), None)
            if unknown is not None:
                raise ValueError(f"sharpened_priors lists {unknown!r}, none of the priors; {hint(unknown, known)}")
        return self

    @model_validator(mode="after")
    def _noise_where_used(self) -> Self:
        if self.labels == "atomistic" and self.noise_std is not None:
            raise ValueError("labels 'atomistic' add no noise; leave noise_std out, or use 'forces_and_noise'")
        by_flow = self.labels in FLOW_LABELS
        if by_flow and self.noise_std is not None:
            raise ValueError(
                f"labels '{self.labels}' leave no noise in the positions; give kernel.prior_std (of coupling flows "
                "kernel.noise_std), which the flow undoes"
            )
        if self.labels != "atomistic" and not by_flow and self.noise_std is None:
            raise ValueError(f"labels '{self.labels}' need noise_std, a standard deviation in Å")
        return self

    @model_validator(mode="after")
    def _kernel_where_used(self) -> Self:
        if self.labels not in FLOW_LABELS and self.kernel is not None:
            raise ValueError(f"labels '{self.labels}' use no kernel; leave it out, or use labels 'flow'")
        return self

    @property
    def flow_kernel(self) -> KernelSection | None:
        """The kernel that labels come from; None where they come from none."""
        return (self.kernel or KernelSection()) if self.labels in FLOW_LABELS else None

    @property
    def sharpened_names(self) -> tuple[str, ...]:
        """The priors that are simulated as fitted to clean frames, though the network was trained with noised ones."""
        if self.sharpened_priors is True:
            return tuple(read_prior(prior)[0] for prior in self.priors)
        return tuple(self.sharpened_priors or ())

    @property
    def noise_levels(self) -> tuple[float | None, ...]:
        """Each `noise_std` that networks are trained with, in Å; None where there is no noise."""
        return tuple(self.noise_std) if isinstance(self.noise_std, list) else (self.noise_std,)

    def only(self, noise_std: float | None, seed: int) -> Self:
        """Return the recipe of one of the networks that this one trains."""
        training = self.training.model_copy(update={"seeds": [seed] if self.training.seeds else None})
        return self.model_copy(update={"noise_std": noise_std, "training": training})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a recipe.

        Raises
        ------
        InputError
            If the file is missing or no YAML, or a key or value is wrong; the message names it, and the
            nearest right one.
        """
        recipe = validated(cls, read_yaml(path, "recipe"), f"recipe {os.fspath(path)}")
        return recipe.relative_to(Path(path).parent)

    def relative_to(self, folder: Path) -> Self:
        """Return the recipe with its paths taken relative to a folder."""
        data = self.data.relative_to(folder)
        return self.model_copy(
            update={
                "data": data.model_copy(update={"dataset": relative(data.dataset, folder)}),
                "training": self.training.relative_to(folder),
                "simulation": self.simulation.model_copy(update={"start": relative(self.simulation.start, folder)}),
                "analysis": self.analysis.relative_to(folder),
            }
        )
