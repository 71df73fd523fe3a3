"""The vector fields that there are, by name: made for a recipe, and described for a file."""

from collections.abc import Mapping
from typing import Any

from ase_cg.errors import InputError
from ase_cg.flows.conditional import ConditionalField
from ase_cg.flows.egnn import EGNN
from ase_cg.flows.field import VectorField
from ase_cg.flows.mace_field import MACEField

FIELDS: dict[str, type[EGNN] | type[MACEField]] = {"egnn": EGNN, "mace": MACEField}


def make_field(name: str, n_types: int, *, conditional: bool, **options: int | None) -> VectorField:
    """Make a field of a recipe.

    Parameters
    ----------
    name : str
        Of :data:`FIELDS`.
    n_types : int
        Of beads.
    conditional : bool
        Whether it sees the conditioning; then its network has twice as many types.
    **options
        ``features`` and ``n_layers``; those that are None are left to the field.
    """
    chosen = {key: value for key, value in options.items() if value is not None}
    field = FIELDS[name](2 * n_types if conditional else n_types, **chosen)
    return ConditionalField(field, n_types) if conditional else field


def describe_field(field: VectorField) -> dict[str, Any]:
    """Return what :func:`described_field` makes a field of the same shape from, JSON-safe.

    Raises
    ------
    InputError
        If it is none of :data:`FIELDS`.
    """
    if isinstance(field, ConditionalField):
        return {**describe_field(field.field), "conditional": True}
    for name, kind in FIELDS.items():
        if isinstance(field, kind):
            return {"name": name, **field.settings()}
    raise InputError(f"only continuous flows with a field of {', '.join(FIELDS)} can be saved")


def described_field(described: Mapping[str, Any]) -> VectorField:
    """Make a field of a description."""
    options = {key: value for key, value in described.items() if key not in {"name", "conditional"}}
    field = FIELDS[described["name"]](**options)
    return ConditionalField(field, field.n_types // 2) if described.get("conditional") else field
