"""Figures of a comparison that show time, and the figure that shows all models at once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.figures import SERIES_LABELS, new_axes, styles
from ase_cg.analysis.pareto import GLOBAL, LOCAL
from ase_cg.analysis.table import shown_name

if TYPE_CHECKING:
    from ase_cg.analysis.compare import Comparison
    from ase_cg.analysis.ensembles import Ensemble

SHOWN = 3  # trajectories of each ensemble
POINTS = 1000  # of each curve


def plot_series(comparison: "Comparison", name: str = "rmsd", axes: Sequence[Any] | None = None) -> list[Any]:
    """Draw a figure of single frames over time, of the first trajectories of each ensemble.

    Parameters
    ----------
    comparison : Comparison
    name : str
        ``rmsd``, ``native_contacts``, ``radius_of_gyration``, …
    axes : sequence of matplotlib axes, optional
        One for each ensemble.
    """
    ensembles = comparison.ensembles
    drawn = list(new_axes(1, len(ensembles), (7.0, 1.9), sharey=True) if axes is None else axes)
    for axis, (key, ensemble) in zip(drawn, ensembles.items(), strict=False):
        interval = ensemble.source.frame_interval
        for time, values in shown_series(ensemble, name):
            axis.plot(time, values, lw=0.7)
        axis.set_title(shown_name(key), fontsize=9)
        axis.set_xlabel("frame" if interval is None else "time / ps", fontsize=8)
        axis.set_ylabel(SERIES_LABELS[name], fontsize=8)
        axis.tick_params(labelsize=7)
    return drawn


def shown_series(ensemble: "Ensemble", name: str) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return times, in ps or else frames, and values of the first trajectories of an ensemble, thinned for the eye."""
    interval = ensemble.source.frame_interval or 1.0
    found = []
    for piece, values in list(zip(ensemble.source.pieces, ensemble.series[name], strict=True))[:SHOWN]:
        step = -(-len(values) // POINTS)
        found.append((interval * (np.arange(len(values), dtype=float)[::step] + piece.start), values[::step]))
    return found


def plot_timescales(comparison: "Comparison", axes: Sequence[Any] | None = None) -> list[Any]:
    """Draw implied timescales against the lag, one panel an ensemble; below the grey line nothing can be resolved."""
    drawn = list(new_axes(len(comparison.kinetics), size=(3.4, 3.0)) if axes is None else axes)
    for axis, (name, found) in zip(drawn, comparison.kinetics.items(), strict=False):
        scale = found.frame_interval or 1.0
        lags = scale * np.array(found.implied.lags)
        for number, column in enumerate(found.implied.timescales.T):
            if np.isfinite(column).any():
                axis.plot(lags, scale * column, "o-", ms=3, lw=1, label=f"{number + 1}")
        axis.fill_between(lags, np.zeros(len(lags)), lags, color="0.85")
        axis.set_yscale("log")
        axis.set_title(shown_name(name))
        unit = "frames" if found.frame_interval is None else "ps"
        axis.set_xlabel(f"lag / {unit}")
        axis.set_ylabel(f"implied timescale / {unit}")
    drawn[0].legend(fontsize=7, title="process", title_fontsize=7)
    return drawn


def plot_chapman_kolmogorov(comparison: "Comparison", axes: Sequence[Any] | None = None) -> list[Any]:
    """Draw the probability to stay in a macrostate: predicted by the model of the first lag (line), and observed."""
    drawn = list(new_axes(len(comparison.kinetics), size=(3.4, 3.0), sharey=True) if axes is None else axes)
    for axis, (name, found) in zip(drawn, comparison.kinetics.items(), strict=False):
        implied, scale = found.implied, found.frame_interval or 1.0
        lags = scale * np.array(implied.lags)
        for state in range(implied.predicted.shape[1]):
            (line,) = axis.plot(lags, implied.predicted[:, state, state], label=f"macrostate {state + 1}")
            axis.plot(lags, implied.estimated[:, state, state], "o", color=line.get_color(), ms=4)
        axis.set_ylim(0, 1.05)
        axis.set_title(shown_name(name))
        axis.set_xlabel("lag / " + ("frames" if found.frame_interval is None else "ps"))
    drawn[0].set_ylabel("probability to stay")
    drawn[0].legend(fontsize=7)
    return drawn


def plot_pareto(comparison: "Comparison", axes: Sequence[Any] | None = None) -> list[Any]:
    """Draw every model by its global error (PMF) and its local one (bonds); the line joins those that none beats."""
    drawn = list(new_axes(1, size=(4.6, 3.6)) if axes is None else axes)
    axis = drawn[0]
    looks = styles(comparison)
    for name, row in comparison.rows.items():
        x, y = (row[figure]["value"] for figure in (GLOBAL, LOCAL))
        if x is None or y is None:
            continue
        if name == "floor":
            axis.axvline(x, color="0.6", lw=0.8)
            axis.axhline(y, color="0.6", lw=0.8, label="floor")
            continue
        errors = [
            None if row[figure]["interval"] is None else np.abs(np.array(row[figure]["interval"])[:, None] - value)
            for figure, value in ((GLOBAL, x), (LOCAL, y))
        ]
        axis.errorbar(x, y, xerr=errors[0], yerr=errors[1], fmt="o", color=looks[name]["color"], label=shown_name(name))
    front = [[comparison.rows[name][figure]["value"] for figure in (GLOBAL, LOCAL)] for name in comparison.pareto]
    if len(front) > 1:
        axis.plot(*np.array(front).T, color="0.3", lw=0.8)
    axis.set_xlabel("PMF error / kT")
    axis.set_ylabel("bond Wasserstein / Å")
    axis.legend(fontsize=7)
    return drawn
