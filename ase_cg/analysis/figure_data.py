"""What the figures show, as plain values, for ``figures.json``."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.figures import MAX_PANELS, density_curves
from ase_cg.analysis.record import feature_names
from ase_cg.analysis.time_figures import shown_series

if TYPE_CHECKING:
    from ase_cg.analysis.compare import Comparison

DIGITS = 5  # significant ones, more than any picture shows
INTERNAL = ("bonds", "angles", "dihedrals")


def figure_data(comparison: "Comparison") -> dict[str, Any]:
    """Return the numbers behind the figures: of each surface, curve, trajectory and map that is drawn."""
    return {
        "surfaces": {name: _surface(comparison, name) for name in comparison.planes},
        "distributions": {kind: _distributions(comparison, kind) for kind in comparison.grids},
        "over_time": {
            name: {key: _trajectories(comparison, key, name) for key in comparison.ensembles}
            for name in comparison.reference.series
        },
        "kinetics": {
            name: {
                "lags_frames": list(found.implied.lags),
                "timescales_frames": _plain(found.implied.timescales),
                "predicted": _plain(found.implied.predicted),
                "observed": _plain(found.implied.estimated),
            }
            for name, found in comparison.kinetics.items()
        },
        "contacts": {
            name: None if ensemble.contacts is None else _plain(ensemble.contacts)
            for name, ensemble in comparison.ensembles.items()
        },
    }


def _surface(comparison: "Comparison", name: str) -> dict[str, Any]:
    plane = comparison.planes[name]
    return {
        "labels": list(plane.labels),
        "x_edges": _plain(plane.x_edges),
        "y_edges": _plain(plane.y_edges),
        "free_energy_kT": {
            key: _plain(plane.surface(ensemble.surfaces[name].probabilities()))
            for key, ensemble in comparison.ensembles.items()
        },
    }


def _distributions(comparison: "Comparison", kind: str) -> dict[str, Any]:
    names = feature_names(comparison, kind)[:MAX_PANELS] if kind in INTERNAL else [kind]
    unit = comparison.grids[kind].unit
    found = {}
    for number, name in enumerate(names):
        x, densities = density_curves(comparison, kind, number)
        curves = {key: _plain(curve) for key, curve in zip(comparison.ensembles, densities, strict=True)}
        found[name] = {"unit": "degree" if unit == "rad" else unit, "x": _plain(x), "density": curves}
    return found


def _trajectories(comparison: "Comparison", key: str, name: str) -> list[dict[str, Any]]:
    ensemble = comparison.ensembles[key]
    time = "frames" if ensemble.source.frame_interval is None else "ps"
    return [{f"time_{time}": _plain(t), "values": _plain(x)} for t, x in shown_series(ensemble, name)]


def _plain(values: NDArray[np.float64]) -> Any:
    """Return numbers as nested lists; those that do not exist, such as energies of empty bins, are None."""
    if values.ndim > 1:
        return [_plain(row) for row in values]
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in values.tolist()]
