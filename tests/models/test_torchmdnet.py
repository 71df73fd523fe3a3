"""Published TorchMD-Net networks: the formulas of their priors, what is refused, and nothing executed."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
import yaml

from ase_cg import CGCalculator, CGModel, InputError, read_beads
from ase_cg.beads.atoms import read_topology
from ase_cg.models.torchmd import read_torchmd_force_field, torchmd_priors, torchmd_type
from ase_cg.models.torchmdnet import import_torchmdnet, read_checkpoint
from ase_cg.units import KCAL_PER_MOL


@pytest.fixture(scope="module")
def published(shared):
    folder = shared / "chignolin_ca_forces"
    topology = read_topology(folder / "cln_ca_top_dih.psf", "calpha")
    priors = shared / "fast_folders" / "prior_force_field.yaml"
    return import_torchmdnet(folder / "torchmdnet_cln_ca.ckpt", priors, [topology], numbering="torchmd-exp"), topology


def test_priors_have_the_energies_of_torchmds_formulas(shared):
    path = shared / "fast_folders" / "prior_force_field.yaml"
    field = yaml.safe_load(path.read_text())
    atoms = read_beads(shared / "fast_folders" / "experimental_structures" / "villin_2f4k.pdb", "calpha")
    topology = read_topology(shared / "fast_folders" / "experimental_structures" / "villin_2f4k.pdb", "calpha")
    vocabulary = tuple(sorted(set(topology.names)))
    priors = torchmd_priors(read_torchmd_force_field(path), vocabulary)
    from ase_cg.data.graph import topology_graph

    x = atoms.positions
    graph = topology_graph(topology, vocabulary)._replace(positions=torch.tensor(x))
    kinds = [torchmd_type(name) for name in topology.names]
    n = len(x)
    bonds = 0.0
    for i in range(n - 1):
        row = field["bonds"][f"({kinds[i]}, {kinds[i + 1]})"]
        bonds += row["k0"] * (np.linalg.norm(x[i + 1] - x[i]) - row["req"]) ** 2
    repulsion = 0.0
    for i in range(n):
        for j in range(i + 2, n):
            a, b = field["lj"][kinds[i]], field["lj"][kinds[j]]
            epsilon, sigma = np.sqrt(a["epsilon"] * b["epsilon"]), (a["sigma"] + b["sigma"]) / 2
            repulsion += 4 * epsilon * (sigma / np.linalg.norm(x[j] - x[i])) ** 6
    dihedrals = 0.0
    for i in range(n - 3):
        b1, b2, b3 = x[i + 1] - x[i], x[i + 2] - x[i + 1], x[i + 3] - x[i + 2]
        phi = np.arctan2(np.linalg.norm(b2) * b1 @ np.cross(b2, b3), np.cross(b1, b2) @ np.cross(b2, b3))
        for term in field["dihedrals"]["(X, X, X, X)"]["terms"]:
            dihedrals += term["phi_k"] * (1 + np.cos(term["per"] * phi - np.radians(term["phase"])))
    for name, wanted in (("bonds", bonds), ("repulsion", repulsion), ("dihedrals", dihedrals)):
        assert float(priors.terms[name](graph)) / KCAL_PER_MOL == pytest.approx(wanted, rel=1e-6), name


def test_an_imported_model_survives_its_file_and_runs_under_ase(published, shared, tmp_path):
    model, topology = published
    model.save(tmp_path / "m.safetensors")
    loaded = CGModel.load(tmp_path / "m.safetensors")
    x = np.load(shared / "chignolin_ca_forces" / "chignolin_ca_coords.npy")[0]
    graph = model.graph(topology)._replace(positions=torch.tensor(x))
    assert torch.equal(model(graph), loaded(graph))
    atoms = read_beads(shared / "chignolin_ca_forces" / "chignolin_cln025.pdb", loaded)
    atoms.calc = CGCalculator(tmp_path / "m.safetensors")
    assert np.isfinite(atoms.get_forces()).all()


class _Harmful:
    def __reduce__(self):
        return (print, ("executed",))


def test_nothing_of_a_checkpoint_is_executed(tmp_path, capsys):
    torch.save({"state_dict": {"a": torch.ones(1)}, "hyper_parameters": {"x": 1}}, tmp_path / "plain.ckpt")
    weights, settings = read_checkpoint(tmp_path / "plain.ckpt")
    assert settings == {"x": 1}
    assert torch.equal(weights["a"], torch.ones(1))
    with zipfile.ZipFile(tmp_path / "plain.ckpt") as source, zipfile.ZipFile(tmp_path / "bad.ckpt", "w") as target:
        for item in source.infolist():
            data = source.read(item)
            target.writestr(item, pickle.dumps(_Harmful(), protocol=2) if item.filename.endswith("data.pkl") else data)
    with pytest.raises(InputError, match=r"print|damaged"):
        read_checkpoint(tmp_path / "bad.ckpt")
    assert "executed" not in capsys.readouterr().out
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(InputError, match="no PyTorch checkpoint"):
        read_checkpoint(tmp_path / "text.ckpt")
    torch.save({"a": 1}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="no state_dict"):
        read_checkpoint(tmp_path / "other.ckpt")


def test_other_architectures_and_force_fields_are_refused(shared, tmp_path, monkeypatch):
    folder = shared / "chignolin_ca_forces"
    priors = shared / "fast_folders" / "prior_force_field.yaml"
    weights, settings = read_checkpoint(folder / "torchmdnet_cln_ca.ckpt")
    for change, message in (
        ({"model": "transformer"}, "model 'transformer'; only 'graph-network'"),
        ({"num_layers": 5}, "lacks weights"),
        ({"num_layers": None}, "lacks weights"),
        ({"aggr": "mean"}, "aggr 'mean'; only 'add'"),
        ({"atom_filter": 3}, "atom_filter"),
    ):
        monkeypatch.setattr("ase_cg.models.torchmdnet.read_checkpoint", lambda _, c=change: (weights, settings | c))
        with pytest.raises(InputError, match=message):
            import_torchmdnet(folder / "torchmdnet_cln_ca.ckpt", priors, numbering="torchmd-exp")
    name = "model.representation_model.embedding.weight"
    for change, message in (
        ({name: weights[name][:2]}, "rows 0 to 1: the numbering is another"),
        ({name: weights[name][:, 0]}, "lacks weights of a graph network: model.representation_model.embedding"),
        ({name: weights[name] * float("nan")}, "values that are no numbers"),
        ({"model.representation_model.distance_proj.weight": weights[name]}, "distance_proj.weight, which no graph"),
    ):
        monkeypatch.setattr("ase_cg.models.torchmdnet.read_checkpoint", lambda _, c=change: (weights | c, settings))
        with pytest.raises(InputError, match=message):
            import_torchmdnet(folder / "torchmdnet_cln_ca.ckpt", priors, numbering="torchmd-exp")
    monkeypatch.undo()
    (tmp_path / "x.yaml").write_text("a: 1")
    with pytest.raises(InputError, match="no force field of TorchMD"):
        import_torchmdnet(folder / "torchmdnet_cln_ca.ckpt", tmp_path / "x.yaml", numbering="torchmd-exp")
    ubiquitin = read_topology(shared / "fast_folders" / "ubiquitin" / "ubiquitin_1ubq.pdb", "calpha")
    few = folder / "chignolin_priors_fulldata.yaml"
    with pytest.raises(InputError, match="the model knows no bead"):
        import_torchmdnet(folder / "torchmdnet_cln_ca.ckpt", few, [ubiquitin], numbering="torchmd-exp")
