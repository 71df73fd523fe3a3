"""Networks by name; other packages add theirs through the entry-point group ``ase_cg.backbones``."""

import inspect
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from ase_cg.errors import InputError, hint, reason
from ase_cg.models.base import Backbone

ENTRY_POINT_GROUP = "ase_cg.backbones"


@cache
def _registered() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def backbone_class(name: str) -> type[Backbone]:
    """Return the class of a backbone.

    Raises
    ------
    InputError
        If no installed package registers the name, or the package that does cannot be imported.
    """
    known = _registered()
    if name not in known:
        raise InputError(f"unknown backbone {name!r}; {hint(name, sorted(known))}")
    try:
        found: type[Backbone] = known[name].load()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"backbone {name!r} is registered as {known[name].value}, which cannot be imported: {reason(error)}"
        ) from error
    return found


def make_backbone(name: str, n_types: int, hyper_parameters: dict[str, Any]) -> Backbone:
    """Make a backbone with fresh weights.

    Parameters
    ----------
    name : str
        As registered.
    n_types : int
        Size of the vocabulary.
    hyper_parameters : dict
        Those left out take the backbone's defaults.

    Raises
    ------
    InputError
        If the name or a hyper-parameter is not known, naming the nearest right one.
    """
    backbone_arguments(name, hyper_parameters)
    cls = backbone_class(name)
    try:
        made: Backbone = cast("Any", cls)(n_types=n_types, **hyper_parameters)
    except TypeError as error:
        raise InputError(f"backbone {name!r} cannot be made with {hyper_parameters}: {reason(error)}") from error
    if made.n_types is None:
        made.n_types = n_types
    return made


def backbone_arguments(name: str, hyper_parameters: dict[str, Any]) -> list[str]:
    """Return the hyper-parameters that a backbone knows; see :func:`make_backbone` for what is raised."""
    known = [p for p in inspect.signature(backbone_class(name)).parameters if p != "n_types"]
    for key in hyper_parameters:
        if key not in known:
            raise InputError(f"backbone {name!r} has no hyper-parameter {key!r}; {hint(key, ['name', *known])}")
    return known
