"""Molecules cut by the box are put together, in cells of any shape."""

from itertools import product

import mdtraj
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_cg import Dataset, map_trajectory
from ase_cg.data.whole import WholeMolecules

CELLS = {
    "orthorhombic": np.diag([20.0, 25.0, 30.0]),
    "octahedron": 30 * np.array([[1, 0, 0], [1 / 3, 2 * np.sqrt(2) / 3, 0], [-1 / 3, np.sqrt(2) / 3, np.sqrt(6) / 3]]),
    "skewed": np.array([[24.0, 0, 0], [12, 20.8, 0], [12, 6.9, 19.6]]),
}


def _mapped(trajectory, topology, resolution):
    """Return the beads' positions of a trajectory in Å, shape (F, N, 3)."""
    path = map_trajectory(
        trajectory,
        trajectory.with_name("dataset.h5"),
        topology=topology,
        resolution=resolution,
        temperature=300,
        length_unit="Å",
        quiet=True,
    )
    with Dataset.open(path) as dataset:
        return dataset.only_molecule().coordinates().astype(float)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), cell=st.sampled_from(sorted(CELLS)))
def test_bonds_become_short_and_the_second_chain_is_the_nearest_image(seed, cell):
    rng = np.random.default_rng(seed)
    vectors = CELLS[cell]
    first = np.cumsum(rng.standard_normal((12, 3)), axis=0)
    second = np.cumsum(rng.standard_normal((5, 3)), axis=0) + rng.random(3) @ vectors
    exact = np.concatenate([first, second])
    images = rng.integers(-2, 3, (17, 3))
    bonds = [(i, i + 1) for i in range(11)] + [(i, i + 1) for i in range(12, 16)]
    whole = WholeMolecules(bonds, [0] * 12 + [1] * 5)((exact + images @ vectors)[None], vectors[None])[0]
    for i, j in bonds:
        assert whole[j] - whole[i] == pytest.approx(exact[j] - exact[i], abs=1e-9)
    between = whole[12:].mean(0) - whole[:12].mean(0)
    # Not even a cell vector farther away is there a nearer image.
    for step in product((-2, -1, 0, 1, 2), repeat=3):
        assert np.linalg.norm(between) <= np.linalg.norm(between + np.array(step) @ vectors) + 1e-9


def test_directions_that_are_not_periodic_are_left_alone():
    cell = np.diag([10.0, 0.0, 0.0])
    x = np.array([[[0.5, 0, 0], [9.5, 8, 0]]])
    whole = WholeMolecules([(0, 1)], [0, 0])(x, cell[None])
    assert whole[0, 1] - whole[0, 0] == pytest.approx([-1.0, 8.0, 0.0])


def test_bead_trajectories_are_made_whole_too(shared, tmp_path):
    folder = shared / "chignolin_ca_forces"
    x = np.load(folder / "chignolin_ca_coords.npy", mmap_mode="r")[:20].astype(float)
    cell = np.full((20, 3), 18.0)
    wrapped = x - np.floor(x / 18.0) * 18.0
    np.savez(tmp_path / "w.npz", coords=wrapped, cell=cell)
    mapped = _mapped(tmp_path / "w.npz", folder / "chignolin_cln025.pdb", "calpha")
    assert np.diff(mapped, axis=1) == pytest.approx(np.diff(x, axis=1), abs=1e-4)


def test_a_shrink_wrapped_lammps_box_moves_nothing(tmp_path, example_data):
    structure = mdtraj.load(str(example_data / "ala2.pdb"))
    x = structure.xyz[0] * 10 - structure.xyz[0].min(0) * 10
    lines = ["ITEM: TIMESTEP", "0", "ITEM: NUMBER OF ATOMS", "22", "ITEM: BOX BOUNDS ss ss ss"]
    lines += [f"0 {0.6 * extent}" for extent in x.max(0)]
    lines += ["ITEM: ATOMS id xu yu zu", *(f"{i + 1} {a} {b} {c}" for i, (a, b, c) in enumerate(x))]
    (tmp_path / "t.dump").write_text("\n".join(lines) + "\n")
    heavy = [atom.index for atom in structure.topology.atoms if atom.element.symbol != "H"]
    mapped = _mapped(tmp_path / "t.dump", example_data / "ala2.pdb", "heavy")
    assert mapped[0] == pytest.approx(x[heavy], abs=1e-4)


def test_molecules_broken_by_the_box_are_made_whole(all_atom, mapping, tmp_path, example_data):
    cell = np.array([[1.8, 0, 0], [0.3, 1.9, 0], [-0.2, 0.4, 2.0]])
    structure = mdtraj.load(str(example_data / "ala2.pdb"))
    x = all_atom[0] - all_atom[0].mean((1, 2), keepdims=True) + np.array([0.1, 1.85, 0.0])
    wrapped = x - np.floor(x @ np.linalg.inv(cell)) @ cell
    trajectory = mdtraj.Trajectory(wrapped, structure.topology)
    trajectory.unitcell_vectors = np.repeat(cell[None], len(x), 0)
    trajectory.save_dcd(str(tmp_path / "t.dcd"))
    whole = map_trajectory(tmp_path / "t.dcd", tmp_path / "d.h5", **mapping)
    broken = map_trajectory(tmp_path / "t.dcd", tmp_path / "e.h5", keep_broken=True, **mapping)
    atoms = [4, 6, 8, 10, 14, 16]

    def distances(path):
        with Dataset.open(path) as dataset:
            beads = dataset.only_molecule().coordinates().astype(float)
        return np.linalg.norm(beads[:, :, None] - beads[:, None], axis=-1)

    exact = np.linalg.norm(10 * (x[:, atoms, None] - x[:, None, atoms]), axis=-1)
    assert distances(whole) == pytest.approx(exact, abs=2e-4)
    assert np.abs(distances(broken) - exact).max() > 5
