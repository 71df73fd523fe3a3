"""Every kind of prior: its formula, its forces, its fit, its file; finite where it must be."""

import mdtraj
import numpy as np
import pytest
import torch

from ase_cg import Dataset, InputError, PriorSet
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import topology_graph
from ase_cg.models.base import energy_and_forces
from ase_cg.models.priors import PRIORS
from ase_cg.models.priors.dihedrals import Dihedrals
from ase_cg.models.priors.repulsion import ExcludedVolume, Repulsion
from ase_cg.units import thermal_energy

KT = thermal_energy(300.0)
NAMES = ("A", "B", "A", "B", "A", "A")
CHAIN = BeadTopology(NAMES, NAMES, tuple(range(1, 7)), (0,) * 6, (12.0,) * 6, tuple((i, i + 1) for i in range(5)))
VOCABULARY = ("A", "B")
ALL = [
    "bonds",
    "angles",
    "cosine_angles",
    "restricted_bending",
    "dihedrals",
    "repulsion",
    "excluded_volume",
    "polynomial_angles",
    "polynomial_cosine_angles",
    "cutoff_repulsion",
    "exponential_repulsion",
]


def _chain_frames(count=3000, seed=0):
    """Chains with bonds of 3.8 ± 0.1 Å, angles of 1.9 ± 0.15 rad and two dihedral basins."""
    rng = np.random.default_rng(seed)
    x = np.zeros((count, 6, 3))
    x[:, 1] = [3.8, 0, 0]
    for bead in range(2, 6):
        r = 3.8 + 0.1 * rng.standard_normal(count)
        theta = 1.9 + 0.15 * rng.standard_normal(count)
        phi = np.where(rng.random(count) < 0.7, -1.2, 2.2) + 0.3 * rng.standard_normal(count)
        b = x[:, bead - 1] - x[:, bead - 2]
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
        a = x[:, bead - 2] - (x[:, bead - 3] if bead > 2 else np.array([0.3, -1.0, 0.4]))
        n = np.cross(a, b)
        n = n / np.linalg.norm(n, axis=1, keepdims=True)
        m = np.cross(n, b)
        step = -np.cos(theta)[:, None] * b + np.sin(theta)[:, None] * (
            np.cos(phi)[:, None] * m + np.sin(phi)[:, None] * n
        )
        x[:, bead] = x[:, bead - 1] + r[:, None] * step
    x[:, 1, 0] += 0.1 * rng.standard_normal(count)
    return x


@pytest.fixture(scope="module")
def frames():
    return _chain_frames()


@pytest.fixture(scope="module")
def fitted(frames):
    return PriorSet.fit_positions(frames, CHAIN, ALL, vocabulary=VOCABULARY, kT=KT)


def _graph(x, topology=CHAIN):
    graph = topology_graph(topology, VOCABULARY, len(x))
    return graph._replace(positions=torch.tensor(x, dtype=torch.float64).reshape(-1, 3))


@pytest.mark.parametrize("name", ALL)
def test_forces_are_the_negative_gradient_and_sum_to_zero(name, fitted, frames):
    term = PRIORS[name].from_tensors(
        {k: v.double() if v.is_floating_point() else v for k, v in fitted.terms[name].state_dict().items()},
        fitted.terms[name].settings,
        2,
    )
    x = frames[:1] * (0.8 if "repulsion" in name else 1.0)
    topology = CHAIN
    if name == "excluded_volume":  # two chains in contact
        topology = BeadTopology(
            NAMES, NAMES, tuple(range(6)), (0, 0, 0, 1, 1, 1), (12.0,) * 6, ((0, 1), (1, 2), (3, 4), (4, 5))
        )
    energy, forces = energy_and_forces(term, _graph(x, topology))
    assert abs(float(energy)) > 1e-8
    assert forces.sum(0).abs().max() < 1e-9
    step = 1e-5
    for bead, axis in ((0, 0), (2, 1), (3, 2), (5, 0)):
        moved = []
        for sign in (1, -1):
            y = x.copy()
            y[0, bead, axis] += sign * step
            moved.append(float(term(_graph(y, topology))))
        numeric = -(moved[0] - moved[1]) / (2 * step)
        assert float(forces[bead, axis]) == pytest.approx(numeric, rel=1e-5, abs=1e-8)


def test_dihedral_angles_are_those_of_mdtraj(frames):
    values = Dihedrals.internal_coordinate(_graph(frames[:20])).reshape(20, -1).numpy()
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(6):
        topology.add_atom("CA", mdtraj.element.carbon, topology.add_residue("ALA", chain))
    trajectory = mdtraj.Trajectory(frames[:20] / 10, topology)
    wanted = mdtraj.compute_dihedrals(trajectory, list(CHAIN.dihedrals), periodic=False)
    assert np.abs(np.angle(np.exp(1j * (values - wanted)))).max() < 1e-4


def test_the_dihedral_series_has_the_basins_of_the_data(frames):
    priors = PriorSet.fit_positions(
        frames, CHAIN, [{"name": "dihedrals", "order": 6, "generic": True}], vocabulary=VOCABULARY, kT=KT
    )
    term = priors.terms["dihedrals"]
    assert term.types.tolist() == [[-1, -1, -1, -1]]
    phi = np.linspace(-np.pi, np.pi, 721)
    n = np.arange(1, 7)
    k, gamma = term.amplitudes[0].numpy(), term.phases[0].numpy()
    energy = (k * (1 + np.cos(n * phi[:, None] - gamma))).sum(1)
    low, high = phi[:400][energy[:400].argmin()], phi[400:][energy[400:].argmin()]
    assert low == pytest.approx(-1.2, abs=0.1)
    assert high == pytest.approx(2.2, abs=0.15)
    # 70 to 30 per cent, of equal width: kT ln(7/3).
    assert energy[400:].min() - energy[:400].min() == pytest.approx(KT * np.log(7 / 3), rel=0.35)


def test_harmonic_forms_agree_near_their_minimum(frames):
    values = {name: PriorSet.fit_positions(frames, CHAIN, [name], vocabulary=VOCABULARY, kT=KT) for name in ALL[1:4]}
    near = frames[:200]
    energies = {name: priors(_graph(near)).numpy() for name, priors in values.items()}
    for name in ("cosine_angles", "restricted_bending"):
        assert np.corrcoef(energies["angles"], energies[name])[0, 1] > 0.97
    # Equipartition: 4 angles, half a kT each.
    for name in ("angles", "cosine_angles"):
        assert energies[name].mean() == pytest.approx(2 * KT, rel=0.15)


def test_restricted_bending_keeps_angles_from_becoming_straight(fitted):
    straight = np.zeros((1, 6, 3))
    straight[0, :, 0] = 3.8 * np.arange(6)
    bent = straight.copy()
    bent[0, 1::2, 1] = 0.2
    energies = [float(fitted.terms["restricted_bending"](_graph(x))) for x in (bent, straight)]
    assert energies[1] > 20 * energies[0] > 20
    for name in ALL:
        _, forces = energy_and_forces(fitted.terms[name], _graph(straight))
        assert torch.isfinite(forces).all(), name


def test_repulsion_costs_nothing_where_the_data_live_and_leaves_bonded_neighbours_out(fitted, frames):
    repulsion = fitted.terms["repulsion"]
    energy = repulsion(_graph(frames[:500])).numpy()
    assert energy.mean() < 1.5 * KT
    close = frames[:1].copy()
    close[0, 5] = close[0, 0] + 0.5 * (close[0, 5] - close[0, 0]) / np.linalg.norm(close[0, 5] - close[0, 0])
    assert float(repulsion(_graph(close))) > 100 * KT
    # Bonds and angles (two bonds) are excluded: of three beads nothing is left.
    three = BeadTopology(NAMES[:3], NAMES[:3], (1, 2, 3), (0,) * 3, (12.0,) * 3, ((0, 1), (1, 2)))
    assert float(repulsion(_graph(frames[:1, :3], three))) == 0.0
    exact = Repulsion(torch.full((2, 2), 3.0, dtype=torch.float64), 6, 2, None)
    x = np.zeros((1, 6, 3))
    x[0, :, 0] = 4.0 * np.arange(6)
    pairs = [(i, j) for i in range(6) for j in range(i + 3, 6)]
    assert float(exact(_graph(x))) == pytest.approx(sum((3.0 / (4.0 * (j - i))) ** 6 for i, j in pairs), rel=1e-12)


def test_excluded_volume_acts_between_chains_only(fitted):
    term = fitted.terms["excluded_volume"]
    assert isinstance(term, ExcludedVolume)
    x = np.zeros((1, 6, 3))
    x[0, :3, 0] = x[0, 3:, 0] = [0, 3.8, 7.6]
    x[0, 3:, 1] = 2.0
    one = float(term(_graph(x)))
    bonds = ((0, 1), (1, 2), (3, 4), (4, 5))
    two_chains = BeadTopology(NAMES, NAMES, tuple(range(6)), (0, 0, 0, 1, 1, 1), (12.0,) * 6, bonds)
    two = float(term(_graph(x, two_chains)))
    assert one == 0.0
    assert two > KT


def test_energies_and_forces_are_continuous_at_the_cutoff_of_repulsion():
    term = Repulsion(torch.full((2, 2), 8.0, dtype=torch.float64), 6, 1, 9.0)
    pair = BeadTopology(("A", "A"), ("A", "A"), (1, 2), (0, 1), (1.0, 1.0), ())
    for distance in (9.0 * 0.8, 9.0):
        below, above = (
            energy_and_forces(term, _graph(np.array([[[0, 0, 0], [distance + s, 0, 0]]]), pair)) for s in (-1e-7, 1e-7)
        )
        assert float(below[0] - above[0]) == pytest.approx(0, abs=1e-6)
        assert (below[1] - above[1]).abs().max() < 1e-5


def test_rare_types_take_generic_parameters_and_are_counted(frames):
    rare = BeadTopology(("A", "B", "A", "B", "A", "C"), ("A",) * 6, tuple(range(6)), (0,) * 6, (12.0,) * 6, CHAIN.bonds)
    vocabulary = ("A", "B", "C")
    with pytest.warns(UserWarning, match=r"'bonds' takes generic parameters for 1 kinds .*: A–C \(30\)"):
        priors = PriorSet.fit_positions(frames[:30].repeat(1, 0), rare, ["bonds"], vocabulary=vocabulary, kT=KT)
    bonds = priors.terms["bonds"]
    lengths = np.linalg.norm(np.diff(frames[:30], axis=1), axis=-1)
    generic = bonds.types.tolist().index([-1, -1])
    assert float(bonds.equilibrium[generic]) == pytest.approx(lengths.mean(), rel=1e-6)
    # A molecule with bonds that no data showed is held by them too.
    unseen = BeadTopology(("C", "C"), ("C", "C"), (1, 2), (0, 0), (1.0, 1.0), ((0, 1),))
    graph = topology_graph(unseen, vocabulary)._replace(positions=torch.tensor([[0.0, 0, 0], [5.0, 0, 0]]))
    assert float(priors(graph)) == pytest.approx(
        float(bonds.stiffness[generic] * (5 - bonds.equilibrium[generic]) ** 2), rel=1e-5
    )


def test_directed_bonds_tell_a_sequence_from_its_reverse():
    rng = np.random.default_rng(0)
    x = np.zeros((200, 3, 3))
    x[:, 1, 0] = 3.0 + 0.1 * rng.standard_normal(200)
    x[:, 2, 0] = x[:, 1, 0] + 5.0 + 0.1 * rng.standard_normal(200)
    three = BeadTopology(("A", "B", "A"), ("A", "B", "A"), (1, 2, 3), (0,) * 3, (12.0,) * 3, ((0, 1), (1, 2)))
    directed = PriorSet.fit_positions(
        x, three, [{"name": "bonds", "directed": True}], vocabulary=VOCABULARY, kT=KT
    ).terms["bonds"]
    rows = {tuple(row["types"]): row["equilibrium"] for row in directed.parameters_by_type()}
    assert rows[0, 1] == pytest.approx(3.0, abs=0.05)
    assert rows[1, 0] == pytest.approx(5.0, abs=0.05)
    assert directed.settings == {"directed": True}


def test_scale_multiplies_the_energy(frames):
    whole, half = (
        PriorSet.fit_positions(frames, CHAIN, [{"name": "dihedrals", "scale": s}], vocabulary=VOCABULARY, kT=KT)
        for s in (1.0, 0.5)
    )
    graph = _graph(frames[:5])
    assert half(graph).numpy() == pytest.approx(0.5 * whole(graph).numpy(), rel=1e-5)


def test_priors_survive_their_readable_file(fitted, frames, tmp_path):
    fitted.to_yaml(tmp_path / "p.yaml", VOCABULARY)
    text = (tmp_path / "p.yaml").read_text()
    assert "kcal/mol" in text
    assert "beads: [A, B]" in text
    again = PriorSet.from_yaml(tmp_path / "p.yaml", VOCABULARY)
    assert list(again.terms) == list(fitted.terms)
    graph = _graph(frames[:10])
    assert again(graph).numpy() == pytest.approx(fitted(graph).numpy(), rel=1e-6)
    # Of another order of types, the names decide.
    swapped = PriorSet.from_yaml(tmp_path / "p.yaml", ("B", "A"))
    other = topology_graph(CHAIN, ("B", "A"), 10)._replace(positions=graph.positions)
    assert swapped(other).numpy() == pytest.approx(fitted(graph).numpy(), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("format: ase-cg priors", "format: x"), "no file of priors"),
        (("  bonds:", "  bands:"), "unknown prior 'bands'; did you mean 'bonds'"),
        (("energy: kcal/mol", "energy: kJ/mol"), "declares other units"),
        (("beads: [A, B]", "beads: [A, Q]"), "bead 'Q' is not in the vocabulary"),
        (("stiffness:", "stifness:"), "parameters of prior 'bonds' are damaged"),
        (("stiffness: ", "stiffness: .nan #"), "no numbers"),
    ],
)
def test_damaged_files_of_priors_are_one_sentence(change, message, fitted, tmp_path):
    fitted.to_yaml(tmp_path / "p.yaml", VOCABULARY)
    text = (tmp_path / "p.yaml").read_text()
    assert change[0] in text
    if "nan" in change[1]:
        import re

        text = re.sub(r"stiffness: [0-9.e-]+", "stiffness: .nan", text, count=1)
    else:
        text = text.replace(*change, 1)
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        PriorSet.from_yaml(tmp_path / "p.yaml", VOCABULARY)


def test_wrong_options_are_named(frames):
    for spec, message in (
        ({"name": "dihedrals", "ordr": 2}, "ordr is no key of a prior; did you mean 'order'"),
        ({"name": "dihedrals", "order": 0}, "order cannot be 0"),
        ({"name": "bonds", "scale": -1}, "scale cannot be -1"),
        ("repulsions", "did you mean 'repulsion'"),
        (3, "a prior is a name"),
    ):
        with pytest.raises(InputError, match=message):
            PriorSet.fit_positions(frames, CHAIN, [spec], vocabulary=VOCABULARY, kT=KT)


def test_several_molecules_share_the_parameters_of_their_types(frames, tmp_path):
    from ase_cg.data.dataset_writer import create_dataset

    short = BeadTopology(NAMES[:3], NAMES[:3], (1, 2, 3), (0,) * 3, (12.0,) * 3, ((0, 1), (1, 2)))
    with create_dataset(tmp_path / "d.h5") as dataset:
        for name, topology, x in (("long", CHAIN, frames), ("short", short, 1.1 * frames[:, :3])):
            with dataset.molecule(name, topology, temperature=300.0, resolution="calpha") as molecule:
                molecule.append(x)
    with Dataset.open(tmp_path / "d.h5") as dataset:
        bonds = PriorSet.fit(dataset, ["bonds"], vocabulary=VOCABULARY).terms["bonds"]
    rows = {tuple(row["types"]): row["equilibrium"] for row in bonds.parameters_by_type()}
    lengths = np.linalg.norm(np.diff(frames, axis=1), axis=-1)
    pooled = np.concatenate([lengths[:, :4].ravel(), 1.1 * lengths[:, :2].ravel()])
    assert rows[0, 1] == pytest.approx(pooled.mean(), rel=1e-4)


def test_weighted_frames_count_by_their_weight(frames, tmp_path):
    from ase_cg.data.dataset_writer import create_dataset

    with create_dataset(tmp_path / "d.h5") as dataset:
        options = {"temperature": 300.0, "resolution": "calpha", "weighted": True}
        with dataset.molecule("m", CHAIN, **options) as molecule:
            molecule.append(np.concatenate([frames, 2 * frames]), weights=np.repeat([3.0, 0.0], len(frames)))
    with Dataset.open(tmp_path / "d.h5") as dataset:
        weighted = PriorSet.fit(dataset, ["bonds"], vocabulary=VOCABULARY).terms["bonds"]
    alone = PriorSet.fit_positions(frames, CHAIN, ["bonds"], vocabulary=VOCABULARY, kT=KT).terms["bonds"]
    assert weighted.equilibrium.tolist() == pytest.approx(alone.equilibrium.tolist(), rel=1e-6)
    assert weighted.stiffness.tolist() == pytest.approx(alone.stiffness.tolist(), rel=1e-5)
