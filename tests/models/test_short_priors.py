"""Polynomial angles, cut-off and exponential repulsion: formula, fit, cutoff, exclusions, files, copies."""

import numpy as np
import pytest
import torch
import yaml

from ase_cg import InputError, PriorSet
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.graph import topology_graph
from ase_cg.inference.dense import DenseModel
from ase_cg.models.base import energy_and_forces
from ase_cg.models.model import CGModel, ModelCard
from ase_cg.models.priors.polynomial import PolynomialAngles, PolynomialCosineAngles, _rising
from ase_cg.models.priors.short_repulsion import CutoffRepulsion, ExponentialRepulsion
from ase_cg.units import thermal_energy, unit

KT = thermal_energy(300.0)
KCAL = unit("kcal/mol", "energy")
VOCABULARY = ("A", "B")
POLYNOMIALS = {"polynomial_angles": PolynomialAngles, "polynomial_cosine_angles": PolynomialCosineAngles}


class Options:
    degree = 4
    scale = 1.0
    directed = False


def line(n, bonds=None):
    names = tuple("AB"[i % 2] for i in range(n))
    bonds = tuple((i, i + 1) for i in range(n - 1)) if bonds is None else bonds
    return BeadTopology(names, names, tuple(range(n)), (0,) * n, (12.0,) * n, bonds)


def graph_of(x, topology):
    x = np.asarray(x, dtype=float).reshape(-1, topology.n_beads, 3)
    graph = topology_graph(topology, VOCABULARY, len(x))
    return graph._replace(positions=torch.tensor(x).reshape(-1, 3))


def bent(theta, first=3.8, second=3.1):
    """Three beads with angles theta (F,) in rad."""
    x = np.zeros((len(theta), 3, 3))
    x[:, 0, 0] = first
    x[:, 2, 0], x[:, 2, 1] = second * np.cos(theta), second * np.sin(theta)
    return x


def two_basins(count=60_000, seed=0):
    """Angles of the distribution sin θ exp(−U/kT) with two minima, and U in kT on a grid."""
    grid = np.linspace(0.9, 2.6, 4001)
    t = (grid - 1.75) / 0.45
    energy = 1.5 * (t**2 - 1) ** 2 + 0.5 * t
    p = np.sin(grid) * np.exp(-energy)
    return np.interp(np.random.default_rng(seed).random(count), np.cumsum(p) / p.sum(), grid), grid, energy


def density_of(term, grid):
    """What the term alone gives on a grid of angles: sin θ exp(−U/kT)."""
    topology = line(3)
    energy = term(graph_of(bent(grid), topology)).numpy()
    p = np.sin(grid) * np.exp(-energy / KT)
    return p / p.sum()


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_a_fitted_polynomial_gives_back_both_basins_of_its_data(name):
    """A harmonic angle cannot: with one minimum it fills the barrier."""
    samples, *_ = two_basins()
    frames, topology = bent(samples), line(3)

    def distance(prior):
        term = PriorSet.fit_positions(frames, topology, [prior], vocabulary=VOCABULARY, kT=KT).terms
        grid = np.linspace(0.0, np.pi, 2001)[1:-1]
        p = density_of(next(iter(term.values())).double(), grid)
        found = np.histogram(samples, bins=np.linspace(0, np.pi, 41))[0] / len(samples)
        model = np.histogram(grid, bins=np.linspace(0, np.pi, 41), weights=p)[0]
        return 0.5 * np.abs(found - model).sum()

    assert distance({"name": name, "degree": 6}) < 0.04
    assert distance(name) < 0.08
    assert distance("angles") > 0.2


def test_the_energy_of_angles_is_that_of_the_polynomial_and_of_mlcg():
    """Origin zero and kcal/mol: Σ kₙ θⁿ or Σ kₙ (cos θ)ⁿ, a constant included."""
    theta = np.array([0.7, 1.5, 2.3])
    k = np.array([1.0, -0.7, 0.4, 2.0]) * KCAL
    types = torch.full((1, 3), -1)
    for kind, q in ((PolynomialAngles, theta), (PolynomialCosineAngles, np.cos(theta))):
        for origin in (0.0, 0.4):
            tensors = {
                "constant": torch.tensor([0.3 * KCAL]).double(),
                "coefficients": torch.tensor(k)[None],
                "origin": torch.tensor([origin]).double(),
            }
            term = kind(types, tensors, 2)
            expected = 0.3 * KCAL + sum(k[n] * (q - origin) ** (n + 1) for n in range(4))
            assert term(graph_of(bent(theta), line(3))).numpy() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", POLYNOMIALS)
@pytest.mark.parametrize(("mean", "spread"), [(1.6, 0.1), (2.6, 0.15), (0.5, 0.1), (1.6, 0.02)])
def test_polynomials_have_their_minimum_where_the_data_live(name, mean, spread):
    """Nowhere outside is it lower, whatever the degree: what the data never showed is no basin."""
    rng = np.random.default_rng(1)
    samples = np.clip(mean + spread * rng.standard_normal(3000), 0.01, np.pi - 0.01)
    values = samples if name == "polynomial_angles" else np.cos(samples)
    for degree in (2, 3, 4, 5, 8):
        options = Options()
        options.degree = degree
        found = POLYNOMIALS[name].fit_one(values, KT, options)
        assert len(found["coefficients"]) == degree
        q = np.linspace(*POLYNOMIALS[name].whole, 2001)
        energy = found["constant"] + sum(
            c * (q - found["origin"]) ** (n + 1) for n, c in enumerate(found["coefficients"])
        )
        lowest = q[energy.argmin()]
        assert values.min() <= lowest <= values.max()
        assert energy.min() == pytest.approx(0, abs=0.02 * KT)


def test_polynomials_of_each_sequence_of_types_and_their_scale():
    samples, *_ = two_basins(3000)
    narrow = 1.6 + 0.1 * np.random.default_rng(0).standard_normal(3000)
    topology = line(4)  # A-B-A and B-A-B
    x = np.zeros((3000, 4, 3))
    x[:, :3] = bent(samples)[:, :, :]
    x[:, 3] = x[:, 2] + 3.0 * np.stack([-np.cos(samples + narrow), -np.sin(samples + narrow), 0 * narrow], axis=1)
    whole, half = (
        PriorSet.fit_positions(
            x, topology, [{"name": "polynomial_angles", "scale": s}], vocabulary=VOCABULARY, kT=KT
        ).terms["polynomial_angles"]
        for s in (1.0, 0.5)
    )
    graph = graph_of(x[:20], topology)
    assert half(graph).numpy() == pytest.approx(0.5 * whole(graph).numpy(), rel=1e-5)
    rows = {tuple(row["types"]): row["coefficients"] for row in whole.parameters_by_type()}
    assert set(rows) == {(), (0, 1, 0), (1, 0, 1)}
    assert rows[0, 1, 0] != rows[1, 0, 1]


CUTOFF = 7.0


def repulsive(kind, cutoff=CUTOFF, exclude=2):
    sigma = torch.tensor([[3.0, 3.5], [3.5, 4.0]]).double()
    if kind is CutoffRepulsion:
        return CutoffRepulsion(sigma, 6, exclude, cutoff)
    strength = KCAL * torch.tensor([[1.0, 0.5], [0.5, 2.0]]).double()
    steepness = torch.tensor([[14.0, 12.0], [12.0, 10.0]]).double()
    return ExponentialRepulsion(strength, steepness, sigma, exclude, cutoff)


def plain(kind, r, pair):
    """Energy and slope before the cutoff, in eV, as mlcg writes them."""
    sigma = {"AA": 3.0, "AB": 3.5, "BB": 4.0}[pair]
    if kind is CutoffRepulsion:
        return (sigma / r) ** 6, -6 * (sigma / r) ** 6 / r
    strength, alpha = {"AA": (1.0, 14.0), "AB": (0.5, 12.0), "BB": (2.0, 10.0)}[pair]
    energy = KCAL * strength * 6 / alpha * np.exp(alpha * (1 - r / sigma))
    return energy, -alpha / sigma * energy


@pytest.mark.parametrize("kind", [CutoffRepulsion, ExponentialRepulsion])
@pytest.mark.parametrize("cutoff", [CUTOFF, None])
def test_pairs_have_the_energy_of_the_formula_and_end_smoothly(kind, cutoff):
    if kind is CutoffRepulsion and cutoff is None:
        with pytest.raises(InputError, match="needs a cutoff"):
            repulsive(kind, None)
        return
    term = repulsive(kind, cutoff)
    for pair in ("AA", "AB", "BB"):
        topology = BeadTopology(tuple(pair), tuple(pair), (1, 2), (0, 0), (12.0, 12.0), ())
        for r in (0.8, 2.5, 3.5, 5.0, 6.99, 7.01, 20.0):
            x = np.array([[[0.0, 0, 0], [0.6 * r, 0.8 * r, 0]]])
            energy, forces = energy_and_forces(term, graph_of(x, topology))
            u, du = plain(kind, r, pair)
            if cutoff is not None:
                end, slope = plain(kind, cutoff, pair)
                u, du = (u - end - (r - cutoff) * slope, du - slope) if r < cutoff else (0.0, 0.0)
            assert float(energy) == pytest.approx(u, rel=1e-9, abs=1e-15)
            assert forces[1].tolist() == pytest.approx([-0.6 * du, -0.8 * du, 0], rel=1e-8, abs=1e-14)
    if cutoff is not None:
        x = np.array([[[0.0, 0, 0], [cutoff - 1e-5, 0, 0]]])
        energy, forces = energy_and_forces(term, graph_of(x, topology))
        assert 0 <= float(energy) < 1e-10
        assert float(forces.abs().max()) < 1e-5
    meeting = graph_of(np.zeros((1, 2, 3)), topology)
    energy, forces = energy_and_forces(term, meeting)
    assert float(energy) > 1e3 * KT
    assert torch.isfinite(forces).all()


@pytest.mark.parametrize("kind", [CutoffRepulsion, ExponentialRepulsion])
@pytest.mark.parametrize("exclude", [0, 1, 3])
def test_excluded_neighbours_feel_none_in_the_dense_form_too(kind, exclude):
    topology = line(6)
    term = repulsive(kind, exclude=exclude)
    x = np.random.default_rng(0).uniform(-3.5, 3.5, (3, 6, 3))
    names = topology.names
    expected = np.zeros(3)
    for i in range(6):
        for j in range(i + exclude + 1, 6):
            r = np.linalg.norm(x[:, i] - x[:, j], axis=-1)
            pair = "".join(sorted(names[i] + names[j]))
            end, slope = plain(kind, CUTOFF, pair)
            expected += np.where(r < CUTOFF, plain(kind, r, pair)[0] - end - (r - CUTOFF) * slope, 0.0)
    energy, forces = energy_and_forces(term, graph_of(x, topology))
    assert energy.numpy() == pytest.approx(expected, rel=1e-9)
    card = ModelCard(temperature=300.0, resolution="calpha", topologies=(topology,))
    model = CGModel(VOCABULARY, PriorSet([term], VOCABULARY), card)
    assert model.cutoff == CUTOFF
    dense = DenseModel(model, topology, 3, torch.float64, 8)
    found, dense_forces = dense.energy_and_forces(torch.tensor(x))
    assert torch.allclose(found, energy, rtol=1e-10)
    assert torch.allclose(dense_forces.reshape(-1, 3), forces, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["cutoff_repulsion", "exponential_repulsion"])
@pytest.mark.parametrize(("exclude", "scale"), [(1, 1.0), (3, 0.5)])
def test_the_fit_costs_a_tenth_of_the_thermal_energy_at_the_closest_approach(name, exclude, scale):
    """The 0.1 % quantile of exactly those pairs of types that are not excluded."""
    rng = np.random.default_rng(4)
    topology = line(6)
    x = 2.0 * np.arange(6)[None, :, None] * [1.0, 0, 0] + 0.4 * rng.standard_normal((2000, 6, 3))
    spec = {"name": name, "exclude": exclude, "cutoff": 30.0, "scale": scale}
    term = PriorSet.fit_positions(x, topology, [spec], vocabulary=VOCABULARY, kT=KT).terms[name].double()
    assert term.settings["exclude"] == exclude
    for pair in ("AA", "AB", "BB"):
        distances = [
            np.linalg.norm(x[:, i] - x[:, j], axis=-1)
            for i in range(6)
            for j in range(i + exclude + 1, 6)
            if "".join(sorted(topology.names[i] + topology.names[j])) == pair
        ]
        closest = np.quantile(np.concatenate(distances), 0.001)
        two = BeadTopology(tuple(pair), tuple(pair), (1, 2), (0, 0), (12.0, 12.0), ())
        cost, near = (
            float(term(graph_of(np.array([[[0.0, 0, 0], [share * closest, 0, 0]]]), two))) for share in (1.0, 0.6)
        )
        assert cost == pytest.approx(0.1 * scale * KT, rel=0.02)
        assert near > 1.5 * scale * KT
    assert float(term(graph_of(x[:500], topology)).mean()) < KT


@pytest.mark.parametrize("name", ["cutoff_repulsion", "exponential_repulsion"])
def test_rare_pairs_take_the_generic_parameters(name):
    topology = BeadTopology(("A", "B", "A", "A"), ("A",) * 4, (1, 2, 3, 4), (0,) * 4, (12.0,) * 4, ())
    x = 5.0 * np.random.default_rng(0).standard_normal((20, 4, 3))  # 60 samples of A–A, 60 of A–B, none of B–B
    priors = PriorSet.fit_positions(x, topology, [{"name": name, "exclude": 0}], vocabulary=VOCABULARY, kT=KT)
    sigma = priors.terms[name].sigma
    pooled = np.concatenate([np.linalg.norm(x[:, i] - x[:, j], axis=-1) for i in range(4) for j in range(i)])
    assert sigma[0, 1] == sigma[1, 0] != sigma[0, 0]
    whole = PriorSet.fit_positions(
        x,
        BeadTopology(("B",) * 4, ("B",) * 4, (1, 2, 3, 4), (0,) * 4, (12.0,) * 4, ()),
        [{"name": name, "exclude": 0}],
        vocabulary=VOCABULARY,
        kT=KT,
    ).terms[name]
    assert float(sigma[1, 1]) == pytest.approx(float(whole.sigma[1, 1]), rel=1e-6)
    assert len(pooled) == 120
    with pytest.warns(UserWarning, match="generic parameters for 1 kinds"):
        few = PriorSet.fit_positions(
            x[:, [0, 2, 3, 1]][:30],
            BeadTopology(("A", "A", "A", "B"), ("A",) * 4, (1, 2, 3, 4), (0,) * 4, (12.0,) * 4, ((0, 3), (1, 3))),
            [{"name": name, "exclude": 1}],
            vocabulary=VOCABULARY,
            kT=KT,
        ).terms[name]
    assert float(few.sigma[0, 1]) == pytest.approx(float(few.sigma[1, 1]), rel=1e-6)


@pytest.mark.parametrize("kind", [CutoffRepulsion, ExponentialRepulsion])
def test_files_keep_them_and_numbers_of_mlcg_are_read(kind, tmp_path):
    term = repulsive(kind)
    topology = line(6)
    x = np.random.default_rng(0).uniform(-3.5, 3.5, (3, 6, 3))
    expected = term(graph_of(x, topology)).numpy()
    priors = PriorSet([term], VOCABULARY)
    priors.to_yaml(tmp_path / "p.yaml", VOCABULARY)
    again = PriorSet.from_yaml(tmp_path / "p.yaml", VOCABULARY)
    assert again(graph_of(x, topology)).numpy() == pytest.approx(expected, rel=1e-9)
    written = yaml.safe_load((tmp_path / "p.yaml").read_text())["priors"][term.name]
    assert written["exclude"] == 2
    assert written["cutoff"] == CUTOFF
    if kind is ExponentialRepulsion:
        assert [row["strength"] for row in written["parameters"]] == pytest.approx([1.0, 0.5, 2.0])
        assert [row["steepness"] for row in written["parameters"]] == [14.0, 12.0, 10.0]
    card = ModelCard(temperature=300.0, resolution="calpha", topologies=(topology,))
    CGModel(VOCABULARY, priors, card).save(tmp_path / "m.safetensors")
    loaded = CGModel.load(tmp_path / "m.safetensors").priors
    assert loaded.terms[term.name].settings == term.settings
    assert loaded(graph_of(x, topology)).numpy() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", [CutoffRepulsion, ExponentialRepulsion])
def test_periodic_images_repel_each_other(kind):
    """Two beads, one across the border of a skewed cell: the pair of the nearest images, and no other."""
    from ase import Atoms

    from ase_cg import CGCalculator

    topology = BeadTopology(("A", "B"), ("A", "B"), (1, 2), (0, 0), (12.0, 12.0), ())
    card = ModelCard(temperature=300.0, resolution="calpha", topologies=(topology,))
    model = CGModel(VOCABULARY, PriorSet([repulsive(kind)], VOCABULARY), card)
    cell = np.array([[18.0, 0, 0], [4.0, 19.0, 0], [-3.0, 5.0, 17.0]])
    shift = np.array([0.6, 2.2, -1.5])
    beads = Atoms(numbers=[1, 2], positions=[[1.0, 1, 1], [1, 1, 1] + shift + cell[0] - cell[2]], cell=cell, pbc=True)
    beads.calc = CGCalculator(model, topology=topology, dtype="float64")
    r = np.linalg.norm(shift)
    end, slope = plain(kind, CUTOFF, "AB")
    assert beads.get_potential_energy() == pytest.approx(plain(kind, r, "AB")[0] - end - (r - CUTOFF) * slope, rel=1e-9)
    pull = -(plain(kind, r, "AB")[1] - slope) * shift / r
    assert beads.get_forces()[1] == pytest.approx(pull, rel=1e-9)


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_random_directions_have_no_energy(name):
    """Angles of unbiased directions are distributed as sin θ: that is no energy, and must not be counted twice."""
    theta = np.arccos(np.random.default_rng(0).uniform(-0.95, 0.95, 200_000))
    term = PriorSet.fit_positions(bent(theta), line(3), [name], vocabulary=VOCABULARY, kT=KT).terms[name]
    energies = term.double()(graph_of(bent(np.linspace(0.4, np.pi - 0.4, 50)), line(3))).numpy()
    assert np.ptp(energies) < 0.05 * KT


def test_a_fit_that_fails_is_done_with_a_lower_degree(monkeypatch):
    """Of two degrees with a parabola that is open upwards, which always rises."""
    import scipy.optimize

    asked = []

    def fails(function, start, **options):
        asked.append(len(start) - 1)
        return scipy.optimize.OptimizeResult(success=False, x=0 * start)

    monkeypatch.setattr(scipy.optimize, "minimize", fails)
    random = np.random.default_rng(1).standard_normal(3000)
    options = Options()
    options.degree = 3
    # A cubic of one skewed basin falls on one side of it; a parabola does not.
    skewed = 1.6 + 0.1 * random + 0.03 * (random**2 - 1)
    cubic = PolynomialAngles.fit_one(skewed, KT, options)
    assert asked[0] == 3
    assert cubic["coefficients"][1] > 0
    assert abs(cubic["coefficients"][2]) < 1e-9
    # Of a hill no parabola is left.
    q, ends = np.linspace(1.0, 2.0, 30), np.linspace(0.0, 3.0, 20)
    asked.clear()
    found = _rising(q, -((q - 1.5) ** 2), np.ones(30), ends[(ends < 1) | (ends > 2)], (1.0, 2.0), 2)
    assert asked == [2]
    assert (np.diff(found(np.linspace(2.0, 3.0, 10))) > 0).all()
    assert (np.diff(found(np.linspace(0.0, 1.0, 10))) < 0).all()


def test_polynomials_of_narrow_angles_are_kept_in_single_precision():
    """A series about zero would be a difference of numbers a million times larger."""
    theta = 2.0 + 0.03 * np.random.default_rng(3).standard_normal(5000)
    term = PriorSet.fit_positions(bent(theta), line(3), ["polynomial_angles"], vocabulary=VOCABULARY, kT=KT).terms
    exact = PolynomialAngles.fit_one(theta, KT, Options())
    q = theta[:200]
    expected = exact["constant"] + sum(
        c * (q - exact["origin"]) ** (n + 1) for n, c in enumerate(exact["coefficients"])
    )
    graph = graph_of(bent(q), line(3)).to("cpu", torch.float32)
    assert term["polynomial_angles"](graph).numpy() == pytest.approx(expected, abs=1e-3 * KT)


@pytest.mark.parametrize("exponent", [4, 7, 12])
@pytest.mark.parametrize("cutoff", [4.5, 20.0])
def test_cutoff_repulsion_of_any_exponent(exponent, cutoff):
    """Its σ follows from the closest approach with the line that the cutoff subtracts, which weighs near the cutoff."""
    rng = np.random.default_rng(6)
    x = 2.0 * np.arange(6)[None, :, None] * [1.0, 0, 0] + 0.3 * rng.standard_normal((1000, 6, 3))
    spec = {"name": "cutoff_repulsion", "exclude": 1, "exponent": exponent, "cutoff": cutoff}
    term = PriorSet.fit_positions(x, line(6), [spec], vocabulary=VOCABULARY, kT=KT).terms["cutoff_repulsion"].double()
    assert term.settings == {"exponent": exponent, "exclude": 1, "cutoff": cutoff}
    pairs = [np.linalg.norm(x[:, i] - x[:, i + 2 * k], axis=-1) for k in (1, 2) for i in (0, 2) if i + 2 * k < 6]
    closest, sigma = np.quantile(np.concatenate(pairs), 0.001), float(term.sigma[0, 0])

    def u(r):
        line_at = lambda d: (sigma / cutoff) ** exponent * (1 - exponent * (d - cutoff) / cutoff)  # noqa: E731
        return (sigma / r) ** exponent - line_at(r)

    two = BeadTopology(("A", "A"), ("A", "A"), (1, 2), (0, 0), (12.0, 12.0), ())
    for r in (closest, 0.7 * closest, 0.9 * cutoff):
        energy, forces = energy_and_forces(term, graph_of(np.array([[[0.0, 0, 0], [0, r, 0]]]), two))
        assert float(energy) == pytest.approx(u(r), rel=1e-6)
        assert float(forces[1, 1]) == pytest.approx(-(u(r + 1e-6) - u(r - 1e-6)) / 2e-6, rel=1e-5)
    assert u(closest) == pytest.approx(0.1 * KT, rel=1e-3)
