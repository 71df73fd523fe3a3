"""Recipes: YAML files, validated, that say everything about a model from its data to its analysis."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from ase_cg.errors import InputError, hint
from ase_cg.files import existing_file
from ase_cg.keys import NAME_PATTERN
from ase_cg.units import quantity, whole_ratio


class Section(BaseModel):
    """Part of a recipe: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _time(text: Any) -> Any:
    quantity(str(text), "time")
    return text


def _rate(text: Any) -> Any:
    quantity(str(text), "rate")
    return text


Time = Annotated[str, BeforeValidator(_time)]
Rate = Annotated[str, BeforeValidator(_rate)]


class DataSection(Section):
    """Where the data come from: all-atom trajectories to map, or a dataset already mapped."""

    dataset: Path | None = None
    trajectories: list[Path] = []
    topology: Path | None = None
    resolution: str | list[str] = "calpha"
    temperature: float | None = Field(default=None, gt=0)
    force_map: Literal["slice"] = "slice"
    length_unit: str | None = None
    force_unit: str | None = None
    trajectory_length: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.dataset is None) == (not self.trajectories):
            raise ValueError("needs either 'dataset' or 'trajectories'")
        if self.trajectories and (self.topology is None or self.temperature is None):
            raise ValueError("needs 'topology' and 'temperature' beside 'trajectories'")
        return self


class BackboneSection(Section):
    """The network by name, with hyper-parameters of its own."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "schnet"

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class TrainingSection(Section):
    """How the network is fitted."""

    epochs: int = Field(default=40, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    final_learning_rate: float = Field(default=1e-5, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    # Norm of the gradient, the loss being in (kcal/mol/Å)²: far above what training meets after its first steps.
    gradient_clip: float | None = Field(default=1000.0, gt=0)
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    test_fraction: float = Field(default=0.1, gt=0, lt=1)
    blocks: int = Field(default=20, ge=3)
    seed: int = Field(default=0, ge=0)
    device: str = "cpu"


class SimulationSection(Section):
    """How the model is run."""

    replicas: int = Field(default=128, ge=1)
    temperature: float | None = Field(default=None, gt=0)
    time_step: Time = "2 fs"
    friction: Rate = "1 /ps"
    duration: Time = "20 ps"
    report_interval: Time = "0.1 ps"
    start: Path | None = None
    seed: int = Field(default=0, ge=0)
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _whole_multiples(self) -> Self:
        whole_ratio(self.duration, self.report_interval, ("duration", "report_interval"))
        whole_ratio(self.report_interval, self.time_step, ("report_interval", "time_step"))
        return self


class AnalysisSection(Section):
    """What the model is compared with."""

    reference: Path | None = None
    bins: int = Field(default=30, ge=2)
    discard: float = Field(default=0.1, ge=0, lt=1)


class Recipe(Section):
    """Everything about a model, from its data to its analysis.

    Read one with :meth:`read`; paths in it are relative to its file.
    """

    name: str = Field(pattern=NAME_PATTERN)
    data: DataSection
    labels: Literal["atomistic", "noise", "forces_and_noise"] = "atomistic"
    noise_std: float | None = Field(default=None, gt=0)
    priors: list[Literal["bonds", "angles"]] = Field(default=["bonds", "angles"], min_length=1)
    sharpened_priors: bool = True
    backbone: Annotated[BackboneSection, BeforeValidator(_named)] = BackboneSection()
    training: TrainingSection = TrainingSection()
    simulation: SimulationSection = SimulationSection()
    analysis: AnalysisSection = AnalysisSection()

    @field_validator("priors")
    @classmethod
    def _each_prior_once(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("each prior is listed once")
        return names

    @model_validator(mode="after")
    def _noise_where_used(self) -> Self:
        if self.labels == "atomistic" and self.noise_std is not None:
            raise ValueError("labels 'atomistic' add no noise; leave noise_std out, or use 'forces_and_noise'")
        if self.labels != "atomistic" and self.noise_std is None:
            raise ValueError(f"labels '{self.labels}' need noise_std, a standard deviation in Å")
        return self

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a recipe.

        Raises
        ------
        InputError
            If the file is missing or no YAML, or a key or value is wrong; the message names it, and the
            nearest right one.
        """
        found = existing_file(path, "recipe")
        try:
            data = yaml.safe_load(found.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"recipe {found} is no valid YAML: {reason}") from error
        if not isinstance(data, dict):
            raise InputError(f"recipe {found} is no mapping of keys to values")
        try:
            recipe = cls.model_validate(data)
        except ValidationError as error:
            raise InputError(f"recipe {found}: {_first_problem(cls, error)}") from error
        return recipe.relative_to(found.parent)

    def relative_to(self, folder: Path) -> Self:
        """Return the recipe with its paths taken relative to a folder."""

        def moved(path: Path | None) -> Path | None:
            return None if path is None else folder / path.expanduser()

        data = self.data.model_copy(
            update={
                "dataset": moved(self.data.dataset),
                "topology": moved(self.data.topology),
                "trajectories": [folder / path.expanduser() for path in self.data.trajectories],
            }
        )
        return self.model_copy(
            update={
                "data": data,
                "simulation": self.simulation.model_copy(update={"start": moved(self.simulation.start)}),
                "analysis": self.analysis.model_copy(update={"reference": moved(self.analysis.reference)}),
            }
        )


def _first_problem(recipe: type[BaseModel], error: ValidationError) -> str:
    """Say the first problem in one sentence, with the nearest right key or value."""
    problem = error.errors()[0]
    place = [str(part) for part in problem["loc"]]
    where = ".".join(place) or "the recipe"
    if problem["type"] == "extra_forbidden":
        known = _keys_beside(recipe, place)
        return f"{where} is no key of a recipe; {hint(place[-1], known)}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    given = problem.get("input")
    if problem["type"] == "literal_error":
        known = [part.strip("' ") for part in problem["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return f"{where} cannot be {given!r}; {hint(given, known)}"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(given, dict | BaseModel):
        return message if where == "the recipe" else f"{where} {message}"
    return f"{where} cannot be {given!r}: {message}"


def _keys_beside(model: type[BaseModel], place: list[str]) -> list[str]:
    for part in place[:-1]:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)
