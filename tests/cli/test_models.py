"""The commands that make models without training: fitted priors, and published networks."""

import torch

from ase_cg import CGModel, PriorSet
from ase_cg.models.torchmdnet import EMBEDDING, read_checkpoint
from tests.cli.test_cli import call


def test_priors_are_fitted_to_a_file_to_read_and_to_a_model(dataset_file, tmp_path, vocabulary):
    done = call("fit-priors", dataset_file, "-o", "p.yaml", "--priors", "bonds,angles,dihedrals", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(PriorSet.from_yaml(tmp_path / "p.yaml", vocabulary).terms) == ["bonds", "angles", "dihedrals"]
    done = call("fit-priors", dataset_file, "-o", "p.safetensors", "--priors", "bonds,repulsion", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    model = CGModel.load(tmp_path / "p.safetensors")
    assert list(model.priors.terms) == ["bonds", "repulsion"]
    assert model.backbone is None
    for arguments, message in (
        (("-o", "p.txt"), "must end in .yaml or .safetensors"),
        (("-o", "p.yaml"), "exists already"),
        (("-o", "q.yaml", "--priors", "bonds,angels"), "did you mean 'angles'"),
    ):
        done = call("fit-priors", dataset_file, *arguments, folder=tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_published_network_becomes_a_model_that_simulates(shared, tmp_path):
    folder = shared / "fast_folders"
    command = (
        *("import-torchmdnet", folder / "torchmdnet_multi_protein.ckpt", "--priors", folder / "prior_force_field.yaml"),
        *("--topology", folder / "topology" / "trp.psf", "-o", "m.safetensors"),
    )
    unnumbered = call(*command, folder=tmp_path)
    assert unnumbered.returncode == 2
    assert all(word in unnumbered.stderr for word in ("--numbering", "multi-protein", "torchmd-exp", "own table"))
    command = (*command, "--numbering", "multi-protein")
    done = call(*command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "left out: CYS, CYX, CYM; CYS, for instance: it has row 16" in done.stdout
    shown = call("info", "m.safetensors", folder=tmp_path)
    assert "residue numbers multi-protein" in shown.stdout
    assert "LEU 21" in shown.stdout
    start = folder / "experimental_structures" / "trpcage_2jof.pdb"
    times = ("--duration", "0.02 ps", "--report-interval", "0.01 ps", "--quiet")
    for number in (1, 2):
        done = call("simulate", "m.safetensors", "-o", f"s{number}", "-s", start, "-n", number, *times, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    assert call(*command, folder=tmp_path).returncode == 2  # the model is there already


def test_a_network_is_imported_with_a_table_and_the_users_word_on_what_was_trained(shared, tmp_path):
    folder = shared / "fast_folders"
    weights, settings = read_checkpoint(folder / "torchmdnet_multi_protein.ckpt")
    torch.save({"state_dict": weights, "hyper_parameters": settings}, tmp_path / "bare.ckpt")
    (tmp_path / "own.json").write_text('{"ALA": 1, "GLY": 2, "TRP": 7, "LEU": 21}')
    command = ("import-torchmdnet", "bare.ckpt", "--priors", folder / "prior_force_field.yaml", "-o", "m.safetensors")
    done = call(*command, "--numbering", "own.json", "--trained", "TRP", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "beads ALA, GLY, LEU, TRP\n" in done.stdout
    assert torch.equal(
        CGModel.load(tmp_path / "m.safetensors").backbone.embedding.weight, weights[EMBEDDING][[1, 2, 21, 7]].double()
    )
    done = call(*command, "--numbering", "multi-proteins", "--overwrite", folder=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'multi-protein'?" in done.stderr
    assert done.stderr.count("\n") == 1
