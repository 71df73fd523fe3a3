"""The model file: bit-equal, whole, and never anything else."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ase_cg import CGModel
from ase_cg.errors import InputError


def test_save_and_load_are_bit_equal(model, model_file, ala2, ala2_positions):
    loaded = CGModel.load(model_file)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    graph = model.graph(ala2)._replace(positions=torch.from_numpy(ala2_positions).float())
    for mine, other in zip(model.energy_and_forces(graph), loaded.energy_and_forces(graph), strict=True):
        assert torch.equal(mine, other)
    assert loaded.card == model.card
    assert loaded.vocabulary == model.vocabulary


def test_both_sets_of_priors_are_kept(model, tmp_path, ala2, ala2_positions):
    from tests.conftest import harmonic_priors

    soft = harmonic_priors(ala2, model.vocabulary, ala2_positions)
    soft.terms["bonds"].stiffness *= 0.5
    both = CGModel(
        model.vocabulary,
        model.priors,
        model.card,
        backbone=model.backbone,
        backbone_name="schnet",
        training_priors=soft,
    )
    both.save(tmp_path / "m.safetensors")
    loaded = CGModel.load(tmp_path / "m.safetensors")
    assert torch.equal(loaded.priors.terms["bonds"].stiffness, model.priors.terms["bonds"].stiffness)
    swapped = loaded.with_priors("training")
    assert torch.equal(swapped.priors.terms["bonds"].stiffness, soft.terms["bonds"].stiffness)
    assert swapped.backbone is loaded.backbone


def test_the_file_is_json_and_tensors_only(model_file):
    with safe_open(model_file, framework="pt") as file:
        metadata = json.loads(file.metadata()["ase_cg"])
    assert metadata["format"] == "ase-cg model"
    assert metadata["units"] == {"energy": "eV", "length": "Å"}
    assert metadata["card"]["temperature"] == 300.0


def test_loading_does_not_touch_the_random_numbers(model_file):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    CGModel.load(model_file)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_one_sentence(model_file, fraction):
    data = model_file.read_bytes()
    model_file.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(InputError, match="truncated") as error:
        CGModel.load(model_file)
    assert "\n" not in str(error.value)


def test_other_files_and_versions_are_refused(model_file, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        CGModel.load(tmp_path / "none.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(InputError, match="no ase-cg model"):
        CGModel.load(other)
    with pytest.raises(InputError, match="come with ase-cg are"):
        CGModel.load("no_such_model")
    pickled = tmp_path / "model.pt"
    torch.save({}, pickled)
    with pytest.raises(InputError, match=r"end in \.safetensors"):
        CGModel.load(pickled)
    renamed = tmp_path / "pickled.safetensors"
    renamed.write_bytes(pickled.read_bytes())
    with pytest.raises(InputError, match="no safetensors file"):
        CGModel.load(renamed)
    with safe_open(model_file, framework="pt") as file:
        metadata = json.loads(file.metadata()["ase_cg"])
    metadata["version"] = 99
    tensors = load_file(model_file)
    save_file(tensors, model_file, metadata={"ase_cg": json.dumps(metadata)})
    with pytest.raises(InputError, match="version 99"):
        CGModel.load(model_file)
    metadata["version"] = 1
    tensors.pop("backbone.embedding.weight")
    save_file(tensors, model_file, metadata={"ase_cg": json.dumps(metadata)})
    with pytest.raises(InputError, match="damaged"):
        CGModel.load(model_file)


def test_nothing_is_overwritten_silently(model, model_file):
    with pytest.raises(InputError, match="overwrite"):
        model.save(model_file)
    model.save(model_file, overwrite=True)
    assert [p.name for p in model_file.parent.iterdir()] == ["model.safetensors"]


def test_weights_that_are_no_numbers_are_named(model, tmp_path):
    import copy

    broken = copy.deepcopy(model)
    broken.state_dict()["backbone.embedding.weight"][0, 0] = float("nan")
    broken.save(tmp_path / "broken.safetensors")
    with pytest.raises(InputError, match=r"weights backbone\.embedding\.weight hold values that are no numbers"):
        CGModel.load(tmp_path / "broken.safetensors")


def test_priors_of_other_beads_are_refused(model):
    with pytest.raises(InputError, match=r"prior 'bonds' was made for 6 bead types, and the vocabulary has 2 \(A, B\)"):
        CGModel(("A", "B"), model.priors, model.card)
    others = ("X", *model.vocabulary[1:])
    with pytest.raises(InputError, match=r"made for the bead 'ACE:C' where the vocabulary has 'X'"):
        CGModel(others, model.priors, model.card)


def test_a_network_that_could_not_be_made_again_is_not_saved(model, tmp_path):
    unnamed = CGModel(model.vocabulary, model.priors, model.card, backbone=model.backbone)
    with pytest.raises(InputError, match="give CGModel the backbone_name"):
        unnamed.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
