"""Compare simulations with the all-atom reference."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase_cg.analysis.backmap_energy import BackmapEnergies, backmap_test, minimizer_for
from ase_cg.analysis.ensembles import Ensemble, Grid
from ase_cg.analysis.gather import Gathered, gather, open_inputs
from ase_cg.analysis.intervals import FEATURES_PREFIX, compared, floor, without_interval
from ase_cg.analysis.macrostates import Kinetics, KineticsSettings, StateSpace
from ase_cg.analysis.pareto import pareto_front
from ase_cg.analysis.provenance import trained_on_reference
from ase_cg.analysis.slow_coordinates import SlowCoordinates
from ase_cg.analysis.surfaces import Plane, check_surface
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError
from ase_cg.progress import announced

PathLike = str | os.PathLike[str]
REWEIGHTING = ("none", "reference", "all")


@dataclass(frozen=True)
class Comparison:
    """Everything that :func:`analyze` found.

    Parameters
    ----------
    rows : dict
        The models by name (``"model"`` where there is one), perhaps ``"prior"``, and ``"floor"``; each maps a figure's
        name to ``value``, ``interval`` and more, see :func:`ase_cg.analysis.intervals.compared`.
    features : dict
        The same of every bond, angle and dihedral: of each row and kind a list of values and one of intervals.
    ensembles : dict
        ``"reference"`` and the models by name.
    kinetics : dict
        Of each ensemble whose trajectories are long enough.
    topology : BeadTopology
    planes : dict
        Planes of the free-energy surfaces, by name.
    main : str or None
        The plane whose figures stand in the table.
    grids : dict
        Bins of each kind of feature.
    slow : SlowCoordinates
    space : StateSpace or None
        Clusters and macrostates.
    sources : dict
        Where everything comes from.
    notes : list of str
        What was left out or is in doubt, one sentence each.
    backmapping : BackmapEnergies or None
        Energies of rebuilt atoms.
    """

    rows: dict[str, dict[str, Any]]
    features: dict[str, dict[str, Any]]
    ensembles: dict[str, Ensemble]
    kinetics: dict[str, Kinetics]
    topology: BeadTopology
    planes: dict[str, Plane]
    main: str | None
    grids: dict[str, Grid]
    slow: SlowCoordinates
    space: StateSpace | None
    sources: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    backmapping: BackmapEnergies | None = None

    @property
    def reference(self) -> Ensemble:
        """The reference."""
        return self.ensembles["reference"]

    @property
    def models(self) -> dict[str, Ensemble]:
        """The simulations, by name."""
        return {name: ensemble for name, ensemble in self.ensembles.items() if name != "reference"}

    @property
    def model(self) -> Ensemble:
        """The first simulation."""
        return next(iter(self.models.values()))

    @property
    def prior(self) -> Ensemble | None:
        """The simulation without the network, if there is one."""
        return self.ensembles.get("prior")

    @property
    def pareto(self) -> list[str]:
        """The models that no other beats in both PMF error (global) and bond Wasserstein distance (local).

        Empty where there is but one model.
        """
        rows = {name: row for name, row in self.rows.items() if name not in {"floor", "prior"}}
        return pareto_front(rows) if len(rows) > 1 else []

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        from ase_cg.analysis.record import record

        return record(self)


def analyze(
    simulation: PathLike | Sequence[PathLike] | Mapping[str, PathLike],
    reference: PathLike,
    output: PathLike | None = None,
    *,
    prior_simulation: PathLike | None = None,
    native: PathLike | None = None,
    bins: int = 80,
    discard: float = 0.1,
    lag: int = 10,
    model_lag: int | None = None,
    clusters: int = 100,
    macrostates: int = 2,
    backmap: int = 0,
    structure: PathLike | None = None,
    reweight: str = "none",
    surface: str | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> Comparison:
    """Compare one simulation or several with the all-atom reference.

    Parameters
    ----------
    simulation : path, sequence of paths, or mapping of names to paths
        Folders that :func:`ase_cg.simulate` wrote, or datasets with the same beads.
    reference : path
        Dataset of the all-atom reference, mapped to the same beads. Its frame weights count in every figure, if it has
        any, as do those of a simulation that is a dataset; frames of weight 0 are as if they were not there.
    output : path, optional
        Folder for ``report.html``, figures (PNG, SVG and ``figures.json``), ``table.md`` and ``metrics.json``; without
        it nothing is written.
    prior_simulation : path, optional
        Folder of the same model without its network, for comparison.
    native : path, optional
        Native structure (PDB, …), for RMSD, GDT-TS, native contacts and the folding free energy.
    bins : int
        Of each coordinate of a free-energy surface.
    discard : float
        Fraction of each simulated trajectory dropped from its beginning.
    lag : int
        In frames of the reference, of TICA and Markov model; 0 where the frames are no time series.
    model_lag : int, optional
        In frames of the simulations; by default the same number.
    clusters, macrostates : int
        Of the Markov models.
    backmap : int
        Frames of each ensemble whose atoms are rebuilt and minimised, and whose energies are compared; 0 for none.
    structure : path, optional
        All-atom structure for that, which beads other than Cα need.
    reweight : {"none", "reference", "all"}
        Whose frames get the weights of equilibrium from their Markov models.
    surface : {"ramachandran", "tica", "pca", "rmsd_radius_of_gyration"}, optional
        The free-energy surface whose figures stand in the table and have names without a prefix. By default slow
        coordinates (``tica``, or ``pca`` where frames are no time series) where there is a fold, otherwise
        ``ramachandran``. ``rmsd_radius_of_gyration`` needs a native structure, and tells mirror images apart, which
        slow coordinates of distances cannot.
    overwrite, quiet : bool

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If something is missing, the beads differ, or there is no such surface. Of several simulations those that cannot
        be analyzed are left out, and the report says so.
    """
    if not 0 <= discard < 1:
        raise InputError(f"discard is a fraction from 0 to below 1, not {discard}")
    if bins < 2:
        raise InputError(f"a surface needs at least 2 bins, not {bins}")
    if reweight not in REWEIGHTING:
        raise InputError(f"reweight is one of {', '.join(REWEIGHTING)}, not {reweight!r}")
    check_surface(surface, lag=lag, native=native is not None)
    settings = KineticsSettings(lag, model_lag, clusters, macrostates)
    folder = None if output is None else Path(output)
    if folder is not None and (folder / "metrics.json").exists() and not overwrite:
        raise InputError(f"{folder} holds an analysis already; choose another folder, or --overwrite (overwrite=True)")
    if backmap < 0:
        raise InputError(f"backmap is a number of frames, not {backmap}")
    if structure is not None and not backmap:
        raise InputError("a structure is used by --backmap (backmap=…) alone; say of how many frames, or leave it out")
    inputs = open_inputs(named_simulations(simulation), reference, prior_simulation, native)
    minimizer = minimizer_for(inputs.reference, structure) if backmap else None
    with announced("Comparing with the reference", quiet=quiet):
        found = gather(inputs, bins=bins, discard=discard, kinetics=settings, reweight=reweight, surface=surface)
        energies = None if minimizer is None else backmap_test(found.ensembles, backmap, minimizer)
        comparison = _compare(found, energies)
        if folder is not None:
            from ase_cg.analysis.write import write_analysis

            write_analysis(comparison, folder)
    return comparison


def named_simulations(simulation: PathLike | Sequence[PathLike] | Mapping[str, PathLike]) -> dict[str, Path]:
    """Return the simulations by name: one is called ``model``, several by their folders.

    Raises
    ------
    InputError
        If there is none, two have one name, or a name is reserved.
    """
    if isinstance(simulation, str | os.PathLike):
        return {"model": Path(simulation)}
    if isinstance(simulation, Mapping):
        named = [(name, Path(path)) for name, path in simulation.items()]
    else:
        paths = [Path(path) for path in simulation]
        named = [("model", paths[0])] if len(paths) == 1 else [(path.stem, path) for path in paths]
        parents = {path.resolve().parent.name for path in paths}
        if len({name for name, _ in named}) < len(named) == len(parents):  # runs/a/simulation, runs/b/simulation
            named = [(path.resolve().parent.name, path) for path in paths]
    names = [name for name, _ in named]
    if not names:
        raise InputError("no simulation was given")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two simulations are called {twice!r}; give each a name, such as NAME=FOLDER")
    reserved = sorted({"reference", "floor", "prior"} & set(names))
    if reserved:
        raise InputError(f"a simulation cannot be called {reserved[0]!r}; give it another name, such as NAME=FOLDER")
    return dict(named)


def _compare(found: Gathered, energies: BackmapEnergies | None) -> Comparison:
    """Return the comparison of what was gathered."""
    target = found.ensembles["reference"]
    every = {
        name: compared(ensemble, target, found.grids, found.main)
        for name, ensemble in found.ensembles.items()
        if name != "reference"
    }
    every["floor"] = floor(target, found.grids, found.main)
    rows = {name: {key: x for key, x in row.items() if not isinstance(x["value"], list)} for name, row in every.items()}
    features = {
        name: {key.removeprefix(FEATURES_PREFIX): x for key, x in row.items() if key.startswith(FEATURES_PREFIX)}
        for name, row in every.items()
    }
    found.notes.extend([*without_interval(rows), *trained_on_reference(found.sources)])
    return Comparison(rows=rows, features=features, backmapping=energies, **vars(found))
