"""Every file format gives the same dataset, and what is wrong with one is told in one sentence."""

import sys
import warnings

import h5py
import mdtraj
import numpy as np
import pytest

from ase_cg import InputError, map_trajectory
from ase_cg.data.importers import Source
from ase_cg.units import KCAL_PER_MOL
from tests.data.conftest import check_mapped


def test_npy_positions_and_forces(all_atom, mapping, tmp_path):
    np.save(tmp_path / "x.npy", all_atom[0])
    np.save(tmp_path / "f.npy", all_atom[1].astype(np.float32))
    options = mapping | {"length_unit": "nm", "force_unit": "kJ/mol/nm"}
    check_mapped(
        map_trajectory(tmp_path / "x.npy", tmp_path / "d.h5", forces=[tmp_path / "f.npy"], **options), all_atom
    )
    check_mapped(map_trajectory(tmp_path / "x.npy", tmp_path / "e.h5", **options), all_atom, forces=False)
    np.save(tmp_path / "f.npy", all_atom[1][:-1])
    with pytest.raises(InputError, match=r"forces of shape \(39, 22, 3\)"):
        map_trajectory(tmp_path / "x.npy", tmp_path / "f.h5", forces=[tmp_path / "f.npy"], **options)
    with pytest.raises(InputError, match="2 files of forces for 1 trajectories"):
        map_trajectory(tmp_path / "x.npy", tmp_path / "f.h5", forces=[tmp_path / "f.npy"] * 2, **options)
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="Python objects"):
        map_trajectory(tmp_path / "o.npy", tmp_path / "f.h5", **options)
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(data[:-100])
    with pytest.raises(InputError, match="truncated"):
        map_trajectory(tmp_path / "x.npy", tmp_path / "f.h5", **options)


def test_gromacs_trr_with_forces(all_atom, mapping, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        xdr = pytest.importorskip("MDAnalysis.lib.formats.libmdaxdr")
    with xdr.TRRFile(str(tmp_path / "t.trr"), "w") as file:
        for step, (x, f) in enumerate(zip(*all_atom, strict=True)):
            file.write(x.astype("f4"), None, f.astype("f4"), np.eye(3, dtype="f4") * 5, step, step, 0.0, 22)
    check_mapped(map_trajectory(tmp_path / "t.trr", tmp_path / "d.h5", **mapping), all_atom)
    check_mapped(
        map_trajectory(tmp_path / "t.trr", tmp_path / "e.h5", no_forces=True, **mapping), all_atom, forces=False
    )
    with xdr.TRRFile(str(tmp_path / "u.trr"), "w") as file:
        for step, (x, f) in enumerate(zip(*all_atom, strict=True)):
            kept = f.astype("f4") if step % 4 == 0 else None
            file.write(x.astype("f4"), None, kept, np.eye(3, dtype="f4") * 5, step, step, 0.0, 22)
    with pytest.warns(UserWarning, match="30 of 40 frames lack positions or forces"):
        path = map_trajectory(tmp_path / "u.trr", tmp_path / "g.h5", **mapping)
    check_mapped(path, (all_atom[0][::4], all_atom[1][::4]))
    monkeypatch.setitem(sys.modules, "MDAnalysis.lib.formats.libmdaxdr", None)
    with pytest.raises(InputError, match=r"pip install 'ase-cg\[gromacs\]'"):
        map_trajectory(tmp_path / "t.trr", tmp_path / "f.h5", **mapping)


@pytest.mark.parametrize("suffix", [".traj", ".extxyz"])
def test_ase_trajectories(suffix, all_atom, mapping, tmp_path, example_data):
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.constraints import FixAtoms
    from ase.io import write

    symbols = [atom.element.symbol for atom in mdtraj.load(str(example_data / "ala2.pdb")).topology.atoms]
    images = []
    for x, f in zip(*all_atom, strict=True):
        atoms = Atoms(symbols, positions=x * 10)
        atoms.calc = SinglePointCalculator(atoms, forces=f * KCAL_PER_MOL / 41.84)
        if suffix == ".traj":
            atoms.set_constraint(FixAtoms([4]))  # forces are those of the calculator all the same
        images.append(atoms)
    write(tmp_path / f"t{suffix}", images)
    check_mapped(map_trajectory(tmp_path / f"t{suffix}", tmp_path / "d.h5", **mapping), all_atom, tolerance=1e-4)
    images[7] = images[7][:20]
    write(tmp_path / f"t{suffix}", images)
    with pytest.raises(InputError, match="frame 7 has 20 atoms, the frames before 22"):
        map_trajectory(tmp_path / f"t{suffix}", tmp_path / "e.h5", **mapping)
    symbols[4] = "N"
    write(tmp_path / f"t{suffix}", [Atoms(symbols, positions=x * 10) for x in all_atom[0]])
    with pytest.raises(InputError, match=r"atom 4 is N in .* but C in the topology"):
        map_trajectory(tmp_path / f"t{suffix}", tmp_path / "e.h5", **mapping)


def test_extended_xyz_under_the_name_of_plain_xyz_keeps_its_forces(all_atom, mapping, tmp_path, example_data):
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    symbols = [atom.element.symbol for atom in mdtraj.load(str(example_data / "ala2.pdb")).topology.atoms]
    images = [Atoms(symbols, positions=x * 10) for x in all_atom[0]]
    for atoms, f in zip(images, all_atom[1], strict=True):
        atoms.calc = SinglePointCalculator(atoms, forces=f * KCAL_PER_MOL / 41.84)
    write(tmp_path / "t.xyz", images)
    check_mapped(map_trajectory(tmp_path / "t.xyz", tmp_path / "d.h5", **mapping), all_atom, tolerance=1e-4)
    mdtraj.Trajectory(all_atom[0], mdtraj.load(str(example_data / "ala2.pdb")).topology).save(str(tmp_path / "p.xyz"))
    plain = map_trajectory(tmp_path / "p.xyz", tmp_path / "e.h5", **mapping)
    check_mapped(plain, all_atom, forces=False, tolerance=1e-2)


def test_cells_of_mdtraj_hdf5_and_npz_are_rows(all_atom, example_data, tmp_path):
    """A triclinic cell: row k is the vector k, as MDTraj gives it, in Å."""
    topology = mdtraj.load(str(example_data / "ala2.pdb")).topology
    cell = np.array([[3.0, 0, 0], [0.9, 3.5, 0], [-0.7, 0.6, 4.0]])  # nm
    cells = cell * np.linspace(1.0, 1.1, 5)[:, None, None]
    written = mdtraj.Trajectory(all_atom[0][:5], topology)
    written.unitcell_vectors = cells
    written.save_hdf5(str(tmp_path / "t.h5"))
    written.save_xtc(str(tmp_path / "t.xtc"))
    np.savez(tmp_path / "t.npz", positions=all_atom[0][:5], cells=cells)
    for name, unit in (("t.h5", None), ("t.xtc", None), ("t.npz", "nm")):
        (frames,) = Source(tmp_path / name, topology, unit).chunks()
        assert frames.cells == pytest.approx(10 * cells, abs=1e-3), name
        assert frames.positions == pytest.approx(10 * all_atom[0][:5], abs=0.02)


def test_cells_of_npz_may_be_lengths(all_atom, example_data, tmp_path):
    topology = mdtraj.load(str(example_data / "ala2.pdb")).topology
    lengths = np.array([3.0, 3.5, 4.0]) * np.linspace(1, 1.1, 5)[:, None]
    np.savez(tmp_path / "t.npz", positions=all_atom[0][:5], cells=lengths)
    (frames,) = Source(tmp_path / "t.npz", topology, "nm").chunks()
    assert frames.cells == pytest.approx(np.stack([np.diag(10 * row) for row in lengths]))


def test_mdtraj_hdf5_without_a_unit_is_in_nm(all_atom, example_data, tmp_path):
    """By MDTraj's definition; a unit that is declared counts."""
    topology = mdtraj.load(str(example_data / "ala2.pdb")).topology
    path = tmp_path / "t.h5"
    mdtraj.Trajectory(all_atom[0][:5], topology).save_hdf5(str(path))
    for unit, size in ((None, 10.0), ("angstroms", 1.0)):
        with h5py.File(path, "a") as file:
            file["coordinates"].attrs.pop("units", None)
            if unit is not None:
                file["coordinates"].attrs["units"] = unit
        (frames,) = Source(path, topology).chunks()
        assert frames.positions == pytest.approx(size * all_atom[0][:5], rel=1e-5)
