"""Which models are best: globally, locally, or as a compromise."""

from collections.abc import Mapping
from typing import Any

GLOBAL = "pmf_error_kT"
LOCAL = "bond_wasserstein_A"


def pareto_front(rows: Mapping[str, Mapping[str, Any]], figures: tuple[str, str] = (GLOBAL, LOCAL)) -> list[str]:
    """Return the models that no other beats in one figure without losing in the other, best global one first.

    Parameters
    ----------
    rows : mapping
        Of each model, its figures with ``value``; a model without one of the two is not judged.
    figures : tuple of (str, str)
        Smaller is better in both.
    """
    points = {
        name: tuple(float(row[figure]["value"]) for figure in figures)
        for name, row in rows.items()
        if all(row.get(figure, {}).get("value") is not None for figure in figures)
    }
    front = [
        name
        for name, mine in points.items()
        if not any(
            all(a <= b for a, b in zip(theirs, mine, strict=True)) and theirs != mine for theirs in points.values()
        )
    ]
    return sorted(front, key=lambda name: points[name])
