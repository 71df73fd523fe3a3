"""Validated settings: sections of YAML files whose mistakes are told in one sentence."""

import os
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from ase_cg.errors import InputError, hint
from ase_cg.files import existing_file
from ase_cg.units import quantity


def _time(text: Any) -> Any:
    quantity(str(text), "time")
    return text


def _rate(text: Any) -> Any:
    quantity(str(text), "rate")
    return text


Time = Annotated[str, BeforeValidator(_time)]
Rate = Annotated[str, BeforeValidator(_rate)]


class Section(BaseModel):
    """Part of a settings file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Settings = TypeVar("Settings", bound=BaseModel)


def read_yaml(path: str | os.PathLike[str], what: str) -> Any:
    """Read a YAML file.

    Raises
    ------
    InputError
        If it is missing or no YAML; `what` says what was looked for.
    """
    found = existing_file(path, what)
    try:
        return yaml.safe_load(found.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{what} {found} is no valid YAML: {reason}") from error


def validated(kind: type[Settings], data: Any, where: str) -> Settings:
    """Make settings of plain values.

    Raises
    ------
    InputError
        If a key or a value is wrong, naming it, and the nearest right one; `where` begins the sentence.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where} is no mapping of keys to values")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {_first_problem(kind, error)}") from error


def relative(path: Path | None, folder: Path) -> Path | None:
    """Return a path that a file of `folder` names."""
    return None if path is None else folder / path.expanduser()


def _first_problem(settings: type[BaseModel], error: ValidationError) -> str:
    """Say the first problem in one sentence, with the nearest right key or value."""
    # A key that is not known often makes another one missing: it is the cause, and told first.
    problem = min(error.errors(), key=lambda entry: entry["type"] != "extra_forbidden")
    place = [str(part) for part in problem["loc"]]
    where = ".".join(place)
    if problem["type"] == "extra_forbidden":
        known = _keys_beside(settings, place)
        return f"{where} is no key{_of(settings)}; {hint(place[-1], known)}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    given = problem.get("input")
    if problem["type"] == "literal_error":
        known = [part.strip("' ") for part in problem["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return f"{where} cannot be {given!r}; {hint(given, known)}"
    message = problem["msg"].removeprefix("Value error, ")
    if isinstance(given, dict | BaseModel):
        return f"{where} {message}" if where else message
    return f"{where} cannot be {given!r}: {message}"


def _of(settings: type[BaseModel]) -> str:
    title = settings.model_config.get("title")
    return f" of {title}" if title else ""


def _keys_beside(model: type[BaseModel], place: list[str]) -> list[str]:
    for part in place[:-1]:
        if part.isdigit():
            continue  # the place in a list, whose members are all of one kind
        field = model.model_fields.get(part)
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not sections:
            return []
        model = sections[0]
    return list(model.model_fields)
