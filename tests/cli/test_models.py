"""The commands that make models without training: fitted priors, and published networks."""

from ase_cg import CGModel, PriorSet
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
    shown = call("info", "m.safetensors", folder=tmp_path)
    assert "residue numbers multi-protein" in shown.stdout
    assert "LEU 21" in shown.stdout
    start = folder / "experimental_structures" / "trpcage_2jof.pdb"
    times = ("--duration", "0.02 ps", "--report-interval", "0.01 ps", "--quiet")
    for number in (1, 2):
        done = call("simulate", "m.safetensors", "-o", f"s{number}", "-s", start, "-n", number, *times, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    assert call(*command, folder=tmp_path).returncode == 2  # the model is there already
