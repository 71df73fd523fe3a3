"""Where replicas start: a structure, frames of a dataset, or frames of any trajectory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_cg.beads.mapping import bead_map
from ase_cg.beads.structure import read_structure
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset import Dataset
from ase_cg.data.importers import READERS, Source
from ase_cg.data.whole import WholeMolecules
from ase_cg.dynamics.noise import generator, random_key
from ase_cg.dynamics.trajectory import atom_labels, bead_labels
from ase_cg.errors import InputError, hint
from ase_cg.files import existing_file
from ase_cg.hdf5 import open_hdf5
from ase_cg.keys import DATASET_FORMAT
from ase_cg.models.model import CGModel
from ase_cg.shipped import shipped_or_given

HDF5 = {".h5", ".hdf5"}
TRAJECTORIES = {
    *READERS,
    ".arc",
    ".binpos",
    ".dcd",
    ".dtr",
    ".mdcrd",
    ".nc",
    ".ncdf",
    ".netcdf",
    ".stk",
    ".xtc",
    ".xyz",
}


@dataclass(frozen=True)
class Start:
    """Starting conformations of some replicas.

    Attributes
    ----------
    name : str
        Of the molecule in a dataset of several, else of the file.
    topology : BeadTopology
        Of N beads.
    positions : ndarray, shape (R, N, 3)
        In Å.
    labels : tuple of str
        What each conformation is called.
    """

    name: str
    topology: BeadTopology
    positions: NDArray[np.float64]
    labels: tuple[str, ...]


def start_file(spec: str) -> tuple[Path, str | None]:
    """Return the file of a start, and which molecule of it is meant: ``dataset.h5`` or ``dataset.h5:chignolin``.

    Structures that come with ase-cg are found by name (``chignolin_folded``).

    Raises
    ------
    InputError
        If the file does not exist.
    """
    path, colon, molecule = spec.rpartition(":")
    if colon and molecule and not Path(spec).exists() and Path(path).is_file():
        return Path(path), molecule
    return existing_file(shipped_or_given(spec, ".pdb"), "start"), None


def read_start(
    model: CGModel, spec: str, replicas: int, *, seed: int, number: int = 0, topology: Path | None = None
) -> Start:
    """Read where some replicas start.

    Parameters
    ----------
    model : CGModel
        It decides what the beads are.
    spec : str
        A structure file, from which all start; a dataset, or a trajectory, from whose frames each draws one.
    replicas : int
        R.
    seed : int
        Of the drawing.
    number : int
        Which start of the simulation it is; another one draws other frames.
    topology : Path, optional
        Structure file of a trajectory that does not name its atoms.

    Raises
    ------
    InputError
        If the file cannot be read, or is of other beads than the model's.
    """
    path, molecule = start_file(spec)
    rng = generator(random_key(seed), "starts", number)
    if path.suffix.lower() in HDF5 and _is_dataset(path):
        return _of_dataset(path, molecule, replicas, rng)
    if molecule is not None:
        raise InputError(f"{path} is no dataset, so there is no molecule {molecule!r} in it")
    if path.suffix.lower() in TRAJECTORIES:
        return _of_trajectory(model, path, replicas, rng, topology)
    from ase_cg.beads.atoms import read_bead_positions

    found, positions = read_bead_positions(path, model.card.resolution)
    beads = _whole(found, model)
    model.check_beads(beads.names)
    return Start(path.stem, beads, np.repeat(positions[None], replicas, axis=0), (f"start {path}",) * replicas)


def _whole(beads: BeadTopology, model: CGModel) -> BeadTopology:
    """Return the molecule that the model knows where the beads are that molecule with bonds missing.

    A chain that is broken in the file is no other molecule: with its bonds, the break is found and named.
    """
    labels = bead_labels(beads)
    for known in model.card.topologies:
        if set(known.bonds) > set(beads.bonds) and bead_labels(known) == labels:
            return known
    return beads


def _is_dataset(path: Path) -> bool:
    import h5py

    if not h5py.is_hdf5(path):
        return True  # opening it says what is wrong
    with open_hdf5(path) as file:
        return bool(file.attrs.get("format") == DATASET_FORMAT)


def _labels(path: Path, frames: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(f"start frame {frame} of {path}" for frame in frames)


def _of_dataset(path: Path, name: str | None, replicas: int, rng: np.random.Generator) -> Start:
    with Dataset.open(path) as dataset:
        if name is None and len(dataset.molecules) > 1:
            names = ", ".join(dataset.molecules)
            first = next(iter(dataset.molecules))
            raise InputError(f"{path} holds several molecules ({names}); say which, as in {path}:{first}")
        if name is not None and name not in dataset.molecules:
            raise InputError(f"{path} holds no molecule {name!r}; {hint(name, dataset.molecules)}")
        molecule = dataset.only_molecule() if name is None else dataset.molecules[name]
        weights = molecule.weights()
        n = molecule.n_frames
        if weights is None:
            drawn = rng.choice(n, size=replicas, replace=replicas > n)
        else:
            drawn = rng.choice(n, size=replicas, p=weights / weights.sum())
        unique, inverse = np.unique(drawn, return_inverse=True)
        positions = molecule.coordinates(unique)[inverse].astype(float)
        return Start(name or path.stem, molecule.topology, positions, _labels(path, drawn))


def _of_trajectory(
    model: CGModel, path: Path, replicas: int, rng: np.random.Generator, topology_file: Path | None
) -> Start:
    known = {tuple(bead_labels(topology)): topology for topology in model.card.topologies}
    named = topology_file or (path if path.suffix.lower() in HDF5 else None)
    if named is None and len(known) != 1:
        raise InputError(f"{path} does not say what its atoms are; give a structure file of them with --topology")
    structure = next(iter(known.values())).to_mdtraj() if named is None else read_structure(named).topology
    topology = known.get(tuple(atom_labels(structure.atoms)))
    mapped = None
    if topology is None:
        mapped = bead_map(structure, model.card.resolution)
        topology = mapped.topology
    parts = []
    for chunk in Source(path, structure, read_forces=False, n_beads=topology.n_beads).chunks():
        is_beads = mapped is None or chunk.positions.shape[1] == topology.n_beads
        x = chunk.positions
        if chunk.cells is not None:  # a molecule that the box has cut is put together
            if is_beads:
                whole = WholeMolecules(topology.bonds, topology.chains)
            else:
                whole = WholeMolecules.of_atoms(structure, np.arange(structure.n_atoms))
            x = whole(x, chunk.cells)
        parts.append(x if mapped is None or is_beads else mapped.apply(x))
    if not parts:
        raise InputError(f"{path} holds no frames")
    frames = np.concatenate(parts).astype(float)
    drawn = rng.choice(len(frames), size=replicas, replace=replicas > len(frames))
    return Start(path.stem, topology, frames[drawn], _labels(path, drawn))


@dataclass(frozen=True)
class Group:
    """Replicas of one molecule, which run as one batch.

    Attributes
    ----------
    name : str
    topology : BeadTopology
        Of N beads.
    positions : ndarray, shape (R, N, 3)
        In Å.
    numbers : ndarray, shape (R,)
        Of the replicas, counted through all groups.
    starts, labels : tuple of str
        Name of the start of each replica, and what its conformation is called.
    """

    name: str
    topology: BeadTopology
    positions: NDArray[np.float64]
    numbers: NDArray[np.int64]
    starts: tuple[str, ...]
    labels: tuple[str, ...]

    def with_positions(self, positions: NDArray[np.float64]) -> "Group":
        """Return the same replicas at other positions."""
        return replace(self, positions=positions)


def grouped(starts: Sequence[Start]) -> list[Group]:
    """Put starts of the same molecule together; replicas are numbered through all starts in their order."""
    names = _unique([start.name for start in starts])
    offsets = np.cumsum([0, *[len(start.positions) for start in starts]])
    groups = []
    for topology in dict.fromkeys(start.topology for start in starts):
        members = [place for place, start in enumerate(starts) if start.topology == topology]
        groups.append(
            Group(
                name=names[members[0]],
                topology=topology,
                positions=np.concatenate([starts[place].positions for place in members]),
                numbers=np.concatenate([np.arange(offsets[place], offsets[place + 1]) for place in members]),
                starts=tuple(names[place] for place in members for _ in starts[place].labels),
                labels=tuple(label for place in members for label in starts[place].labels),
            )
        )
    return groups


def _unique(names: Sequence[str]) -> list[str]:
    return [
        f"{name}-{names[:place].count(name) + 1}" if name in names[:place] else name for place, name in enumerate(names)
    ]
