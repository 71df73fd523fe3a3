"""Force maps: published residuals, validity, optimality, and constraints found in data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_cg import InputError, optimal_force_map
from ase_cg.beads.constraints import RigidPairs, connected, hydrogen_groups
from ase_cg.beads.forcemap import (
    ForceMoments,
    constraint_sum_force_map,
    slice_force_map,
    tying_matrix,
    validity,
)
from ase_cg.beads.mapping import linear_map
from ase_cg.beads.structure import read_structure

BEADS = [4, 6, 8, 14, 16]
GROUPS = ((0, 1, 2, 3), (6, 7), (8, 9), (10, 11, 12, 13), (16, 17), (18, 19, 20, 21))


@pytest.fixture(scope="module")
def published(shared):
    with np.load(shared / "ala2_all_atom_forces" / "ala2_all_atom.npz") as file:
        return file["coords"].astype(float), file["forces"].astype(float)


@pytest.fixture
def five_beads():
    matrix = np.zeros((5, 22))
    matrix[range(5), BEADS] = 1.0
    return matrix


def _rms(force_map, forces):
    return float(np.sqrt((linear_map(force_map, forces) ** 2).mean()))


def test_the_three_maps_reach_the_published_residuals(published, five_beads):
    _, forces = published
    half = len(forces) // 2
    assert _rms(slice_force_map(five_beads), forces) == pytest.approx(26.99, abs=0.05)
    assert _rms(constraint_sum_force_map(five_beads, GROUPS), forces) == pytest.approx(26.05, abs=0.05)
    fitted = optimal_force_map(forces[:half], five_beads, GROUPS)
    assert _rms(fitted, forces[half:]) == pytest.approx(20.73, abs=0.05)
    assert validity(fitted, five_beads) < 1e-12
    for group in GROUPS:
        assert np.ptp(fitted[:, list(group)], axis=1) == pytest.approx(np.zeros(5), abs=1e-12)


def test_constraints_are_found_in_the_data_and_in_the_topology(published, shared):
    positions, _ = published
    rigid = RigidPairs()
    for part in np.array_split(positions, 7):
        rigid.add(part)
    assert rigid.groups() == GROUPS
    topology = read_structure(shared / "ala2_all_atom_forces" / "ala2_all_atom.pdb").topology
    assert hydrogen_groups(topology) == GROUPS


def test_flexible_bonds_are_not_taken_for_rigid(example_data):
    import mdtraj

    positions = mdtraj.load(str(example_data / "ala2_all_atom.h5")).xyz[:500].astype(float) * 10
    rigid = RigidPairs()
    rigid.add(positions)
    assert rigid.groups() == ()
    few = RigidPairs()
    few.add(positions[:10])
    with pytest.raises(InputError, match="cannot be told from 10 frames"):
        few.groups()


def test_rounded_positions_do_not_hide_rigid_bonds(published):
    positions, _ = published
    rigid = RigidPairs()
    rigid.add(np.round(positions, 2))  # what XTC keeps
    assert rigid.groups() == GROUPS


def _random_case(seed, n_atoms=9, n_beads=3, n_frames=60):
    rng = np.random.default_rng(seed)
    matrix = np.zeros((n_beads, n_atoms))
    for bead in range(n_beads):
        members = [3 * bead, 3 * bead + 1] if seed % 2 else [3 * bead]
        weights = rng.random(len(members)) + 0.1
        matrix[bead, members] = weights / weights.sum()
    groups = [(0, 1), (7, 8)] if seed % 3 else []
    mixing = rng.standard_normal((n_atoms, n_atoms))
    forces = np.einsum("ij,fjx->fix", mixing, rng.standard_normal((n_frames, n_atoms, 3)))
    return rng, matrix, groups, forces


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_no_other_valid_map_has_a_smaller_residual(seed):
    rng, matrix, groups, forces = _random_case(seed)
    best = optimal_force_map(forces, matrix, groups)
    tying = tying_matrix(groups, matrix.shape[1]).toarray()
    assert validity(best, matrix) < 1e-9
    # Any step that keeps W Cᵀ = I and the tying: from the null space of the constraints.
    _, sizes, rows = np.linalg.svd(matrix @ tying)
    null = rows[np.sum(sizes > 1e-12) :]
    step = rng.standard_normal((len(matrix), len(null))) @ null @ tying.T
    assert validity(best + step, matrix) < 1e-9
    for size in (-0.1, 0.1, 1.0):
        assert _rms(best + size * step, forces) >= _rms(best, forces)


def test_moments_in_pieces_give_the_same_map():
    _, matrix, groups, forces = _random_case(4)
    moments = [ForceMoments(9), ForceMoments(9)]
    for number, part in enumerate(np.array_split(forces, 5)):
        moments[number % 2].add(part)
    together = moments[0].tied(groups) + moments[1].tied(groups)
    assert together.optimal_map(matrix) == pytest.approx(optimal_force_map(forces, matrix, groups), abs=1e-10)
    best = together.optimal_map(matrix)
    assert together.root_mean_square(best) == pytest.approx(_rms(best, forces))


def test_a_large_ridge_gives_the_valid_map_of_least_norm():
    _, matrix, groups, forces = _random_case(5)
    tying = tying_matrix(groups, 9).toarray()
    metric = tying @ np.linalg.inv(tying.T @ tying) @ tying.T
    least = np.linalg.inv(matrix @ metric @ matrix.T) @ matrix @ metric
    assert optimal_force_map(forces, matrix, groups, ridge=1e12) == pytest.approx(least, abs=1e-6)
    norms = [np.linalg.norm(optimal_force_map(forces, matrix, groups, ridge=r)) for r in (0.0, 1e2, 1e4, 1e6)]
    assert norms == sorted(norms, reverse=True)


def test_the_mean_force_is_that_of_the_bead_for_every_valid_map():
    """Springs between atoms: given the beads, every valid map has the analytic mean force as its average."""
    rng = np.random.default_rng(3)
    # U = k/2 Σ (x_i − x_{i+1})², kT = 1, atoms 0 and 2 are beads, atom 1 lies between them.
    k = 4.0
    beads = rng.standard_normal((200_000, 2, 3))
    middle = beads.mean(1) + rng.standard_normal((len(beads), 3)) / np.sqrt(2 * k)
    atoms = np.stack([beads[:, 0], middle, beads[:, 1]], axis=1)
    forces = np.stack(
        [
            k * (atoms[:, 1] - atoms[:, 0]),
            k * (atoms[:, 0] + atoms[:, 2] - 2 * atoms[:, 1]),
            k * (atoms[:, 1] - atoms[:, 2]),
        ],
        axis=1,
    )
    matrix = np.array([[1.0, 0, 0], [0, 0, 1.0]])
    exact = k / 2 * (beads[:, ::-1] - beads)  # of the free energy k/4 (x₀ − x₂)²
    another = np.array([[1, -0.7, 0], [0, 0.2, 1]])
    for force_map in (slice_force_map(matrix), optimal_force_map(forces, matrix), another):
        residual = linear_map(force_map, forces) - exact
        projection = (residual * exact).mean() / (exact**2).mean()
        assert abs(projection) < 0.01
    assert _rms(optimal_force_map(forces, matrix), forces) == pytest.approx(np.sqrt((exact**2).mean()), rel=0.01)


def test_maps_that_do_not_exist_are_one_sentence():
    matrix = np.eye(2, 4)
    forces = np.random.default_rng(0).standard_normal((20, 4, 3))
    with pytest.raises(InputError, match="rigid constraints tie atoms of beads 0 and 1"):
        optimal_force_map(forces, matrix, [(0, 2), (2, 1)])
    with pytest.raises(InputError, match="rigid constraints tie atoms of beads 0 and 1"):
        constraint_sum_force_map(matrix, [(0, 1)])
    with pytest.raises(InputError, match="single atoms"):
        slice_force_map(np.array([[0.5, 0.5, 0, 0]]))
    with pytest.raises(InputError, match="names atom 4"):
        optimal_force_map(forces, matrix, [(3, 4)])
    with pytest.raises(InputError, match=r"shape \(20, 3, 3\)"):
        optimal_force_map(forces[:, :3], matrix)
    with pytest.raises(InputError, match="no numbers"):
        optimal_force_map(np.where(forces > 1, np.nan, forces), matrix)
    with pytest.raises(InputError, match="ridge"):
        optimal_force_map(forces, matrix, ridge=-1.0)
    with pytest.raises(InputError, match="constraint_sum"):
        ForceMoments(7000)


def test_groups_that_share_an_atom_are_joined():
    assert connected([(3, 1), (1, 5), (2, 4)], 6) == ((1, 3, 5), (2, 4))
    assert tying_matrix([(0, 1), (1, 2)], 4).toarray().tolist() == [[1, 0], [1, 0], [1, 0], [0, 1]]
