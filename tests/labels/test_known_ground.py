"""Labels on known ground: chains whose density is known and sampled exactly, flexible and with rigid bonds.

The conditional mean of each label at y must be the analytic force of the density of y.
"""

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from ase_cg import CGModel, Recipe, train
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.labels import label_source
from ase_cg.labels.frame_noise import FrameNoise
from ase_cg.units import thermal_energy
from tests.conftest import SMALL_SCHNET, two_bead_topology

KT = thermal_energy(300.0)
SIGMA = 0.15
LABELS = ("atomistic", "noise", "forces_and_noise")
CELLS = 10  # along each axis
STEP = 0.05
GRID = np.arange(-60, 61) * STEP


class Chain:
    """Five atoms on a line, each bond with its own anharmonic energy, the middle two coupled; beads are atoms 0, 2, 4.

    In each of the three dimensions there is such a chain, so that positions have the usual shape. Energies in kT:
    v₀ = 3b² + b⁴, v₁ = 4(b² − ¼)² (two wells), v₂ = 2b² + b³/2 + b⁴, v₃ = 3b⁴ + b², and b₁b₂.
    """

    bonds = (
        lambda b: 3 * b**2 + b**4,
        lambda b: 4 * (b**2 - 0.25) ** 2,
        lambda b: 2 * b**2 + b**3 / 2 + b**4,
        lambda b: 3 * b**4 + b**2,
    )
    slopes = (
        lambda b: 6 * b + 4 * b**3,
        lambda b: 16 * b * (b**2 - 0.25),
        lambda b: 4 * b + 1.5 * b**2 + 4 * b**3,
        lambda b: 12 * b**3 + 2 * b,
    )
    coordinate_map = np.eye(5)[[0, 2, 4]]

    @classmethod
    def sample(cls, frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and forces of all atoms, both (F, 5, 3)."""
        b = np.empty((frames, 3, 4))
        for bond in (0, 3):
            b[..., bond] = _draw(np.exp(-cls.bonds[bond](GRID)), (frames, 3), rng)
        one, two = np.meshgrid(GRID, GRID, indexing="ij")
        joint = np.exp(-cls.bonds[1](one) - cls.bonds[2](two) - one * two)
        cells = np.searchsorted(np.cumsum(joint) / joint.sum(), rng.random((frames, 3)))
        b[..., 1], b[..., 2] = one.ravel()[cells], two.ravel()[cells]
        x = np.concatenate([np.zeros((frames, 3, 1)), np.cumsum(b, axis=-1)], axis=-1)
        pull = np.stack([slope(b[..., bond]) for bond, slope in enumerate(cls.slopes)], axis=-1)
        pull[..., 1] += b[..., 2]
        pull[..., 2] += b[..., 1]
        forces = np.zeros_like(x)
        forces[..., :-1] += KT * pull
        forces[..., 1:] -= KT * pull
        return x.transpose(0, 2, 1), forces.transpose(0, 2, 1)

    @classmethod
    def mean_forces(cls, noise_std: float):
        """Return the grid of the distances between neighbouring beads, and −∂U/∂d of both on it, (G, G, 2)."""
        grid = np.arange(-90, 91) * STEP

        def weight(bond, b):
            return np.exp(-cls.bonds[bond](b))

        left = weight(0, grid[:, None] - GRID) * weight(1, GRID)
        right = weight(3, grid[:, None] - GRID) * weight(2, GRID)
        density = left @ np.exp(-np.outer(GRID, GRID)) @ right.T
        if noise_std:
            # Noise on three beads: that of their two distances has variance 2σ² each and covariance −σ².
            covariance = noise_std**2 * np.array([[2, -1], [-1, 2]])
            wave = 2 * np.pi * np.fft.fftfreq(len(grid), STEP)
            k = np.stack(np.meshgrid(wave, wave, indexing="ij"), axis=-1)
            damping = np.exp(-0.5 * np.einsum("abi,ij,abj->ab", k, covariance, k))
            density = np.fft.ifft2(np.fft.fft2(density) * damping).real
        density = np.maximum(density, 1e-300)
        return grid, KT * np.stack(np.gradient(np.log(density), STEP), axis=-1)


def _draw(density, shape, rng):
    return GRID[np.searchsorted(np.cumsum(density) / density.sum(), rng.random(shape))]


def _random_map(coordinate_map: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Return a random M with M Cᵀ = 1 that is constant on groups of tied atoms, given as (atoms, groups)."""
    c = coordinate_map @ groups
    pseudo = np.linalg.pinv(c.T)
    free = 0.3 * np.random.default_rng(seed).standard_normal((len(coordinate_map), groups.shape[1]))
    return (pseudo + free @ (np.eye(groups.shape[1]) - c.T @ pseudo)) @ groups.T


def _label(name: str, x: np.ndarray, forces: np.ndarray):
    """Return y, f and the source, of bead positions and mapped forces (F, N, 3)."""
    recorded = torch.from_numpy(forces)
    noise_std = None if name == "atomistic" else SIGMA
    source = label_source(name).fit(None if name == "noise" else recorded, kT=KT, noise_std=noise_std)
    y, f = source(torch.from_numpy(x), recorded, FrameNoise((3,), torch.arange(len(x))))
    return y.numpy(), f.numpy(), source


def _scores(residual: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the mean residual in standard errors, in cells of equally many samples, of places (S, k)."""
    cell = np.zeros(len(places), dtype=int)
    for axis, place in enumerate(places.T):
        edges = np.quantile(place, np.linspace(0, 1, CELLS + 1)[1:-1])
        cell += np.searchsorted(edges, place) * CELLS**axis
    parts = [residual[cell == number] for number in np.unique(cell)]
    return np.array([part.mean() / (part.std() / np.sqrt(len(part))) for part in parts if len(part) >= 300])


def _check_mean(values: np.ndarray, exact: np.ndarray, places: np.ndarray) -> None:
    """Check that values have the exact mean in every cell, and scatter around it as independent numbers do."""
    scores = _scores(values - exact, places)
    assert len(scores) >= CELLS
    assert np.abs(scores).max() < 5
    assert (scores**2).mean() < 1 + 5 * np.sqrt(2 / len(scores))


@pytest.fixture(scope="module")
def chain():
    return Chain.sample(60_000, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "seed"), [("noise", None), *[(name, s) for name in LABELS if name != "noise" for s in (None, 0, 1)]]
)
def test_labels_of_a_flexible_chain_have_the_analytic_mean_force(name, seed, chain):
    x, forces = chain
    c = Chain.coordinate_map
    m = c if seed is None else _random_map(c, np.eye(5), seed)
    assert m @ c.T == pytest.approx(np.eye(3), abs=1e-12)
    mapped = np.einsum("na,fax->fnx", m, forces)
    y, f, source = _label(name, np.einsum("na,fax->fnx", c, x), mapped)
    grid, exact = Chain.mean_forces(source.noise_std)
    distances = np.diff(y, axis=1).transpose(0, 2, 1).reshape(-1, 2)
    first, second = (RegularGridInterpolator((grid, grid), exact[..., part])(distances) for part in (0, 1))
    beads = f.transpose(0, 2, 1).reshape(-1, 3)
    for bead, force in enumerate((-first, first - second, second)):
        _check_mean(beads[:, bead], force, distances)
    # The labels' mean square is what theory says.
    error = (f**2).std() / np.sqrt(f.size)
    assert (f**2).mean() == pytest.approx(source.variance(), abs=5 * error)
    if name == "forces_and_noise":
        moment = np.einsum("fnx,fmx->nm", mapped, mapped) / (3 * len(mapped))
        alpha = np.linalg.inv(np.eye(3) + (SIGMA / KT) ** 2 * moment)
        assert source.variance() == pytest.approx(np.trace(moment @ alpha) / 3, rel=1e-9)
        assert source.variance() < min((mapped**2).mean(), (KT / SIGMA) ** 2)


class RigidPair:
    """Beads A and B at distance d; H is held at 1 Å from A by a rigid bond, S hangs on B by a spring.

    Energies in kT: u(d) = 10 (d − 3)² + 8 (d − 3)³ + 20 (d − 3)⁴, v = 5 (|H − B| − 2.3)², and 8|S − B|². The force that
    keeps H at its place is not recorded: a simulation with constraints does not write it. Forces on H and A must be
    summed; A alone has a biased one.
    """

    coordinate_map = np.eye(4)[[0, 2]]  # of A, H, B, S
    groups = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    distance = np.arange(1.6, 4.4, 0.005)
    cosine = (np.arange(400) + 0.5) / 200 - 1

    @classmethod
    def _energy(cls):
        d, c = cls.distance[:, None], cls.cosine
        s = d - 3
        return 10 * s**2 + 8 * s**3 + 20 * s**4 + 5 * (np.sqrt(1 + d**2 - 2 * d * c) - 2.3) ** 2

    @classmethod
    def sample(cls, frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and recorded forces of A, H, B and S, both (F, 4, 3)."""
        joint = np.exp(-cls._energy()) * cls.distance[:, None] ** 2
        cells = np.searchsorted(np.cumsum(joint) / joint.sum(), rng.random(frames))
        d, cosine = cls.distance[cells // len(cls.cosine)], cls.cosine[cells % len(cls.cosine)]
        frame = np.linalg.qr(rng.standard_normal((frames, 3, 3)))[0]
        axis, across = frame[:, :, 0], frame[:, :, 1]
        x = np.zeros((frames, 4, 3))
        x[:, 1] = cosine[:, None] * axis + np.sqrt(1 - cosine**2)[:, None] * across
        x[:, 2] = d[:, None] * axis
        hang = rng.standard_normal((frames, 3)) / 4
        x[:, 3] = x[:, 2] + hang
        forces = np.zeros_like(x)
        s = (d - 3)[:, None]
        stretch = KT * (20 * s + 24 * s**2 + 80 * s**3) * axis
        forces[:, 0] += stretch
        to_h = x[:, 1] - x[:, 2]
        length = np.linalg.norm(to_h, axis=1, keepdims=True)
        forces[:, 1] -= KT * 10 * (length - 2.3) * to_h / length
        forces[:, 3] -= KT * 16 * hang
        forces[:, 2] = -forces.sum(1)
        return x, forces

    @classmethod
    def mean_force(cls, noise_std: float) -> np.ndarray:
        """Return the force on B along the distance, at each distance of the grid."""
        density = np.exp(-cls._energy()).sum(1)
        if noise_std:
            # The vector from A to B gets noise of variance 2σ² in 3-D: radial convolution of a spherical density.
            v, a, b = 2 * noise_std**2, cls.distance[:, None], cls.distance
            density = (b / a * (np.exp(-((a - b) ** 2) / (2 * v)) - np.exp(-((a + b) ** 2) / (2 * v)))) @ density
        return np.asarray(KT * np.gradient(np.log(density), cls.distance))


@pytest.fixture(scope="module")
def rigid():
    return RigidPair.sample(150_000, np.random.default_rng(1))


def _along(vectors: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distances and the components along them of forces on the second bead."""
    between = y[:, 1] - y[:, 0]
    length = np.linalg.norm(between, axis=1)
    return length, (vectors * between / length[:, None]).sum(1)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", LABELS)
def test_labels_of_a_molecule_with_a_rigid_bond_have_the_analytic_mean_force(name, seed, rigid):
    x, forces = rigid
    c = RigidPair.coordinate_map
    m = _random_map(c, RigidPair.groups, seed)
    assert m @ c.T == pytest.approx(np.eye(2), abs=1e-12)
    assert m[:, 0] == pytest.approx(m[:, 1])
    y, f, source = _label(name, np.einsum("na,fax->fnx", c, x), np.einsum("na,fax->fnx", m, forces))
    exact = RigidPair.mean_force(source.noise_std)
    for bead, sign in ((0, -1), (1, 1)):
        length, force = _along(f[:, bead], y)
        inside = (length > 2.2) & (length < 3.8)
        expected = sign * np.interp(length, RigidPair.distance, exact)
        _check_mean(force[inside], expected[inside], length[inside, None])
    assert (f**2).mean() == pytest.approx(source.variance(), abs=5 * (f**2).std() / np.sqrt(f.size))


@pytest.mark.parametrize("name", ["atomistic", "forces_and_noise"])
def test_the_force_on_the_atom_of_a_rigid_bond_alone_is_biased(name, rigid):
    x, forces = rigid
    c = RigidPair.coordinate_map
    y, f, source = _label(name, x[:, [0, 2]], np.einsum("na,fax->fnx", c, forces))
    length, force = _along(f[:, 0], y)
    expected = -np.interp(length, RigidPair.distance, RigidPair.mean_force(source.noise_std))
    assert np.abs(_scores(force - expected, length[:, None])).max() > 20


@pytest.mark.parametrize("name", ["atomistic", "forces_and_noise"])
def test_a_model_recovers_the_analytic_force_in_spite_of_a_rigid_bond(name, rigid, tmp_path):
    x, forces = (array[:10_000] for array in rigid)
    m = np.array([[1, 1, 0, 0], [0, 0, 1, 1]])
    path = tmp_path / "d.h5"
    options = {"temperature": 300.0, "resolution": ("ALA:A", "ALA:B"), "force_map": "optimal"}
    with create_dataset(path) as dataset, dataset.molecule("m", two_bead_topology(), **options) as molecule:
        molecule.append(x[:, [0, 2]], np.einsum("na,fax->fnx", m, forces))
    noise = {} if name == "atomistic" else {"noise_std": 0.08}
    recipe = Recipe.model_validate(
        {
            "name": "rigid",
            "data": {"dataset": str(path)},
            "labels": name,
            "priors": ["bonds"],
            "backbone": {"name": "schnet", **SMALL_SCHNET},
            "training": {"epochs": 8, "batch_size": 64, "learning_rate": 5e-3},
            **noise,
        }
    )
    model = CGModel.load(train(recipe, tmp_path / "t", quiet=True)).with_priors("training")
    r = np.linspace(2.5, 3.3, 17)
    positions = torch.zeros(len(r), 2, 3)
    positions[:, 1, 2] = torch.from_numpy(r).float()
    graph = model.graph(model.only_topology(), len(r))._replace(positions=positions.reshape(-1, 3))
    learned = model.energy_and_forces(graph)[1].reshape(-1, 2, 3)[:, 1, 2].numpy()
    exact = np.interp(r, RigidPair.distance, RigidPair.mean_force(noise.get("noise_std", 0.0)))
    assert np.sqrt(np.mean((learned - exact) ** 2)) < 0.2 * np.sqrt(np.mean(exact**2))
