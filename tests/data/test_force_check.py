"""Forces are checked against the positions they belong to: sound ones pass, and each kind of fault is found."""

import h5py
import numpy as np
import pytest
from scipy.signal import lfilter

from ase_cg import Dataset, map_trajectory, optimal_force_map
from ase_cg.analysis.describe import describe
from ase_cg.beads.topology import BeadTopology
from ase_cg.cli.show_info import show_info
from ase_cg.data.force_check import ForceChecker, check_forces, known_check
from ase_cg.units import KCAL_PER_MOL, thermal_energy

KT = thermal_energy(300.0)
ALA2_BONDS = ((0, 1), (1, 2), (2, 3), (2, 4), (4, 5))


def _topology(n_beads, bonds=None):
    bonds = tuple((i, i + 1) for i in range(n_beads - 1)) if bonds is None else bonds
    names = tuple(f"B{i}" for i in range(n_beads))
    return BeadTopology(names, ("X",) * n_beads, tuple(range(n_beads)), (0,) * n_beads, (12.0,) * n_beads, bonds)


def _check(x, f, kelvin=300.0, bonds=None, weights=None, cells=None):
    checker = ForceChecker(_topology(x.shape[1], bonds), kelvin)
    for start in range(0, len(x), 700):  # as a reader gives them
        part = slice(start, start + 700)
        checker.add(
            x[part], f[part], None if weights is None else weights[part], None if cells is None else cells[part]
        )
    return checker.result()


def _chain(frames, n_beads, seed=0, correlation=0.0, stiffness=2.0):
    """Return exact samples of beads on springs without a rest length, with a correlation time in frames, and forces."""
    rng = np.random.default_rng(seed)
    kept = np.exp(-1 / correlation) if correlation else 0.0
    steps = np.sqrt(1 - kept**2) * rng.standard_normal((frames, n_beads - 1, 3))
    steps[0] /= np.sqrt(1 - kept**2)
    bonds = np.sqrt(KT / stiffness) * lfilter([1.0], [1.0, -kept], steps, axis=0)
    x = np.concatenate([np.zeros((frames, 1, 3)), np.cumsum(bonds, axis=1)], axis=1)
    f = np.zeros_like(x)
    f[:, :-1] += stiffness * bonds
    f[:, 1:] -= stiffness * bonds
    return x, f


def _stiff_chain(frames, n_beads=5, seed=0, rest=3.8, stiffness=400 * KT):
    """Return independent samples of a freely jointed chain of stiff bonds, exact, and forces."""
    rng = np.random.default_rng(seed)
    grid = rest + np.linspace(-6, 6, 4001) / np.sqrt(stiffness / KT)
    density = np.cumsum(grid**2 * np.exp(-stiffness / (2 * KT) * (grid - rest) ** 2))
    length = np.interp(rng.random((frames, n_beads - 1, 1)), density / density[-1], grid)
    direction = rng.standard_normal((frames, n_beads - 1, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    x = np.concatenate([np.zeros((frames, 1, 3)), np.cumsum(length * direction, axis=1)], axis=1)
    pull = stiffness * (length - rest) * direction
    f = np.zeros_like(x)
    f[:, :-1] += pull
    f[:, 1:] -= pull
    return x, f


@pytest.mark.parametrize(
    ("frames", "n_beads", "correlation"), [(200, 2, 0), (1000, 4, 0), (2000, 5, 10), (5000, 3, 50)]
)
def test_exact_forces_pass_in_95_percent_of_repetitions(frames, n_beads, correlation):
    found = [_check(*_chain(frames, n_beads, seed, correlation)) for seed in range(100)]
    p = np.array([check.p for check in found])
    assert (p < 0.05).sum() <= 12  # 5 expected; of 100 tries 12 or more in 0.4 %
    assert (p < 0.5).sum() >= 15  # and it is no test that always passes
    assert sum(check.verdict == "consistent" for check in found) >= 97
    assert not any(check.verdict == "inconsistent" for check in found)


def test_the_values_are_those_of_integration_by_parts():
    x, f = _chain(20_000, 4)
    found = _check(x, f)
    assert len(found.virials) == len(found.stretches) == 6
    for test in (*found.virials, *found.stretches):
        assert abs(test.value - 1) < 4.5 * test.error
        assert test.error < 0.05
    i, j = found.virials[0].beads
    by_hand = -((x[:, i] - x[:, j]) * f[:, i]).sum(1).mean() / (3 * KT)
    assert found.virials[0].value == pytest.approx(by_hand, rel=1e-9)
    ratio = found.stein_ratios[-1]
    u = (np.linalg.norm(x[:, :, None] - x[:, None], axis=-1) / ratio.reach) ** 2
    kernel = np.where(u < 1, (1 - u) ** 2, 0)
    g = np.einsum("fij,fija->fia", kernel, x[:, :, None] - x[:, None])
    shifted = x.copy()
    divergence, step = 0.0, 1e-5
    for bead in range(4):
        for axis in range(3):
            shifted[:, bead, axis] += step
            d = shifted[:, bead, None] - shifted
            v = np.maximum(0, 1 - (d**2).sum(-1) / ratio.reach**2) ** 2
            divergence += ((v * d[..., axis]).sum(1) - g[:, bead, axis]).mean() / step
            shifted[:, bead, axis] -= step
    assert ratio.value == pytest.approx(-(f * g).sum((1, 2)).mean() / (KT * divergence), rel=1e-3)
    assert abs(ratio.value - 1) < 4 * ratio.error


FAULTS = {
    "forces 10 % too large": lambda x, f: (x, 1.1 * f),
    "forces 10 % too small": lambda x, f: (x, 0.9 * f),
    "forces in kJ/mol for kcal/mol": lambda x, f: (x, 4.184 * f),
    "wrong sign": lambda x, f: (x, -f),
    "forces of the frame before": lambda x, f: (x, np.roll(f, 1, axis=0)),
    "forces of the bead before": lambda x, f: (x, np.roll(f, 1, axis=1)),
    "forces of one bead biased": lambda x, f: (x, f * np.where(np.arange(x.shape[1]) == 2, 1.3, 1.0)[:, None]),
    "positions in nm": lambda x, f: (x / 10, f),
    "coordinates swapped": lambda x, f: (x, f[..., [1, 0, 2]]),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("chain", [_chain, _stiff_chain])
def test_faults_are_found(fault, chain):
    x, f = FAULTS[fault](*chain(20_000, 5))
    found = _check(x, f)
    assert found.verdict in {"doubtful", "inconsistent"}
    assert found.p < 1e-6
    if chain is _chain or "10 %" not in fault:
        assert found.verdict == "inconsistent"


@pytest.mark.parametrize("kelvin", [260.0, 340.0])
def test_a_wrong_temperature_is_found(kelvin):
    for chain in (_chain, _stiff_chain):
        found = _check(*chain(20_000, 5), kelvin)
        assert found.verdict != "consistent"
        assert found.p < 1e-6
        assert np.mean([t.value for t in found.stretches]) == pytest.approx(300 / kelvin, abs=0.03)


def test_errors_that_cancel_in_the_sum_are_found_and_named():
    """One bond pulls too much, another too little: the virial of all beads is right."""
    x, f = _chain(20_000, 5)
    bonds = x[:, 1:] - x[:, :-1]
    wrong = f.copy()
    for bond, sign in ((0, 0.5), (3, -0.5)):
        wrong[:, bond] += 2.0 * sign * bonds[:, bond]
        wrong[:, bond + 1] -= 2.0 * sign * bonds[:, bond]
    centred = x - x.mean(1, keepdims=True)
    of_all = -(centred * wrong).sum((1, 2)) / (12 * KT)
    assert abs(of_all.mean() - 1) < 3 * of_all.std() / np.sqrt(len(x))
    found = _check(x, wrong)
    assert found.verdict == "inconsistent"
    said = found.sentence(_topology(5).names)
    assert "1.50 ±" in said or "1.49 ±" in said or "1.51 ±" in said
    assert "B0–B1 (beads 0 and 1)" in said or "B1–B0 (beads 1 and 0)" in said
    assert "B1–B2" not in said


def test_weights_make_a_flat_sample_the_density_of_its_forces():
    rng = np.random.default_rng(0)
    x = np.zeros((40_000, 2, 3))
    x[:, 1] = rng.uniform(-1, 1, (40_000, 3))
    k = 30 * KT
    f = np.zeros_like(x)
    f[:, 1] = -k * x[:, 1]
    f[:, 0] = -f[:, 1]
    weights = np.exp(-k * (x[:, 1] ** 2).sum(1) / (2 * KT))
    assert _check(x, f, weights=weights).verdict == "consistent"
    assert _check(x, f).verdict == "inconsistent"
    assert _check(x, f, weights=np.roll(weights, 1)).verdict == "inconsistent"
    # A thousand copies of each frame know no more than the frame; a few heavy frames are too few.
    heavy = np.zeros(40_000)
    heavy[::8000] = 1.0
    assert _check(x, f, weights=heavy).verdict == "undecided"


def _liquid(frames, side, skew, seed=0):
    """Return two beads without bonds in a periodic cell, exactly sampled, with forces, wrapped, and cells."""
    rng = np.random.default_rng(seed)
    cell = np.array([[side, 0, 0], [skew * side, side, 0], [-skew * side, skew * side, side]])
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = heights.min() / 2
    found = []
    while sum(map(len, found)) < frames:
        d = (rng.random((4 * frames, 3)) - 0.5) @ cell
        images = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]) @ cell
        r = np.linalg.norm(d[:, None] + images, axis=-1).min(1)
        energy = np.where(r < reach, 3 * (1 - (r / reach) ** 2) ** 2, 0)  # in kT, repulsive
        found.append(d[rng.random(len(d)) < np.exp(-energy)])
    d = np.concatenate(found)[:frames]
    nearest = (d[:, None] + images)[np.arange(frames), np.linalg.norm(d[:, None] + images, axis=-1).argmin(1)]
    r = np.linalg.norm(nearest, axis=1)
    push = np.where(r < reach, 12 * (1 - (r / reach) ** 2) / reach**2, 0)[:, None] * nearest * KT
    first = rng.random((frames, 3)) @ cell
    x = np.stack([first, first + d], axis=1)
    x = (x @ np.linalg.inv(cell) % 1) @ cell  # wrapped
    return x, np.stack([-push, push], axis=1), np.repeat(cell[None], frames, axis=0)


@pytest.mark.parametrize("skew", [0.0, 0.45])
def test_periodic_beads_without_bonds_are_checked_by_nearest_images(skew):
    x, f, cells = _liquid(40_000, 10.0, skew)
    found = _check(x, f, bonds=(), cells=cells)
    assert found.images
    assert found.verdict == "consistent"
    assert found.p is not None
    assert _check(x, 1.5 * f, bonds=(), cells=cells).verdict == "inconsistent"
    assert _check(x, -f, bonds=(), cells=cells).verdict == "inconsistent"
    blind = _check(x, f, bonds=())  # without a cell nobody knows which images were near
    assert blind.verdict == "undecided"


def test_few_frames_are_not_judged():
    x, f = _chain(120, 4)
    assert _check(x, 5 * f).verdict == "undecided"
    assert _check(x[:, :1], f[:, :1]).verdict == "undecided"
    x, f = _chain(300, 4)
    assert _check(x, 5 * f).verdict == "doubtful"  # told, and not refused


def test_more_frames_than_fit_are_thinned_and_keep_their_order():
    x, f = _chain(90_000, 3, correlation=5.0)
    found = _check(x, f)
    assert found.frames == pytest.approx(90_000 / 4, abs=100)  # every fourth, those at the end as those before
    assert found.verdict == "consistent"
    assert _check(x, 1.1 * f).verdict == "inconsistent"


def test_published_forces_of_alanine_dipeptide_are_inconsistent(shared):
    """Virials of bonded pairs, as measured before: N–C −0.04, C–N −0.10, C–CA +0.07 kcal/mol instead of −0.596."""
    folder = shared / "ala2_cg_forces"
    x = np.load(folder / "ala2_cacb_coordinates.npy").astype(float)
    f = np.load(folder / "ala2_cacb_forces.npy").astype(float) * KCAL_PER_MOL
    found = _check(x, f, bonds=ALA2_BONDS)
    values = {test.beads: -test.value * KT / KCAL_PER_MOL for test in found.virials}
    errors = [test.error * KT / KCAL_PER_MOL for test in found.virials]
    assert values[1, 0] == pytest.approx(-0.04, abs=0.01)
    assert values[0, 1] == pytest.approx(-0.10, abs=0.01)
    assert values[4, 2] == pytest.approx(0.07, abs=0.01)
    assert values[2, 4] == pytest.approx(-0.99, abs=0.01)
    assert all(0.1 < error < 0.22 for error in errors)
    assert found.verdict == "inconsistent"
    assert found.p < 1e-8
    assert found.stein_ratios[-1].value == pytest.approx(1.0, abs=0.1)  # the sum hides it
    x = np.load(folder / "ala2_coordinates.npy").astype(float)
    f = np.load(folder / "ala2_forces.npy").astype(float) * KCAL_PER_MOL
    assert _check(x, f).verdict == "inconsistent"


def test_published_forces_of_chignolin_are_inconsistent(shared):
    folder = shared / "chignolin_ca_forces"
    x = np.load(folder / "chignolin_ca_coords.npy").astype(float)
    f = np.load(folder / "chignolin_ca_forces.npy").astype(float) * KCAL_PER_MOL
    found = _check(x, f, 350.0)
    assert found.verdict == "inconsistent"
    ratio = found.stein_ratios[1]
    assert ratio.value > 1 + 5 * ratio.error
    assert np.mean([test.value for test in found.virials]) > 1.5


def test_the_forces_of_the_demo_pass(example_data):
    with h5py.File(example_data / "ala2_all_atom.h5") as file:
        x, f = file["coordinates"][:].astype(float) * 10, file["forces"][:].astype(float) * KCAL_PER_MOL / 41.84
    beads = [4, 6, 8, 10, 14, 16]
    found = _check(x[:, beads], f[:, beads], bonds=ALA2_BONDS)
    assert found.verdict == "consistent"
    assert found.p > 0.05
    assert np.mean([test.value for test in found.stretches]) == pytest.approx(1, abs=0.02)
    # With so many frames 10 % is seen.
    assert _check(x[:, beads], 1.1 * f[:, beads], bonds=ALA2_BONDS).verdict == "doubtful"
    assert _check(x[:, beads], f[:, beads], 330.0, bonds=ALA2_BONDS).verdict == "doubtful"


def test_optimal_maps_of_forces_with_rigid_bonds_pass_and_slices_do_not(shared):
    with np.load(shared / "ala2_all_atom_forces" / "ala2_all_atom.npz") as file:
        x, f = file["coords"].astype(float), file["forces"].astype(float) * KCAL_PER_MOL
    beads = [4, 6, 8, 14, 16]
    groups = [[0, 1, 2, 3], [6, 7], [8, 9], [10, 11, 12, 13], [16, 17], [18, 19, 20, 21]]
    coordinate_map = np.eye(22)[beads]
    mapped = np.einsum("na,fax->fnx", optimal_force_map(f, coordinate_map, groups), f)
    assert _check(x[:, beads], mapped).verdict == "consistent"
    assert _check(x[:, beads], f[:, beads]).verdict == "doubtful"  # 2000 frames; N is held by a rigid bond


def test_large_molecules_are_checked_at_some_of_their_beads():
    x, f = _chain(500, 900)
    found = _check(x, f)
    assert found.verdict == "consistent"
    beads = {test.bead for test in found.stein}
    assert {0, 899} <= beads
    assert 50 <= len(beads) < 200
    assert len(found.virials) == 2 * 899
    wrong = _check(x, 1.5 * f)
    assert wrong.verdict == "inconsistent"


def _map(tmp_path, x, f, cells=None):
    """Map positions and forces of Cα atoms: of one chain, or, with cells, each in a chain of its own."""
    lines = []
    for i in range(x.shape[1]):
        chain = "A" if cells is None else "ABCDEFGH"[i]
        place = f"{3.8 * i:8.3f}   0.000   0.000"
        lines.append(f"ATOM  {i + 1:5d}  CA  ALA {chain}{i + 1:4d}    {place}  1.00  0.00           C")
        lines += ["TER"] if cells is not None else []
    (tmp_path / "t.pdb").write_text("\n".join([*lines, "END", ""]))
    np.savez(tmp_path / "x.npz", positions=x, forces=f / KCAL_PER_MOL, **({} if cells is None else {"cells": cells}))
    return map_trajectory(
        tmp_path / "x.npz",
        tmp_path / "d.h5",
        topology=tmp_path / "t.pdb",
        resolution="calpha",
        temperature=300,
        length_unit="Å",
        force_unit="kcal/mol/Å",
        overwrite=True,
        quiet=True,
    )


def _info(path, capsys):
    described = describe(path)
    show_info(described)
    return described["molecules"]["molecule"], " ".join(capsys.readouterr().out.split())


def test_map_warns_and_keeps_what_it_found_and_info_shows_it(tmp_path, capsys):
    x, f = _stiff_chain(4000)
    path = _map(tmp_path, x, f)
    molecule, shown = _info(path, capsys)
    assert molecule["force_map_report"]["check"]["verdict"] == "consistent"
    assert molecule["force_check"]["verdict"] == "consistent"
    assert molecule["warnings"] == []
    assert "forces are consistent with positions at 300 K" in shown
    said = r"'molecule' do not belong .* for ALA–ALA \(beads 2 and \d\).* force map 'optimal' .* temperature, .* units"
    with pytest.warns(UserWarning, match=said):
        _map(tmp_path, x, FAULTS["forces of one bead biased"](x, f)[1])
    molecule, shown = _info(path, capsys)
    assert molecule["force_map_report"]["check"]["verdict"] == "inconsistent"
    assert any("do not belong to the density" in warning for warning in molecule["warnings"])
    assert "forces are inconsistent with positions" in shown
    assert "warning: forces of molecule 'molecule' do not belong" in shown


def test_a_periodic_liquid_is_judged_by_what_its_mapping_found(tmp_path, capsys):
    """The dataset has no cell; the mapping had one."""
    x, f, cells = _liquid(20_000, 10.0, 0.3)
    with pytest.warns(UserWarning, match="Stein"):
        path = _map(tmp_path, x, 2 * f, cells)
    with Dataset.open(path) as dataset:
        assert check_forces(dataset.only_molecule()).verdict == "undecided"
        assert known_check(dataset.only_molecule()).verdict == "inconsistent"
    assert "forces are inconsistent" in _info(path, capsys)[1]
    with Dataset.open(_map(tmp_path, x, f, cells)) as dataset:
        assert known_check(dataset.only_molecule()).verdict == "consistent"
