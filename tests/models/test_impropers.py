"""Impropers: which quadruples, their angle, forces, hands, fits, files, periodic images and compiled form."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch

from ase_cg import InputError, PriorSet
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import concatenate, topology_graph
from ase_cg.inference.dense import DenseModel
from ase_cg.models.base import energy_and_forces
from ase_cg.models.model import CGModel, ModelCard
from ase_cg.models.priors.impropers import Impropers, PeriodicImpropers
from ase_cg.models.priors.quadruples import find_quadruples
from ase_cg.units import thermal_energy

KT = thermal_energy(300.0)
KINDS = {"impropers": Impropers, "periodic_impropers": PeriodicImpropers}
RESIDUES = ("ALA", "SER", "ALA")
ATOMS = ("N", "CA", "CB", "C", "O")


def peptide(order=ATOMS) -> BeadTopology:
    """Three residues of five beads, the beads of each residue in some order."""
    place = {(r, atom): 5 * r + order.index(atom) for r in range(3) for atom in ATOMS}
    pairs = [("N", "CA"), ("CA", "CB"), ("CA", "C"), ("C", "O")]
    bonds = [(place[r, a], place[r, b]) for r in range(3) for a, b in pairs]
    bonds += [(place[r, "C"], place[r + 1, "N"]) for r in range(2)]
    return BeadTopology(
        names=tuple(f"{RESIDUES[r]}:{atom}" for r in range(3) for atom in order),
        residue_names=tuple(np.repeat(RESIDUES, 5)),
        residue_numbers=tuple(int(r) for r in np.repeat([1, 2, 3], 5)),
        chains=(0,) * 15,
        masses=(12.0,) * 15,
        bonds=tuple(sorted(tuple(sorted(bond)) for bond in bonds)),
    )


PEPTIDE = peptide()
VOCABULARY = tuple(sorted(set(PEPTIDE.names)))


def shaken(count=400, spread=0.06, seed=0) -> np.ndarray:
    """Frames (count, 15, 3) in Å around an extended L-peptide."""
    residue = np.array([[0.0, 0, 0], [1.2, 0.8, 0.1], [1.1, 1.6, 1.4], [2.5, 0.1, 0.0], [2.6, -1.1, 0.0]])
    turned = residue * [1, -1, -1]  # about x, by 180°: of the same hand
    ideal = np.concatenate([residue, turned + np.array([3.6, 0.9, 0]), residue + np.array([7.2, 0, 0])])
    return ideal + spread * np.random.default_rng(seed).standard_normal((count, 15, 3))


def graph_of(x, topology=PEPTIDE, vocabulary=VOCABULARY):
    x = np.atleast_3d(x).reshape(-1, topology.n_beads, 3)
    graph = topology_graph(topology, vocabulary, len(x))
    return graph._replace(positions=torch.tensor(x, dtype=torch.float64).reshape(-1, 3))


def fitted(name, x=None, **options) -> Impropers:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec = {"name": name, **options}
        priors = PriorSet.fit_positions(shaken() if x is None else x, PEPTIDE, [spec], vocabulary=VOCABULARY, kT=KT)
    return priors.terms[name].double()


def angle(x, quadruple):
    """The dihedral angle of four beads in rad, by its definition: IUPAC sign."""
    a, b, c, d = (x[..., bead, :] for bead in quadruple)
    first, axis, last = b - a, c - b, d - c
    n1, n2 = np.cross(first, axis), np.cross(axis, last)
    axis = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    return np.arctan2((np.cross(n1, n2) * axis).sum(-1), (n1 * n2).sum(-1))


def names_of(quadruples, topology=PEPTIDE):
    return {tuple(topology.names[bead] for bead in four) for four in quadruples.T.tolist()}


def test_every_bead_with_three_neighbours_is_a_centre_in_the_order_of_mlcg():
    """(N, CB, C, CA) and (CA, O, +N, C), whatever the order of beads in the file and of names in the vocabulary."""
    expected = {(f"{r}:N", f"{r}:CB", f"{r}:C", f"{r}:CA") for r in ("ALA", "SER")}
    expected |= {("ALA:CA", "ALA:O", "SER:N", "ALA:C"), ("SER:CA", "SER:O", "ALA:N", "SER:C")}
    for topology in (PEPTIDE, peptide(("O", "C", "CB", "N", "CA"))):
        for vocabulary in (VOCABULARY, VOCABULARY[::-1]):
            found = find_quadruples(topology_graph(topology, vocabulary), vocabulary)
            assert found.shape == (4, 5)
            assert names_of(found, topology) == expected
    copies = find_quadruples(topology_graph(PEPTIDE, VOCABULARY, 3), VOCABULARY)
    alone = find_quadruples(topology_graph(PEPTIDE, VOCABULARY), VOCABULARY)
    assert torch.equal(copies, torch.cat([alone + 15 * copy for copy in range(3)], 1))
    # Four neighbours give four quadruples; a chain of beads none.
    star = BeadTopology(("A",) * 5, ("A",) * 5, (1,) * 5, (0,) * 5, (1.0,) * 5, ((0, 2), (1, 2), (2, 3), (2, 4)))
    four = find_quadruples(topology_graph(star, ("A",)), ("A",))
    assert sorted(map(tuple, four.T.tolist())) == [(0, 1, 3, 2), (0, 1, 4, 2), (0, 3, 4, 2), (1, 3, 4, 2)]
    chain = dataclasses.replace(star, bonds=((0, 1), (1, 2), (2, 3), (3, 4)))
    assert find_quadruples(topology_graph(chain, ("A",)), ("A",)).shape == (4, 0)


def test_listed_quadruples_are_those_and_no_others_in_their_order():
    graph = topology_graph(PEPTIDE, VOCABULARY)

    def listed(*names):
        found = find_quadruples(graph, VOCABULARY, [names])
        return [tuple(four) for four in found.T.tolist()]

    assert listed("N", "CB", "C", "CA") == [(0, 2, 3, 1), (5, 7, 8, 6), (10, 12, 13, 11)]
    assert listed("C", "N", "CB", "CA") == [(3, 0, 2, 1), (8, 5, 7, 6), (13, 10, 12, 11)]
    assert listed("CA", "O", "+N", "C") == [(1, 4, 5, 3), (6, 9, 10, 8)]
    assert listed("ALA:N", "*", "C", "ALA:CA") == [(0, 2, 3, 1), (10, 12, 13, 11)]
    # A chain: the peptide bond, read as it is listed, from either end.
    assert listed("CA", "C", "+N", "+CA") == [(1, 3, 5, 6), (6, 8, 10, 11)]
    assert listed("CA", "N", "C", "CA") == [(6, 5, 3, 1), (11, 10, 8, 6)]
    assert listed("N", "O", "CB", "CA") == []
    both = find_quadruples(graph, VOCABULARY, [("N", "CB", "C", "CA"), ("CA", "C", "N", "CA"), ("N", "CB", "C", "CA")])
    assert both.shape == (4, 5)
    # Of equal neighbours each quadruple comes once.
    star = BeadTopology(("A",) * 4, ("A",) * 4, (1,) * 4, (0,) * 4, (1.0,) * 4, ((0, 3), (1, 3), (2, 3)))
    assert find_quadruples(topology_graph(star, ("A",)), ("A",), [("A", "*", "A", "A")]).shape == (4, 1)


@pytest.mark.parametrize("name", KINDS)
def test_energies_are_those_of_the_formula(name):
    """With the angle computed anew from its definition, near and across ±π."""
    x = shaken(5, 0.15, seed=3)
    term = fitted(name)
    found = term(graph_of(x)).numpy()
    quadruples = find_quadruples(topology_graph(PEPTIDE, VOCABULARY), VOCABULARY).T.tolist()
    rows = {tuple(row["types"]): row for row in term.parameters_by_type()}
    total = 0.0
    for four in quadruples:
        row = rows[tuple(VOCABULARY.index(PEPTIDE.names[bead]) for bead in four)]
        difference = angle(x, four) - row["equilibrium"]
        wrapped = np.angle(np.exp(1j * difference))
        shape = wrapped**2 if name == "impropers" else 2 * (1 - np.cos(difference))
        total = total + row["stiffness"] * shape
    assert found == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("options", [{}, {"quadruples": [["CA", "C", "+N", "+CA"], ["C", "CB", "N", "CA"]]}])
def test_forces_are_the_negative_gradient_and_turn_with_the_molecule(name, options):
    term = fitted(name, **options)
    x = shaken(1, 0.3, seed=5)
    energy, forces = energy_and_forces(term, graph_of(x))
    assert float(energy) > KT
    assert forces.sum(0).abs().max() < 1e-9
    step = 1e-5
    for bead in range(15):
        for axis in range(3):
            ends = []
            for sign in (1, -1):
                y = x.copy()
                y[0, bead, axis] += sign * step
                ends.append(float(term(graph_of(y))))
            assert float(forces[bead, axis]) == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-5, abs=1e-7)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    turned, turned_forces = energy_and_forces(term, graph_of(x @ rotation.T + [3.0, -20.0, 7.0]))
    assert float(turned) == pytest.approx(float(energy), rel=1e-9)
    assert np.allclose(turned_forces.numpy(), forces.numpy() @ rotation.T, atol=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_the_mirror_image_costs_what_flat_beads_do_not(name):
    """A Cα of the other hand costs tens of kT; the peptide plane, which is its own mirror image, stays as it was."""
    term = fitted(name, quadruples=[["N", "CB", "C", "CA"]])
    flat = fitted(name, quadruples=[["CA", "O", "+N", "C"]])
    x = shaken(50, seed=8)
    mirrored = x * [1, 1, -1]
    assert float((term(graph_of(mirrored)) - term(graph_of(x))).min()) > 20 * KT
    assert float((flat(graph_of(mirrored)) - flat(graph_of(x))).abs().mean()) < 2 * KT
    # Two exchanged neighbours are the other hand as well.
    swapped = x.copy()
    swapped[:, [0, 3]] = x[:, [3, 0]]
    assert float((term(graph_of(swapped)) - term(graph_of(x))).min()) > 20 * KT


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("mean", [0.6, -2.0, np.pi, -np.pi + 0.02])
@pytest.mark.parametrize("spread", [0.05, 0.3])
def test_the_fit_finds_mean_and_variance_on_the_circle(name, mean, spread):
    """Also across ±π, where the plain mean is 0 and the plain variance π²."""
    samples = np.angle(np.exp(1j * (mean + spread * np.random.default_rng(2).standard_normal(20_000))))
    found = KINDS[name].fit_one(samples, KT, None)
    off = np.angle(np.exp(1j * (found["equilibrium"] - mean)))
    assert abs(off) < 4 * spread / np.sqrt(20_000)
    assert -np.pi <= found["equilibrium"] <= np.pi
    # A Gaussian's 1 − R is σ²/2 − σ⁴/8, to which von Mises's κ has a share of σ²/2 of its own.
    accuracy = 0.04 if name == "impropers" else 0.04 + spread**2
    assert found["stiffness"] == pytest.approx(KT / (2 * spread**2), rel=accuracy)


@pytest.mark.parametrize("kappa", [0.3, 2.0, 40.0])
def test_the_periodic_fit_gives_back_its_own_distribution(kappa):
    """Samples of exp(−U/kT) with known k; broad ones included, for which deviations are no variance."""
    samples = np.random.default_rng(3).vonmises(2.8, kappa, 200_000)
    found = PeriodicImpropers.fit_one(samples, KT, None)
    assert found["stiffness"] == pytest.approx(kappa * KT / 2, rel=0.02)
    assert np.cos(found["equilibrium"] - 2.8) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_fitted_impropers_of_frames_cost_half_the_thermal_energy_each(name):
    """Equipartition, over seven quadruples; those along the peptide bond on both sides of ±π."""
    x = shaken(4000, 0.04)
    omega = ["CA", "C", "+N", "+CA"]
    term = fitted(name, x, quadruples=[["N", "CB", "C", "CA"], ["CA", "O", "+N", "C"], omega])
    planes = angle(x, (1, 3, 5, 6))
    assert planes.min() < -3 < 3 < planes.max()
    assert float(term(graph_of(x)).mean()) == pytest.approx(3.5 * KT, rel=0.03)


def test_few_samples_take_the_parameters_of_the_same_atoms():
    """One SER in thirty frames: as all Cα, not as a mean over Cα and peptide planes."""
    term = fitted("impropers", shaken(30))
    rows = {tuple(VOCABULARY[t] for t in row["types"]): row for row in term.parameters_by_type() if row["types"]}
    serine, alanine = (rows[tuple(f"{r}:{atom}" for atom in ("N", "CB", "C", "CA"))] for r in ("SER", "ALA"))
    x = shaken(30)
    pooled = np.concatenate([angle(x, (5 * r, 5 * r + 2, 5 * r + 3, 5 * r + 1)) for r in range(3)])
    assert serine["equilibrium"] == pytest.approx(pooled.mean(), abs=1e-5)
    alone = np.concatenate([angle(x, (5 * r, 5 * r + 2, 5 * r + 3, 5 * r + 1)) for r in (0, 2)])
    assert alanine["equilibrium"] == pytest.approx(alone.mean(), abs=1e-5)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("options", [{}, {"quadruples": [["N", "CB", "C", "CA"]], "scale": 0.5}])
def test_files_keep_them_and_other_orders_of_the_vocabulary_are_read(name, options, tmp_path):
    term = fitted(name, **options)
    x = shaken(5, 0.2, seed=9)
    expected = term(graph_of(x)).numpy()
    priors = PriorSet([term], VOCABULARY)
    priors.to_yaml(tmp_path / "p.yaml", VOCABULARY)
    assert "vocabulary" not in (tmp_path / "p.yaml").read_text()
    import yaml

    row = yaml.safe_load((tmp_path / "p.yaml").read_text())["priors"][name]["parameters"][0]
    assert row["equilibrium"] == pytest.approx(np.degrees(float(term.equilibrium[0])), rel=1e-6)
    turned = VOCABULARY[::-1]
    again = PriorSet.from_yaml(tmp_path / "p.yaml", turned)
    assert again(graph_of(x, vocabulary=turned)).numpy() == pytest.approx(expected, rel=1e-6)
    model = CGModel(VOCABULARY, priors, ModelCard(temperature=300.0, resolution="backbone", topologies=(PEPTIDE,)))
    model.save(tmp_path / "m.safetensors")
    loaded = CGModel.load(tmp_path / "m.safetensors")
    assert loaded.priors.terms[name].settings == term.settings
    assert loaded.priors(graph_of(x)).detach().numpy() == pytest.approx(expected, rel=1e-6)
    if options:
        whole = fitted(name, quadruples=options["quadruples"])
        assert expected == pytest.approx(0.5 * whole(graph_of(x)).numpy(), rel=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_wrapped_molecules_and_batches_have_the_energy_of_whole_ones(name):
    term = fitted(name)
    x = shaken(1, 0.2, seed=2)
    expected, forces = energy_and_forces(term, graph_of(x))
    cell = np.array([[14.0, 0, 0], [3.0, 15.0, 0], [-2.0, 4.0, 13.0]])
    wrapped = np.linalg.solve(cell.T, x[0].T).T
    wrapped = (wrapped + np.array([0.5, 0.9, 0.3])) % 1 @ cell
    graph = graph_of(wrapped)._replace(cell=torch.tensor(cell)[None])
    found, wrapped_forces = energy_and_forces(term, graph)
    assert not np.allclose(np.ptp(wrapped, axis=0), np.ptp(x[0], axis=0))
    assert float(found) == pytest.approx(float(expected), rel=1e-9)
    assert torch.allclose(wrapped_forces, forces, atol=1e-9)
    y = shaken(1, 0.2, seed=4)
    several = term(concatenate([graph_of(x), graph_of(y), graph_of(x)])).numpy()
    assert several == pytest.approx([float(term(graph_of(one))) for one in (x, y, x)], rel=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_lines_of_beads_have_finite_energies_and_forces(name):
    term = fitted(name)
    line = np.zeros((1, 15, 3))
    line[0, :, 0] = 1.5 * np.arange(15)
    for x in (line, line * 0, shaken(1) * [1, 1, 0]):
        for kind in (torch.float32, torch.float64):
            graph = graph_of(x).to("cpu", kind)
            energy, forces = energy_and_forces(term.to(kind), graph)
            assert torch.isfinite(energy).all()
            assert torch.isfinite(forces).all()


@pytest.mark.parametrize("name", KINDS)
def test_the_dense_form_is_the_term(name):
    term = fitted(name, quadruples=[["N", "CB", "C", "CA"], ["CA", "C", "+N", "+CA"]])
    priors = PriorSet([term], VOCABULARY)
    model = CGModel(VOCABULARY, priors, ModelCard(temperature=300.0, resolution="backbone", topologies=(PEPTIDE,)))
    x = shaken(3, 0.3, seed=6)
    energies, forces = DenseModel(model, PEPTIDE, 3, torch.float64, 8).energy_and_forces(torch.tensor(x))
    expected, exact = energy_and_forces(term.double(), graph_of(x))
    assert torch.allclose(energies, expected, rtol=1e-10)
    assert torch.allclose(forces.reshape(-1, 3), exact, atol=1e-9)


def test_bad_lists_and_molecules_without_centres_are_told(tmp_path):
    def fit(spec, topology=PEPTIDE, x=None):
        x = shaken() if x is None else x
        PriorSet.fit_positions(x, topology, [spec], vocabulary=VOCABULARY, kT=KT)

    with pytest.raises(InputError, match=r"no bonded beads are .*'XX'"):
        fit({"name": "impropers", "quadruples": [["N", "CB", "C", "XX"]]})
    with pytest.raises(InputError, match="quadruples"):
        fit({"name": "impropers", "quadruples": [["N", "CB", "C"]]})
    with pytest.raises(InputError, match="quadruples"):
        fit({"name": "periodic_impropers", "quadruples": []})
    with pytest.raises(InputError, match="quadruple is no key of a prior; did you mean 'quadruples'"):
        fit({"name": "impropers", "quadruple": [["N", "CB", "C", "CA"]]})
    two = BeadTopology(PEPTIDE.names[:3], PEPTIDE.residue_names[:3], (1,) * 3, (0,) * 3, (12.0,) * 3, ((0, 1), (1, 2)))
    with pytest.raises(InputError, match="no bead has three bonded neighbours"):
        fit("impropers", two, shaken()[:, :3])
    rigid = np.repeat(shaken(1), 100, axis=0)
    with pytest.raises(InputError, match="do not fluctuate"):
        fit("impropers", x=rigid)
    # Rigid at ±π: rounding jumps between the two.
    plane = rigid * [1, 1, 0] + 1e-9 * np.random.default_rng(0).standard_normal(rigid.shape)
    with pytest.raises(InputError, match="do not fluctuate"):
        fit({"name": "impropers", "quadruples": [["CA", "C", "+N", "+CA"]]}, x=plane)
    lacking = {"types": torch.zeros(0, 4, dtype=torch.long), "stiffness": torch.zeros(0), "equilibrium": torch.zeros(0)}
    with pytest.raises(InputError, match="names 2 beads of 3 types"):
        Impropers.from_tensors(lacking, {"vocabulary": ["A", "B"]}, 3)


@pytest.mark.filterwarnings("ignore:the prior")
def test_one_of_several_listed_quadruples_that_is_nowhere_is_told():
    spec = {"name": "impropers", "quadruples": [["N", "CB", "C", "CA"], ["CA", "O", "+N", "CC"]]}
    with pytest.raises(InputError, match=r"no bonded beads are .*'CC'"):
        PriorSet.fit_positions(shaken(), PEPTIDE, [spec], vocabulary=VOCABULARY, kT=KT)


def test_the_published_dipeptide_has_one_hand(shared, ala2):
    """All of its frames cost a few kT at most, all mirror images far more; a run with priors alone keeps the hand."""
    from ase import units

    from ase_cg import ReplicaSimulation

    x = np.load(shared / "ala2_cg_forces" / "ala2_cacb_coordinates.npy").astype(float)[::10]
    vocabulary = tuple(sorted(set(ala2.names)))
    priors = PriorSet.fit_positions(
        x, ala2, ["bonds", "angles", "impropers", "exponential_repulsion"], vocabulary=vocabulary, kT=KT
    )
    term = priors.terms["impropers"]
    energies, mirrored = (term(graph_of(y, ala2, vocabulary)).double().numpy() for y in (x, x * [1, 1, -1]))
    assert energies.mean() == pytest.approx(0.5 * KT, rel=0.02)
    assert mirrored.min() > energies.max() + 20 * KT
    model = CGModel(vocabulary, priors, ModelCard(temperature=300.0, resolution=ala2.names, topologies=(ala2,)))
    run = ReplicaSimulation(model, x[::50], time_step=2 * units.fs, friction=1 / (100 * units.fs), seed=1)
    run.step(500)
    later = term(graph_of(run.positions, ala2, vocabulary)).double().numpy()
    assert 0.2 * KT < later.mean() < 1.2 * KT


@pytest.mark.parametrize("name", KINDS)
def test_a_sequence_and_its_reverse_are_two(name):
    """A centre B among A, B, A is not a centre A among B, A, B."""
    x = np.array([[[1.0, 0, 0.3], [-0.5, 0.9, 0.2], [-0.4, -0.8, 0.4], [0, 0, 0]]])
    shared_by = {}
    for names in (("A", "B", "A", "B"), ("B", "A", "B", "A")):
        star = BeadTopology(names, names, (1,) * 4, (0,) * 4, (1.0,) * 4, ((0, 3), (1, 3), (2, 3)))
        term = KINDS[name](
            torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]]),
            torch.tensor([1.0, 3.0]).double(),
            torch.tensor([0.1, 0.1]).double(),
            ("A", "B"),
            [("A", "B", "A", "B"), ("B", "A", "B", "A")],
        )
        shared_by[names] = float(term(graph_of(x, star, ("A", "B"))))
    first, second = shared_by.values()
    assert first > 1e-3
    assert second == pytest.approx(3 * first, rel=1e-9)
