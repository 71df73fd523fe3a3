"""Published Cα data in TorchMD's and mlcg's layouts."""

import h5py
import numpy as np
import pytest

from ase_cg import Dataset, InputError, map_trajectory
from ase_cg.units import KCAL_PER_MOL


@pytest.mark.filterwarnings("ignore:forces of molecule")  # of single atoms with rigid bonds: test_force_check
def test_the_torchmd_layout_of_published_calpha_data(shared, tmp_path):
    folder = shared / "chignolin_ca_forces"
    options = {
        "topology": folder / "chignolin_ca_top.psf",
        "resolution": "calpha",
        "temperature": 350,
        "forces": [folder / "chignolin_ca_forces.npy"],
        "force_map": "slice",
        "length_unit": "Å",
        "force_unit": "kcal/mol/Å",
        "quiet": True,
    }
    coordinates = folder / "chignolin_ca_coords.npy"
    path = map_trajectory(coordinates, tmp_path / "d.h5", embeddings=folder / "chignolin_ca_embeddings.npy", **options)
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        assert molecule.topology.names == ("TYR", "TYR", "ASP", "PRO", "GLU", "THR", "GLY", "THR", "TRP", "TYR")
        assert molecule.topology.bonds == tuple((i, i + 1) for i in range(9))
        forces = molecule.forces().astype(float) / KCAL_PER_MOL
        assert np.sqrt((forces**2).mean()) == pytest.approx(29.15, abs=0.01)
    types = np.load(folder / "chignolin_ca_embeddings.npy")
    np.save(tmp_path / "wrong.npy", types[::-1])
    with pytest.raises(InputError, match=r"gives bead 9 \(TYR\) type|gives bead 1 \(TYR\) type"):
        map_trajectory(coordinates, tmp_path / "e.h5", embeddings=tmp_path / "wrong.npy", **options)
    # All-atom topology, bead positions: they are taken as the beads they are.
    pdb = map_trajectory(coordinates, tmp_path / "f.h5", **(options | {"topology": folder / "chignolin_cln025.pdb"}))
    with Dataset.open(pdb) as dataset, Dataset.open(path) as other:
        ours, theirs = dataset.only_molecule(), other.only_molecule()
        assert np.array_equal(ours.forces(slice(0, 100)), theirs.forces(slice(0, 100)))
        assert ours.force_map == "as published"


def test_the_layout_of_mlcg(shared, tmp_path):
    folder = shared / "chignolin_ca_forces"
    coordinates = np.load(folder / "chignolin_ca_coords.npy", mmap_mode="r")[:50]
    forces = np.load(folder / "chignolin_ca_forces.npy", mmap_mode="r")[:50]
    with h5py.File(tmp_path / "mlcg.h5", "w") as file:
        for name in ("cln_a", "cln_b"):
            group = file.create_group(f"CLN/{name}")
            group["cg_coords"] = coordinates
            group["cg_delta_forces"] = forces
            group.attrs["cg_embeds"] = [19, 19, 4, 15, 7, 17, 8, 17, 18, 19]
            group.attrs["N_frames"] = 50
    options = {
        "topology": folder / "chignolin_cln025.pdb",
        "resolution": "calpha",
        "temperature": 350,
        "length_unit": "Å",
        "force_unit": "kcal/mol/Å",
        "quiet": True,
    }
    path = map_trajectory(tmp_path / "mlcg.h5", tmp_path / "d.h5", group="CLN/cln_b", **options)
    with Dataset.open(path) as dataset:
        molecule = dataset.only_molecule()
        assert molecule.coordinates() == pytest.approx(coordinates)
        assert molecule.forces() == pytest.approx(forces * KCAL_PER_MOL, rel=1e-5)
    with pytest.raises(InputError, match="holds 2 molecules; say which with --group, such as 'CLN/cln_a'"):
        map_trajectory(tmp_path / "mlcg.h5", tmp_path / "e.h5", **options)
    with pytest.raises(InputError, match="did you mean 'CLN/cln_a'"):
        map_trajectory(tmp_path / "mlcg.h5", tmp_path / "e.h5", group="CLN/cla_a", **options)
    with h5py.File(tmp_path / "mlcg.h5", "r+") as file:
        file["CLN/cln_a"].attrs["cg_embeds"] = [19, 18, 4, 15, 7, 17, 8, 17, 18, 19]
    with pytest.raises(InputError, match=r"gives bead 1 \(TYR\) type 18, but another TYR type 19"):
        map_trajectory(tmp_path / "mlcg.h5", tmp_path / "e.h5", group="CLN/cln_a", **options)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(InputError, match="neither 'coordinates'"):
        map_trajectory(tmp_path / "other.h5", tmp_path / "e.h5", **options)


def test_frames_of_the_published_dipeptide_are_100_ps_apart(shared):
    """Every fifth of cgnet's frames is one of the all-atom frames, which are 500 ps apart; its authors say 10 ps.

    φ agrees: the share of φ > 0 is forgotten in 11.7 ± 2.2 frames of the one, and in 2.5 ± 0.4 of the other.
    """
    beads = np.load(shared / "ala2_cg_forces" / "ala2_cacb_coordinates.npy").astype(float)[::5]
    with np.load(shared / "ala2_all_atom_forces" / "ala2_all_atom.npz") as file:
        atoms = file["coords"][:, [4, 6, 8, 10, 14, 16]].astype(float)
    i, j = np.triu_indices(6, 1)
    one, other = (np.linalg.norm(x[:, i] - x[:, j], axis=-1) for x in (beads, atoms))
    assert one == pytest.approx(other, abs=1e-4)
    assert np.abs(np.diff(one, axis=0)).max(1).min() > 0.01  # neighbours differ
