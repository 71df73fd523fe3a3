"""Read reference and simulations, and bring them onto common coordinates and grids."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ase_cg.analysis.convergence import convergence
from ase_cg.analysis.doubts import contradicted_weights, doubts, mirror_doubts
from ase_cg.analysis.ensembles import Ensemble, Frames, Grid, count_frames, feature_grids, weighing
from ase_cg.analysis.features import MIN_ALPHAS, ramachandran_beads, representative_beads
from ase_cg.analysis.kinetics import States, assign
from ase_cg.analysis.macrostates import Kinetics, KineticsSettings, StateSpace, kinetics_of, reference_states
from ase_cg.analysis.native import NativeStructure
from ase_cg.analysis.provenance import provenance
from ase_cg.analysis.same_beads import check_same_beads
from ase_cg.analysis.series import read_series
from ase_cg.analysis.slow_coordinates import FeatureSet, SlowCoordinates, fit_pca, fit_tica, project
from ase_cg.analysis.sources import FrameSource, open_source
from ase_cg.analysis.surfaces import RMSD_AND_SIZE, RMSD_AND_SIZE_AXES, Plane, missing_surface
from ase_cg.analysis.survey import survey
from ase_cg.beads.topology import BeadTopology
from ase_cg.errors import InputError

PathLike = str | os.PathLike[str]
T = TypeVar("T")

MIN_FRAMES = 10


@dataclass
class Gathered:
    """The fields of :class:`ase_cg.analysis.compare.Comparison` that come before the figures."""

    ensembles: dict[str, Ensemble]
    kinetics: dict[str, Kinetics]
    topology: BeadTopology
    planes: dict[str, Plane]
    main: str | None
    grids: dict[str, Grid]
    slow: SlowCoordinates
    space: StateSpace | None
    sources: dict[str, Any]
    notes: list[str]


@dataclass(frozen=True)
class Inputs:
    """What was given, opened but not read.

    Parameters
    ----------
    reference : FrameSource
    topology : BeadTopology
        Of the reference.
    models : dict
        The simulations by name, and perhaps ``"prior"``.
    native : NativeStructure or None
    native_path : path or None
    notes : list of str
        What was left out.
    """

    reference: FrameSource
    topology: BeadTopology
    models: dict[str, FrameSource]
    native: NativeStructure | None
    native_path: PathLike | None
    notes: list[str]


def open_inputs(
    simulations: Mapping[str, Path], reference: PathLike, prior: PathLike | None, native: PathLike | None
) -> Inputs:
    """Open everything and compare the beads; of several simulations those that cannot be used are left out.

    Raises
    ------
    InputError
        If something is missing, damaged or has other beads.
    """
    notes: list[str] = []
    target = _weighing(reference, "reference")
    topology = _checked_reference(target, reference)
    folded = _read_native(native, target, topology, notes)

    def opened(name: str, path: Path) -> FrameSource:
        source = _weighing(path, name)
        check_same_beads(list(source.beads), list(target.beads), str(path), "the reference")
        return source

    models = _all_that_can(simulations, lambda name: opened(name, simulations[name]), notes)
    if prior is not None:
        models["prior"] = opened("prior", Path(prior))
        if not (models["prior"].record or {}).get("prior_only", True):
            raise InputError(f"{prior} was simulated with the network; give one of `simulate --prior-only`")
    return Inputs(target, topology, models, folded, native, notes)


def _weighing(path: PathLike, name: str) -> FrameSource:
    """Open a source without the frames that have no weight."""
    source = open_source(path, name).weighing()
    if not source.pieces:
        raise InputError(f"{path} has no frame with a weight above 0")
    return source


def _all_that_can(names: Iterable[str], make: Callable[[str], T], notes: list[str]) -> dict[str, T]:
    """Return what could be made, by name, and note what could not.

    Raises
    ------
    InputError
        If nothing could be made.
    """
    found: dict[str, T] = {}
    errors: dict[str, InputError] = {}
    for name in names:
        try:
            found[name] = make(name)
        except InputError as error:
            errors[name] = error
    if not found and errors:
        raise next(iter(errors.values()))
    notes.extend(f"{name} is left out: {error}" for name, error in errors.items())
    return found


def gather(
    inputs: Inputs, *, bins: int, discard: float, kinetics: KineticsSettings, reweight: str, surface: str | None
) -> Gathered:
    """Read everything, in the order in which one step needs the other.

    Raises
    ------
    InputError
        If no simulation can be analyzed, or there is no surface of the name that was asked for.
    """
    notes, topology = inputs.notes, inputs.topology
    first = survey(inputs.reference, topology)
    longest = None if first.bonds is None else first.bonds[1]
    kept = {name: source.discarded(discard).weighing() for name, source in inputs.models.items()}
    surveys = {"reference": first} | _all_that_can(kept, lambda name: survey(kept[name], topology, longest), notes)
    if not set(surveys) - {"reference", "prior"}:
        raise InputError(f"no simulation can be analyzed: {notes[-1]}")
    for name, one in surveys.items():
        notes.extend(f"{name}: {sentence}; it is left out" for sentence in one.source.left_out)
    slow = _fit_slow(first.source, kinetics, notes)
    frames = {name: _frames_of(found.source, topology, inputs.native, slow) for name, found in surveys.items()}
    space, estimated = _estimate_kinetics(frames, slow, kinetics, reweight, notes)
    planes = _planes(frames["reference"], topology, slow, bins)
    main = _main_plane(planes, topology, surface)
    grids = feature_grids(topology, [s.bonds for s in surveys.values()], list(frames.values()))
    gathered = Gathered(
        ensembles={name: count_frames(known, topology, planes, grids) for name, known in frames.items()},
        kinetics=estimated,
        topology=topology,
        planes=planes,
        main=main,
        grids=grids,
        slow=slow,
        space=space,
        sources=provenance(
            {name: one.source for name, one in surveys.items()},
            None if inputs.native_path is None else Path(inputs.native_path),
        ),
        notes=notes,
    )
    notes.extend(doubts(gathered.ensembles, None if main is None else planes[main], slow.labels[0]))
    notes.extend(mirror_doubts(gathered.ensembles, main, slow.features))
    return gathered


def _checked_reference(source: FrameSource, path: object) -> BeadTopology:
    if source.topology is None:
        raise InputError(f"reference {path} is a simulation; give a dataset, as `ase-cg map` writes it")
    if not source.topology.bonds and not ramachandran_beads(source.topology):
        raise InputError(f"{path} has neither bonds nor φ/ψ beads: there is nothing to compare")
    if source.n_frames < MIN_FRAMES:
        raise InputError(f"reference {path} has fewer than {MIN_FRAMES} frames: too few to compare with")
    return source.topology


def _read_native(
    path: PathLike | None, source: FrameSource, topology: BeadTopology, notes: list[str]
) -> NativeStructure | None:
    from ase_cg.data.dataset import Dataset

    if path is None:
        if len(representative_beads(topology)) < topology.n_beads or ":" not in topology.names[0]:
            notes.append(
                "no native structure was given (--native): RMSD, GDT-TS, native contacts and the folding free energy "
                "are left out"
            )
        return None
    with Dataset.open(source.path) as dataset:
        resolution = dataset.only_molecule().resolution
    return NativeStructure.read(path, topology, resolution)


def _fit_slow(reference: FrameSource, settings: KineticsSettings, notes: list[str]) -> SlowCoordinates:
    """Fit TICA where the reference is a time series, otherwise principal components, and say why."""
    assert reference.topology is not None  # noqa: S101 - checked when it was opened
    features = FeatureSet.of(reference.topology)
    why = "the lag is 0" if settings.lag == 0 else ""
    if not why:
        try:
            slow = fit_tica(reference, features, settings.lag, weights=reference.weights())
        except InputError as error:
            why = str(error)
        else:
            if slow.timescales[0] > settings.lag:
                return slow
            why = (
                f"its slowest process relaxes in {slow.timescales[0]:.2g} frames, within the lag of {settings.lag}, so "
                "that consecutive frames are as good as independent"
            )
    notes.append(f"the reference is not analyzed as a time series, because {why}: no TICA and no Markov models")
    return fit_pca(reference, features)


def _frames_of(
    source: FrameSource, topology: BeadTopology, native: NativeStructure | None, slow: SlowCoordinates
) -> Frames:
    points = project(source, slow)
    weights = source.weights()
    return Frames(
        source,
        read_series(source, topology, native),
        points,
        weights,
        convergence([x[:, 0] for x in points], weights),
    )


def _estimate_kinetics(
    frames: dict[str, Frames], slow: SlowCoordinates, settings: KineticsSettings, reweight: str, notes: list[str]
) -> tuple[StateSpace | None, dict[str, Kinetics]]:
    """Return the macrostates and the kinetics of all ensembles; frames get weights where that is asked for."""
    if slow.kind != "TICA":
        if reweight != "none":
            notes.append("without Markov models no frames are reweighted")
        return None, {}
    reference = frames["reference"]
    try:
        space = reference_states(reference.slow, reference.series.get("rmsd"), settings, reference.weights)
    except InputError as error:
        notes.append(f"there are no Markov models, because {error}")
        return None, {}
    found: dict[str, Kinetics] = {}
    for name, known in list(frames.items()):
        lag = settings.lag if name == "reference" or settings.model_lag is None else settings.model_lag
        states = assign(known.slow, space.centers)
        try:
            found[name] = kinetics_of(
                states,
                space,
                lag,
                weights=known.weights,
                frame_interval=known.source.frame_interval,
                temperature=known.source.temperature,
            )
        except InputError as error:
            notes.append(f"{name} has no Markov model, because {error}")
            continue
        notes.extend(f"{name}: {note}" for note in found[name].notes)
        if known.weights is not None:
            notes.extend(contradicted_weights(name, found[name]))
        if reweight == "all" or (reweight == "reference" and name == "reference"):
            if known.weights is not None:
                notes.append(f"{name}: the weights of its frames are replaced by those of its Markov model (reweight)")
            frames[name] = _reweighted(known, states, found[name])
    return space, found


def _reweighted(known: Frames, states: States, found: Kinetics) -> Frames:
    weights = found.model.frame_weights(states)
    judged = convergence([x[:, 0] for x in known.slow], weights)
    return Frames(known.source, known.series, known.slow, weights, judged)


def _planes(reference: Frames, topology: BeadTopology, slow: SlowCoordinates, bins: int) -> dict[str, Plane]:
    planes = {}
    if ramachandran_beads(topology):
        planes["ramachandran"] = Plane.ramachandran(bins)
    if slow.matrix.shape[1] >= 2:
        points: NDArray[np.float64] = np.concatenate(weighing([x[:, :2] for x in reference.slow], reference.weights))
        name = slow.kind.lower()
        planes[name] = Plane.around(name, (slow.labels[0], slow.labels[1]), points, bins)
    if "rmsd" in reference.series:
        axes = [np.concatenate(weighing(reference.series[name], reference.weights)) for name in RMSD_AND_SIZE_AXES]
        labels = ("RMSD / Å", "radius of gyration / Å")
        planes[RMSD_AND_SIZE] = Plane.around(RMSD_AND_SIZE, labels, np.stack(axes, axis=1), bins)
    return planes


def _main_plane(planes: Mapping[str, Plane], topology: BeadTopology, wanted: str | None) -> str | None:
    """Return the plane that stands in the table: the wanted one, or slow coordinates of a fold, otherwise φ and ψ."""
    if wanted is not None and wanted not in planes:
        raise InputError(missing_surface(wanted, planes))
    if wanted is not None:
        return wanted
    fold = len(representative_beads(topology)) >= MIN_ALPHAS and len(topology.residues) >= MIN_ALPHAS
    names = sorted(planes, key=lambda name: (name == RMSD_AND_SIZE, (name == "ramachandran") == fold))
    return names[0] if names else None
