"""Every backbone meets the checks that ase-cg ships, and leaves the process as it was."""

import copy
import json
import subprocess
import sys
import warnings

import pytest
import torch

from ase_cg import CGCalculator, CGModel, Recipe, read_beads, testing, train
from ase_cg.errors import InputError
from ase_cg.models.backbones import make_backbone
from ase_cg.models.backbones.near import near_pairs
from ase_cg.models.base import energy_and_forces
from ase_cg.testing_tools import one_molecule
from tests.conftest import ROOT, SMALL_SCHNET

SMALL = {
    "schnet": SMALL_SCHNET,
    "painn": {"features": 16, "n_basis": 8, "cutoff": 8.0, "head": [16]},
    "mace": {"hidden_irreps": "4x0e + 4x1o", "n_basis": 6, "cutoff": 8.0, "radial_MLP": [8], "correlation": 3},
}
CHECKS = [name for name in vars(testing) if name.startswith("check_") and name != "check_backbone"]
N_TYPES = 3


@pytest.fixture(scope="module")
def backbones():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return {name: make_backbone(name, N_TYPES, settings) for name, settings in SMALL.items()}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", SMALL)
def test_backbones_meet_every_check(name, check, backbones):
    extra = {"name": name} if check == "check_save_and_load" else {}
    getattr(testing, check)(backbones[name], n_types=N_TYPES, **extra)


@pytest.mark.parametrize("name", ["painn", "mace"])
def test_vectors_see_what_distances_to_one_bead_do_not(name, backbones):
    """One layer tells 90° from 120° between neighbours that do not see each other."""
    single = SMALL[name] | {"n_interactions" if name == "painn" else "num_interactions": 1, "cutoff": 2.5}
    torch.manual_seed(0)
    network = make_backbone(name, 1, single).double()
    energies = [
        float(network(one_molecule([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [2.0 * c, 2.0 * s, 0.0]], [0, 0, 0])).detach())
        for c, s in ((0.0, 1.0), (-0.5, 0.75**0.5))
    ]
    assert abs(energies[0] - energies[1]) > 1e-6


@pytest.mark.parametrize("name", ["painn", "mace"])
def test_leaving_out_pairs_beyond_the_cutoff_changes_nothing(name, backbones, monkeypatch):
    network = copy.deepcopy(backbones[name]).double()
    steps = 2.5 * torch.nn.functional.normalize(torch.randn(14, 3, generator=torch.Generator().manual_seed(2)), dim=1)
    whole = one_molecule(steps.cumsum(0), [0, 1] * 7)
    cell = 60.0 * torch.eye(3).double()[None]
    periodic = whole._replace(cell=cell, edge_images=torch.zeros(whole.edges.shape[1], 3).double())
    assert near_pairs(periodic, network.cutoff).edges.shape[1] < whole.edges.shape[1]
    results = [energy_and_forces(network, graph) for graph in (whole, periodic)]
    monkeypatch.setattr("ase_cg.models.backbones.near.WORTHWHILE", 10_000)
    energy, forces = energy_and_forces(network, whole)
    for other, more in results:
        assert float(other) == pytest.approx(float(energy), rel=1e-12)
        assert more.numpy() == pytest.approx(forces.numpy(), abs=1e-12)
    broken = whole._replace(positions=whole.positions * float("nan"))
    assert near_pairs(broken, network.cutoff).edges.shape == whole.edges.shape


@pytest.mark.parametrize("name", SMALL)
def test_fresh_weights_depend_on_the_seed_alone(name, backbones):
    drawn = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed)
        network = copy.deepcopy(backbones[name])
        network.reset_parameters()
        drawn.append(torch.cat([p.detach().reshape(-1) for p in network.parameters()]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_mace_keeps_its_couplings_exact_and_its_file_small(backbones):
    network = backbones["mace"]
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}
    there_and_back = copy.deepcopy(network).float().half().double()
    exact = copy.deepcopy(network).double()
    pairs = zip(there_and_back.named_buffers(), exact.named_buffers(), strict=True)
    assert all(torch.equal(one, other) for (_, one), (_, other) in pairs)


def test_mace_takes_pseudo_vectors_and_a_single_layer():
    network = make_backbone("mace", 2, SMALL["mace"] | {"hidden_irreps": "4x0e+4x1e", "num_interactions": 1})
    testing.check_save_and_load(network, n_types=2)
    testing.check_rotation(network, n_types=2)


def test_positions_are_left_as_they_were(backbones):
    for network in backbones.values():
        graph = one_molecule([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]], [0, 1]).to("cpu", torch.float32)
        before = graph.positions.clone()
        with torch.no_grad():
            network(graph)
        energy_and_forces(network, graph)
        assert not graph.positions.requires_grad
        assert torch.equal(before, graph.positions)


@pytest.mark.parametrize("name", ["schnet", "painn", "mace"])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"cutoff": "far"}, "cutoff must be a positive number of Å, not 'far'"),
        ({"cutoff": float("inf")}, "cutoff must be a positive number of Å"),
        ({"n_basis": 0}, "n_basis must be a positive whole number, not 0"),
        ({"n_basis": True}, "n_basis must be a positive whole number, not True"),
        ({"cutof": 5.0}, "did you mean 'cutoff'"),
    ],
)
def test_a_wrong_hyper_parameter_is_named(name, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        make_backbone(name, 2, settings)


@pytest.mark.parametrize("value", [True, False, "near", -1.0, 15.0, float("nan")])
def test_a_lower_cutoff_of_schnet_that_is_no_distance_below_the_cutoff_is_named(value):
    with pytest.raises(InputError, match=f"cutoff_lower must lie between 0 and the cutoff, not {value!r}"):
        make_backbone("schnet", 2, {"cutoff_lower": value})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"hidden_irreps": "32x0z"}, 'hidden_irreps must be like "32x0e'),
        ({"hidden_irreps": 32}, "hidden_irreps must be a text"),
        ({"hidden_irreps": "8x1o + 8x0e"}, "must begin with scalars"),
        ({"hidden_irreps": "8x0e + 4x1o"}, "same multiplicity"),
        ({"hidden_irreps": ""}, "must begin with scalars"),
        ({"gate": "sillu"}, "did you mean 'silu'"),
        ({"radial_MLP": 64}, "radial_MLP must be a list of widths"),
        ({"num_polynomial_cutoff": 1}, "num_polynomial_cutoff must be a whole number of at least 2"),
        ({"avg_num_neighbors": 0}, "avg_num_neighbors must be a positive number"),
    ],
)
def test_a_wrong_option_of_mace_is_named(settings, sentence, backbones):
    with pytest.raises(InputError, match=sentence):
        make_backbone("mace", 2, settings)


def test_without_mace_torch_the_user_is_told_what_to_install(monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "mace"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "mace", None)
    with pytest.raises(InputError, match=r"pip install 'ase-cg\[mace\]'"):
        make_backbone("mace", 2, {})


def test_building_and_running_mace_changes_nothing_in_the_process(backbones):
    code = (
        "import json, os, warnings, torch\n"
        "from ase_cg.models.backbones import make_backbone\n"
        "from ase_cg.testing import check_precision\n"
        "def state():\n"
        "    return [dict(os.environ), list(warnings.filters), torch.get_default_dtype(), torch.get_num_threads(),\n"
        "            torch.is_grad_enabled(), torch.get_rng_state().tolist()]\n"
        "before = state()\n"
        "with torch.random.fork_rng(devices=[]):\n"
        f"    network = make_backbone('mace', 2, {SMALL['mace']})\n"
        "check_precision(network, n_types=2)\n"
        "import e3nn\n"
        "print(json.dumps([e3nn.get_optimization_defaults()['jit_script_fx']]\n"
        "                 + [a == b for a, b in zip(before, state())]))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True] * 7  # and nothing else was printed
    assert not done.stderr


def test_no_warning_escapes_from_mace(backbones):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        testing.check_precision(backbones["mace"], n_types=N_TYPES)
        copy.deepcopy(backbones["mace"])


@pytest.mark.parametrize("name", ["painn", "mace"])
def test_one_word_in_the_recipe_changes_the_network(name, dataset_file, tmp_path):
    recipe = Recipe.model_validate(
        {
            "name": "test",
            "data": {"dataset": dataset_file},
            "backbone": {"name": name, **SMALL[name]},
            "training": {"epochs": 2, "batch_size": 32, "learning_rate": 3e-3},
        }
    )
    model = CGModel.load(train(recipe, tmp_path / "out", quiet=True))
    assert model.backbone_name == name
    atoms = read_beads(ROOT / "examples" / "data" / "ala2.pdb", model)
    atoms.calc = CGCalculator(model)
    single = atoms.get_forces()
    atoms.calc = CGCalculator(model, dtype="float64")
    double = atoms.get_forces()
    assert single == pytest.approx(double, abs=1e-4 * abs(double).max())
