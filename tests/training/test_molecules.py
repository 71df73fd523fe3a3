"""Training over several molecules at once: balanced batches, one model, the forces of each."""

import numpy as np
import pytest
import torch

from ase_cg import CGCalculator, CGModel, InputError, Recipe, train
from ase_cg.beads.atoms import beads_to_atoms
from ase_cg.beads.topology import BeadTopology
from ase_cg.data.dataset_writer import create_dataset
from ase_cg.data.graph import concatenate, topology_graph
from ase_cg.training.frames import BatchSampler, FrameDataset, MoleculeFrames, frame_loader
from ase_cg.units import thermal_energy
from tests.conftest import SMALL_SCHNET

KT = thermal_energy(300.0)
# Chains that move along x only are no equilibrium in space.
pytestmark = pytest.mark.filterwarnings("ignore:forces of molecule")


def _chain(names: str) -> BeadTopology:
    n = len(names)
    return BeadTopology(
        tuple(names),
        tuple(names),
        tuple(range(1, n + 1)),
        (0,) * n,
        (12.0,) * n,
        tuple((i, i + 1) for i in range(n - 1)),
    )


MOLECULES = {"short": ("AB", 600), "long": ("ABBA", 2400)}
STIFF = {"AB": 4.0, "BA": 4.0, "BB": 1.0}  # eV/Å², of bonds of 3.8 Å


def _frames(names: str, count: int, seed: int):
    """Chains along x on springs, sampled exactly, with their forces."""
    rng = np.random.default_rng(seed)
    x, f = np.zeros((count, len(names), 3)), np.zeros((count, len(names), 3))
    for bond in range(len(names) - 1):
        k = STIFF[names[bond : bond + 2]]
        stretch = np.sqrt(KT / (2 * k)) * rng.standard_normal(count)
        x[:, bond + 1, 0] = x[:, bond, 0] + 3.8 + stretch
        f[:, bond, 0] += 2 * k * stretch
        f[:, bond + 1, 0] -= 2 * k * stretch
    return x, f


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("molecules") / "d.h5"
    with create_dataset(path) as writer:
        for seed, (name, (names, count)) in enumerate(MOLECULES.items()):
            options = {"temperature": 300.0, "resolution": "calpha", "force_map": "slice"}
            with writer.molecule(name, _chain(names), **options) as molecule:
                molecule.append(*_frames(names, count, seed))
    return path


def _recipe(path, **changes):
    training = {"epochs": 2, "batch_size": 50, "allow_inconsistent_forces": True} | changes.pop("training", {})
    return Recipe.model_validate(
        {
            "name": "m",
            "data": {"dataset": str(path)},
            "priors": ["bonds"],
            "backbone": {"name": "schnet", **SMALL_SCHNET},
            "training": training,
            **changes,
        }
    )


def test_balanced_epochs_take_equally_many_frames_of_each_molecule():
    sampler = BatchSampler([10, 990], 50, shuffle=True, seed=0, balance="molecules")
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        rows = np.concatenate(list(sampler))
        assert len(rows) == 1000
        assert np.bincount(rows[:, 0]).tolist() == [500, 500]
        assert np.bincount(rows[rows[:, 0] == 0, 1]).tolist() == [50] * 10
        many = rows[rows[:, 0] == 1, 1]
        assert len(np.unique(many)) == 500
        epochs.append(set(many.tolist()))
    assert epochs[0] != epochs[1]
    # Every batch mixes them.
    assert all(len(np.unique(batch[:, 0])) == 2 for batch in sampler)
    plain = BatchSampler([10, 990], 50, shuffle=True, seed=0, balance="frames")
    assert np.bincount(np.concatenate(list(plain))[:, 0]).tolist() == [10, 990]


def test_a_batch_holds_the_frames_it_names():
    arrays = [(np.full((5, n, 3), 10.0 * m) + np.arange(5)[:, None, None], None) for m, n in ((0, 2), (1, 3))]
    arrays = [MoleculeFrames(x.astype(np.float32), f, np.arange(5) + 100) for x, f in arrays]
    batch = FrameDataset(arrays, weighted=False)[np.array([[1, 4, 0], [0, 2, 0], [1, 0, 1]])]
    found = [(part.molecule, part.coordinates[:, 0, 0].tolist(), part.draws.tolist()) for part in batch.parts]
    assert found == [(0, [2.0], [102]), (1, [14.0, 10.0], [104, 100 + 2**40])]
    assert batch.components == 3 * (2 + 3 + 3)
    loader = frame_loader(arrays, batch_size=4, shuffle=False, seed=0)
    assert sum(len(part.coordinates) for batch in loader for part in batch.parts) == 10


def test_one_model_learns_the_forces_of_all_molecules(dataset, tmp_path):
    recipe = _recipe(dataset, training={"epochs": 12, "learning_rate": 5e-3})
    model = CGModel.load(train(recipe, tmp_path / "t", quiet=True))
    assert [topology.n_beads for topology in model.card.topologies] == [4, 2]
    for names, count in MOLECULES.values():
        x, f = _frames(names, 50, 7)
        graph = topology_graph(_chain(names), model.vocabulary, len(x))
        _, forces = model.energy_and_forces(
            graph._replace(positions=torch.tensor(x, dtype=torch.float32).reshape(-1, 3))
        )
        residual = forces.reshape(f.shape).numpy() - f
        assert np.sqrt((residual**2).mean()) < 0.15 * np.sqrt((f**2).mean()), (names, count)
        atoms = beads_to_atoms(_chain(names), x[0], model.vocabulary)
        atoms.calc = CGCalculator(model)
        assert atoms.get_forces() == pytest.approx(forces.reshape(f.shape)[0].numpy(), abs=1e-4)


def test_molecules_together_have_the_energies_they_have_alone(dataset, tmp_path):
    model = CGModel.load(train(_recipe(dataset, training={"epochs": 1}), tmp_path / "t", quiet=True))
    graphs = []
    for names, _ in MOLECULES.values():
        x = torch.tensor(_frames(names, 3, 1)[0], dtype=torch.float32).reshape(-1, 3)
        graphs.append(topology_graph(_chain(names), model.vocabulary, 3)._replace(positions=x))
    together = model(concatenate(graphs))
    assert together.numpy() == pytest.approx(torch.cat([model(graph) for graph in graphs]).numpy(), abs=1e-5)


@pytest.mark.parametrize("labels", ["noise", "forces_and_noise"])
def test_noise_labels_are_fitted_to_each_molecule(labels, dataset, tmp_path):
    recipe = _recipe(dataset, labels=labels, noise_std=0.05, training={"epochs": 1})
    assert CGModel.load(train(recipe, tmp_path / "t", quiet=True)).training_priors is not None


def test_molecules_that_do_not_belong_together_are_refused(tmp_path):
    for change, message in (
        ({"temperature": 350.0}, "differ in temperature"),
        ({"resolution": "heavy"}, "differ in resolution"),
    ):
        path = tmp_path / "x.h5"
        with create_dataset(path, overwrite=True) as writer:
            for name, extra in (("a", {}), ("b", change)):
                options = {"temperature": 300.0, "resolution": "calpha", "force_map": "slice"} | extra
                with writer.molecule(name, _chain("AB"), **options) as molecule:
                    molecule.append(*_frames("AB", 60, 0))
        with pytest.raises(InputError, match=message):
            train(_recipe(path), tmp_path / "t", quiet=True)


def test_several_molecules_larger_than_the_memory_limit_are_told(dataset, tmp_path):
    with pytest.raises(InputError, match=r"several molecules are not streamed .* raise training.memory_limit"):
        train(_recipe(dataset, training={"memory_limit": 1e-6}), tmp_path / "t", quiet=True)
